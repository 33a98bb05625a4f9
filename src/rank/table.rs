/*!
The data behind the score: the weight of each role, and the error that each type gives.

Weights: fitted to the KLD that single tensors of 13 models cost (Thireus, GGUF Tool Suite and its
contributors). Errors: what the quantizers of `ik_llama.cpp` make of 262,144 Gaussian values with equal
importance. `docs/rank.md` says how far either can be trusted.
*/

use crate::codec::TensorType;

/// What a tensor does in its model.
#[derive(Debug, PartialEq)]
pub struct Role {
    /// As GGUF files name it.
    pub name: &'static str,
    /// What its relative error counts for.
    pub weight: f64,
    /// A head counts once; of other roles, the mean over layers counts.
    pub head: bool,
    /// Names below a layer (of heads: last parts) in Hugging Face checkpoints, numbers of experts left out.
    pub also: &'static [&'static str],
}

const fn head(name: &'static str, weight: f64, also: &'static [&'static str]) -> Role {
    Role { name, weight, head: true, also }
}

const fn layer(name: &'static str, weight: f64, also: &'static [&'static str]) -> Role {
    Role { name, weight, head: false, also }
}

/// Any other tensor of a layer: the median of all roles.
pub const OTHER: Role = layer("other", 0.42, &[]);

/// Queries, keys and values of an ordinary transformer in one tensor: never measured, the sum of the three.
pub const FUSED_QKV: Role = layer("attn_qkv_fused", 1.2, &["self_attn.qkv_proj", "attn.c_attn"]);

/// Every role that was measured.
pub const ROLES: &[Role] = &[
    head("output", 0.63, &["lm_head"]),
    head("token_embd_tied", 3.09, &[]),
    head("token_embd", 0.09, &["embed_tokens"]),
    layer("attn_q", 0.42, &["self_attn.q_proj", "attn.q_proj"]),
    layer("attn_k", 0.33, &["self_attn.k_proj", "attn.k_proj"]),
    layer("attn_v", 0.45, &["self_attn.v_proj", "attn.v_proj"]),
    layer("attn_output", 0.71, &["self_attn.o_proj", "self_attn.out_proj", "attn.o_proj"]),
    layer("attn_qkv", 0.68, &["linear_attn.in_proj_qkv"]),
    layer("attn_gate", 0.44, &["linear_attn.in_proj_z"]),
    layer("ffn_gate", 0.61, &["mlp.gate_proj"]),
    layer("ffn_up", 0.69, &["mlp.up_proj"]),
    layer("ffn_down", 0.69, &["mlp.down_proj"]),
    layer("ffn_gate_exps", 0.64, &["mlp.experts.gate_proj", "block_sparse_moe.experts.w1"]),
    layer("ffn_up_exps", 0.64, &["mlp.experts.up_proj", "block_sparse_moe.experts.w3"]),
    layer("ffn_down_exps", 0.8, &["mlp.experts.down_proj", "block_sparse_moe.experts.w2"]),
    layer("ffn_gate_shexp", 0.15, &["mlp.shared_expert.gate_proj", "mlp.shared_experts.gate_proj"]),
    layer("ffn_up_shexp", 0.15, &["mlp.shared_expert.up_proj", "mlp.shared_experts.up_proj"]),
    layer("ffn_down_shexp", 0.15, &["mlp.shared_expert.down_proj", "mlp.shared_experts.down_proj"]),
    layer("ssm_out", 0.65, &["linear_attn.out_proj"]),
    layer("ssm_alpha", 0.05, &["linear_attn.in_proj_a"]),
    layer("ssm_beta", 0.07, &["linear_attn.in_proj_b"]),
    layer("attn_kv_a_mqa", 0.42, &["self_attn.kv_a_proj_with_mqa"]),
    layer("attn_q_a", 0.29, &["self_attn.q_a_proj"]),
    layer("attn_q_b", 0.29, &["self_attn.q_b_proj"]),
    layer("attn_k_b", 0.21, &[]),
    layer("attn_v_b", 0.34, &[]),
];

/// The role of this name.
pub fn role_named(name: &str) -> Option<&'static Role> {
    ROLES.iter().find(|role| role.name == name)
}

/// Σ(w − ŵ)² / Σw² of each type.
const NOMINAL: &[(TensorType, f64)] = &[
    (TensorType::Q4_0, 0.006671),
    (TensorType::Q4_1, 0.0048654),
    (TensorType::Q5_0, 0.0016171),
    (TensorType::Q5_1, 0.0011349),
    (TensorType::Q8_0, 2.8755e-05),
    (TensorType::Q2_K, 0.072334),
    (TensorType::Q3_K, 0.020898),
    (TensorType::Q4_K, 0.0049982),
    (TensorType::Q5_K, 0.0012511),
    (TensorType::Q6_K, 0.00028817),
    (TensorType::IQ2_XXS, 0.11782),
    (TensorType::IQ2_XS, 0.088537),
    (TensorType::IQ3_XXS, 0.032996),
    (TensorType::IQ1_S, 0.23569),
    (TensorType::IQ4_NL, 0.0054496),
    (TensorType::IQ3_S, 0.018775),
    (TensorType::IQ2_S, 0.062008),
    (TensorType::IQ4_XS, 0.0055652),
    (TensorType::IQ1_M, 0.19605),
    (TensorType::BF16, 2.7513e-06),
    (TensorType::MXFP4, 0.013046),
    (TensorType::Q6_0, 0.00039377),
    (TensorType::IQ2_K, 0.077901),
    (TensorType::IQ3_K, 0.017237),
    (TensorType::IQ4_K, 0.0038693),
    (TensorType::IQ5_K, 0.0010077),
    (TensorType::IQ6_K, 0.00024594),
    (TensorType::IQ4_KS, 0.0051387),
    (TensorType::IQ2_KS, 0.096712),
    (TensorType::IQ4_KSS, 0.0080227),
    (TensorType::Q8_KV, 7.693e-05),
    (TensorType::IQ5_KS, 0.0012551),
    (TensorType::IQ2_KT, 0.086825),
    (TensorType::IQ3_KT, 0.02348),
    (TensorType::IQ4_KT, 0.0076258),
    (TensorType::IQ3_KS, 0.022513),
    (TensorType::IQ2_KL, 0.052818),
    (TensorType::IQ1_KT, 0.14923),
];

/// The relative squared error that a type gives on Gaussian weights; types with merged rows give what their
/// base type gives. `None` where it was never measured.
pub fn nominal_t2(ty: TensorType) -> Option<f64> {
    let name = ty.name();
    let base = ["_R4", "_R8", "_R16"].iter().find_map(|suffix| name.strip_suffix(suffix));
    let ty = base.and_then(TensorType::from_name).unwrap_or(ty);
    NOMINAL.iter().find(|(of, _)| *of == ty).map(|(_, t2)| *t2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_rows_give_what_their_base_type_gives() {
        for (name, of, why) in [
            ("IQ1_S_R4", "IQ1_S", "a type with a layout of its own"),
            ("Q4_K_R4", "Q4_K", "four rows"),
            ("BF16_R16", "BF16", "sixteen rows"),
            ("Q8_0_R8", "Q8_0", "eight rows"),
        ] {
            let t2 = |name| TensorType::from_name(name).and_then(nominal_t2);
            assert!(t2(name).is_some() && t2(name) == t2(of), "{name}: {why}");
        }
        for name in ["NVFP4", "IQ1_BN", "TQ1_0", "F32"] {
            assert_eq!(TensorType::from_name(name).and_then(nominal_t2), None, "{name}");
        }
    }

    #[test]
    fn names_of_roles_are_unique() {
        for (at, role) in ROLES.iter().enumerate() {
            assert!(ROLES[..at].iter().all(|other| other.name != role.name), "{}", role.name);
            for also in role.also {
                let other = ROLES.iter().filter(|it| it.also.contains(also)).count();
                assert_eq!(other, 1, "{also}");
            }
        }
    }
}
