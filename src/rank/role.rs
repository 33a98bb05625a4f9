/*!
What each tensor of a model does in it, by its name.

Names of GGUF files (`blk.7.attn_q.weight`) come first; those of Hugging Face checkpoints are understood as
far as the table of roles lists them.
*/

use std::collections::HashSet;

use super::table::{FUSED_QKV, OTHER, ROLES, Role, role_named};

/// Where a tensor counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// What it does.
    pub role: &'static Role,
    /// Its layer; none for heads.
    pub layer: Option<u64>,
    /// Equal for tensors that count as one: the experts of a layer's projection.
    pub key: String,
}

/// The roles of a model's tensors.
#[derive(Debug)]
pub struct Roles {
    /// The embedding is the output head as well.
    tied: bool,
    /// Layers that a multi-token-prediction head is made of.
    prediction: HashSet<u64>,
    /// Layers of linear attention.
    linear: HashSet<u64>,
}

impl Roles {
    /// Looks at all tensors of a model: what one of them does may depend on the others.
    pub fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut roles = Self { tied: true, prediction: HashSet::new(), linear: HashSet::new() };
        for name in names {
            let name = Name::of(name);
            if is_head("output", name.stem) && name.layer.is_none() {
                roles.tied = false;
            }
            let Some(layer) = name.layer else { continue };
            let first = name.stem.split('.').next().unwrap_or_default();
            if matches!(first, "nextn" | "eh_proj" | "enorm" | "hnorm") {
                roles.prediction.insert(layer);
            }
            if first.starts_with("ssm_") || first == "linear_attn" {
                roles.linear.insert(layer);
            }
        }
        roles
    }

    /// Where the tensor counts; `None` for what does not: norms, biases, routers, vectors, layers of a
    /// multi-token-prediction head, indexers of sparse attention, encoders of images and sound.
    pub fn place(&self, name: &str, shape: &[u64]) -> Option<Place> {
        let matrix = shape.iter().filter(|extent| **extent > 1).count() > 1;
        let name = Name::of(name);
        if !matrix || !name.is_weight || name.is_elsewhere {
            return None;
        }
        let Some(layer) = name.layer else {
            let role = if is_head("output", name.stem) {
                role_named("output")
            } else if is_head("token_embd", name.stem) {
                role_named(if self.tied { "token_embd_tied" } else { "token_embd" })
            } else {
                None
            };
            let key = name.stem.to_owned();
            return role.map(|role| Place { role, layer: None, key });
        };
        if self.prediction.contains(&layer) || is_left_out(name.stem) {
            return None;
        }
        let stem = without_numbers(name.stem);
        let fits = |role: &&Role| role.name == stem || role.also.contains(&stem.as_str());
        let role = match ROLES.iter().filter(|role| !role.head).find(fits) {
            Some(role) if role.name == "attn_qkv" && !self.linear.contains(&layer) => &FUSED_QKV,
            Some(role) => role,
            None if fits(&&FUSED_QKV) => &FUSED_QKV,
            None => &OTHER,
        };
        Some(Place { role, layer: Some(layer), key: format!("{layer}.{stem}") })
    }
}

/// A tensor's name, taken apart.
struct Name<'a> {
    layer: Option<u64>,
    /// What follows the layer, or the whole name, without `.weight`.
    stem: &'a str,
    is_weight: bool,
    /// A part of the model that does not make text.
    is_elsewhere: bool,
}

impl<'a> Name<'a> {
    fn of(name: &'a str) -> Self {
        let bare = name.strip_suffix(".weight");
        let whole = bare.unwrap_or(name);
        // Stacked experts of some checkpoints are parameters without a suffix.
        let is_weight = bare.is_some() || whole.ends_with("_proj");
        let (prefix, rest) = match whole.strip_prefix("blk.") {
            Some(rest) => ("", Some(rest)),
            None => match whole.split_once("layers.") {
                Some((prefix, rest)) => (prefix, Some(rest)),
                None => (whole, None),
            },
        };
        let below = rest.and_then(|rest| {
            let (number, stem) = rest.split_once('.')?;
            Some((number.parse().ok()?, stem))
        });
        let elsewhere = ["vision", "visual", "audio", "mtp", "draft"];
        let is_elsewhere =
            prefix.split('.').any(|part| elsewhere.iter().any(|it| part.contains(it)));
        let (layer, stem) = below.map_or((None, whole), |(layer, stem)| (Some(layer), stem));
        Self { layer, stem, is_weight, is_elsewhere }
    }
}

/// Whether a name outside the layers is a head's, in either spelling.
fn is_head(role: &str, stem: &str) -> bool {
    let last = stem.rsplit('.').next().unwrap_or_default();
    stem == role || role_named(role).is_some_and(|it| it.also.contains(&last))
}

/// Norms, routers, indexers: kept as floats, or without effect where it was measured.
fn is_left_out(stem: &str) -> bool {
    let mut parts = stem.split('.');
    let router =
        stem == "mlp.gate" || stem.ends_with("shared_expert_gate") || stem.ends_with("moe.gate");
    router
        || stem.contains("ffn_gate_inp")
        || parts.any(|part| part.starts_with("indexer") || part.contains("norm") || part == "nextn")
}

/// `mlp.experts.7.gate_proj` and `mlp.experts.8.gate_proj` are one.
fn without_numbers(stem: &str) -> String {
    let parts: Vec<&str> = stem.split('.').filter(|part| part.parse::<u64>().is_err()).collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_by_name() {
        let names = [
            "output.weight",
            "token_embd.weight",
            "blk.0.attn_qkv.weight",
            "blk.1.attn_qkv.weight",
            "blk.1.ssm_out.weight",
            "blk.9.nextn.eh_proj.weight",
        ];
        let roles = Roles::of(names.into_iter());
        for (name, shape, expected, why) in [
            ("output.weight", [8, 8], Some(("output", None)), "a head"),
            (
                "token_embd.weight",
                [8, 8],
                Some(("token_embd", None)),
                "not tied: there is an output",
            ),
            ("blk.0.attn_q.weight", [8, 8], Some(("attn_q", Some(0))), "a layer's"),
            (
                "blk.0.attn_qkv.weight",
                [8, 8],
                Some(("attn_qkv_fused", Some(0))),
                "an ordinary layer",
            ),
            ("blk.1.attn_qkv.weight", [8, 8], Some(("attn_qkv", Some(1))), "linear attention"),
            ("blk.0.wonder.weight", [8, 8], Some(("other", Some(0))), "unknown"),
            ("blk.0.attn_q.bias", [8, 8], None, "a bias"),
            ("blk.0.attn_q.weight", [1, 8], None, "a vector"),
            ("blk.0.attn_q_norm.weight", [8, 8], None, "a norm"),
            ("blk.0.ffn_gate_inp.weight", [8, 8], None, "a router"),
            ("blk.0.indexer.attn_k.weight", [8, 8], None, "an indexer"),
            ("blk.9.attn_q.weight", [8, 8], None, "a layer that predicts further tokens"),
            (
                "model.layers.3.self_attn.o_proj.weight",
                [8, 8],
                Some(("attn_output", Some(3))),
                "HF",
            ),
            (
                "model.layers.3.mlp.experts.7.up_proj.weight",
                [8, 8],
                Some(("ffn_up_exps", Some(3))),
                "HF",
            ),
            ("model.layers.3.mlp.gate.weight", [8, 8], None, "a router of HF"),
            ("model.visual.layers.3.self_attn.q_proj.weight", [8, 8], None, "of images"),
            ("rope_freqs.weight", [8, 8], None, "no head and in no layer"),
        ] {
            let place = roles.place(name, &shape);
            assert_eq!(place.map(|it| (it.role.name, it.layer)), expected, "{name}: {why}");
        }
    }

    #[test]
    fn an_embedding_without_an_output_is_tied() {
        for (names, name) in [
            (["token_embd.weight", "blk.0.attn_q.weight"], "token_embd.weight"),
            (["model.embed_tokens.weight", "model.norm.weight"], "model.embed_tokens.weight"),
        ] {
            let place = Roles::of(names.into_iter()).place(name, &[8, 8]);
            assert_eq!(place.map(|it| it.role.name), Some("token_embd_tied"));
        }
        let roles = Roles::of(["model.embed_tokens.weight", "lm_head.weight"].into_iter());
        let place = roles.place("model.embed_tokens.weight", &[8, 8]);
        assert_eq!(place.map(|it| it.role.name), Some("token_embd"));
    }

    #[test]
    fn experts_of_a_layer_count_as_one() {
        let roles = Roles::of(std::iter::empty());
        let key = |n: u32| {
            let name = format!("model.layers.3.mlp.experts.{n}.up_proj.weight");
            roles.place(&name, &[8, 8]).map(|place| place.key)
        };
        assert!(key(1).is_some() && key(1) == key(2));
    }
}
