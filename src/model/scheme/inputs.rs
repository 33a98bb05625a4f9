/*!
What feeds the columns of a weight: the norm before it, by the names of both.
*/

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::fold::Rename;
use crate::codec::Class;
use crate::model::view::View;
use crate::model::{Model, ReadError, Scratch, Tensor};

/// Roles of a weight that is fed by a norm or another weight, by the end of its module's name.
pub(super) const FED_BY_NORM: &[(&[&str], &[&str])] = &[
    (
        &["input_layernorm", "attention_norm", "ln_1", "norm1", "attn_norm"],
        &[
            "q_proj",
            "k_proj",
            "v_proj",
            "qkv_proj",
            "wq",
            "wk",
            "wv",
            "c_attn",
            "query_key_value",
            "attn_q",
            "attn_k",
            "attn_v",
            "attn_qkv",
        ],
    ),
    (
        &["post_attention_layernorm", "pre_feedforward_layernorm", "ffn_norm", "ln_2", "norm2"],
        &[
            "gate_proj",
            "up_proj",
            "gate_up_proj",
            "w1",
            "w3",
            "gate",
            "fc1",
            "c_fc",
            "router",
            "ffn_gate",
            "ffn_up",
            "ffn_gate_inp",
            "ffn_gate_exps",
            "ffn_up_exps",
        ],
    ),
];

/// The last part of a module's name, and what is before it: `layers.0.mlp` and `up_proj`.
pub(super) fn module(name: &str) -> Option<(&str, &str)> {
    let module = name.strip_suffix(".weight")?;
    Some(module.rsplit_once('.').unwrap_or(("", module)))
}

/// A norm's gain below this part of its root mean square lets nothing through: less than what is left of it beside
/// the others in single precision. One that is exactly zero may be of a norm that multiplies by one more (Gemma).
const SILENT: f64 = 1e-8;

/// Longest vector of gains or factors: no layer is wider.
pub(super) const WIDEST: u64 = 1 << 20;

/// Whether a tensor is a norm that weights are folded into.
pub(super) fn is_norm(tensor: &Tensor) -> bool {
    let known = |name| FED_BY_NORM.iter().any(|(norms, _)| norms.contains(&name));
    tensor.shape.len() == 1
        && (2..=WIDEST).contains(&tensor.numel())
        && module(&tensor.name).is_some_and(|(_, name)| known(name))
}

/// Leaves the columns of quantized weights out, on both sides, at which nothing arrives, since the norm before them
/// lets nothing through: a quantizer that minds inputs may write there what it likes. Says which.
pub fn leave_out_silent(
    reference: &mut Model,
    quantized: &mut Model,
    rename: Rename,
) -> Result<Vec<String>, ReadError> {
    let masks = masks(reference)?;
    if masks.is_empty() {
        return Ok(Vec::new());
    }
    let counterparts: HashMap<String, usize> =
        quantized.tensors.iter().enumerate().map(|(at, it)| (rename(&it.name), at)).collect();
    let mut notes = Vec::new();
    for own in &mut reference.tensors {
        let Some(&other) = counterparts.get(&own.name) else { continue };
        let other = &mut quantized.tensors[other];
        let behind = before(&own.name).find_map(|norm| masks.get(&norm));
        let Some(mask) = behind.filter(|_| own.shape.len() > 1 && own.shape == other.shape) else {
            continue;
        };
        let last = own.shape.len() - 1;
        if other.class() != Class::Quantized || own.shape[last] != mask.len() as u64 {
            continue;
        }
        let without = |tensor: &Tensor| View::of(tensor).mul_along(last, Arc::clone(mask));
        if let (Ok(a), Ok(b)) = (without(own), without(other)) {
            own.storage = a.into_tensor(&own.name).storage;
            other.storage = b.into_tensor(&other.name).storage;
            let count = mask.iter().filter(|&&it| it == 0.0).count();
            notes.push(format!(
                "{}: nothing arrives at {count} of {} columns, the norm before it is zero there: left out",
                own.name,
                mask.len()
            ));
        }
    }
    Ok(notes)
}

/// Of each norm that lets nothing through somewhere, 0 there and 1 elsewhere.
fn masks(model: &Model) -> Result<HashMap<String, Arc<[f32]>>, ReadError> {
    let named: HashSet<&str> = model.tensors.iter().map(|it| it.name.as_str()).collect();
    let mut masks = HashMap::new();
    for norm in &model.tensors {
        // A bias is let through all the same.
        let bias = norm.name.strip_suffix("weight").map(|module| format!("{module}bias"));
        let has_bias = bias.is_some_and(|it| named.contains(&*it));
        if !is_norm(norm) || norm.class() != Class::Float || has_bias {
            continue;
        }
        let mut gains = vec![0f32; norm.numel() as usize];
        norm.decode(&model.files, 0..norm.numel(), &mut Scratch::default(), &mut gains)?;
        let power: f64 = gains.iter().map(|&gain| f64::from(gain).powi(2)).sum();
        let least = SILENT * (power / gains.len().max(1) as f64).sqrt();
        let is_silent = |gain: &f32| *gain != 0.0 && f64::from(gain.abs()) < least;
        if gains.iter().any(is_silent) {
            let mask = gains.iter().map(|gain| if is_silent(gain) { 0.0 } else { 1.0 });
            masks.insert(norm.name.clone(), mask.collect());
        }
    }
    Ok(masks)
}

/// What the norm before a weight may be called.
fn before(weight: &str) -> impl Iterator<Item = String> {
    let (parent, role) = module(weight).unwrap_or(("", ""));
    let above = std::iter::successors(Some(parent), |prefix| match prefix.rsplit_once('.') {
        Some((above, _)) => Some(above),
        None => (!prefix.is_empty()).then_some(""),
    });
    above.flat_map(move |prefix| {
        let norms = FED_BY_NORM.iter().filter(move |(_, fed)| fed.contains(&role));
        norms.flat_map(|(norms, _)| *norms).map(move |norm| {
            let dot = if prefix.is_empty() { "" } else { "." };
            format!("{prefix}{dot}{norm}.weight")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_before_a_weight_is_that_of_its_layer() {
        for (weight, norm, expected) in [
            (
                "model.layers.3.self_attn.q_proj.weight",
                "model.layers.3.input_layernorm.weight",
                true,
            ),
            (
                "model.layers.3.mlp.up_proj.weight",
                "model.layers.3.post_attention_layernorm.weight",
                true,
            ),
            ("model.layers.3.mlp.up_proj.weight", "model.layers.3.input_layernorm.weight", false),
            (
                "model.layers.3.self_attn.o_proj.weight",
                "model.layers.3.input_layernorm.weight",
                false,
            ),
            (
                "model.layers.3.self_attn.q_proj.weight",
                "model.layers.2.input_layernorm.weight",
                false,
            ),
            ("blk.7.ffn_gate.weight", "blk.7.ffn_norm.weight", true),
            ("bias", "blk.7.ffn_norm.weight", false),
        ] {
            assert_eq!(before(weight).any(|it| it == norm), expected, "{weight}, {norm}");
        }
    }
}
