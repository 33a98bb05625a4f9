/*!
Schemes that are known by their planes but not decoded: each is refused by name, with what to do.
*/

use super::group::{Context, Group, Match, Trouble};

/// Suffixes of the planes of all of them.
pub const SUFFIXES: &[&str] = &[
    ".dense_weights",
    ".row_offsets",
    ".col_ids",
    ".col_vals",
    ".in_perm",
    ".tables",
    ".tables2",
    ".Qidxs",
    ".SU",
    ".SV",
    ".tlut",
    ".codebook_id",
    ".rcp",
    ".tp_rank",
    ".qweight",
    ".scales",
    ".scales2",
    ".dqweight",
    ".act_global_scale",
    ".weight_global_scale",
    ".forward_hadamard_matrix",
    ".backward_hadamard_matrix",
    ".wscales",
    ".proj_down",
    ".proj_up",
    ".weight.compressed",
    ".weight.bitmask",
    ".weight.row_offsets",
    ".weight.shape",
];

/// A scheme that is refused.
struct Known {
    /// Each is a set of planes that gives it away.
    planes: &'static [&'static [&'static str]],
    name: &'static str,
    /// What to do instead.
    advice: &'static str,
}

/// In the order in which they are tried.
const KNOWN: &[Known] = &[
    Known {
        planes: &[&[".trellis", ".SU"], &[".trellis", ".SV"], &[".tlut"]],
        name: "QTIP",
        advice: "decode it with the qtip package and compare what it writes",
    },
    Known {
        planes: &[&[".Qidxs"]],
        name: "QUIP#",
        advice: "decode it with the quip-sharp package and compare what it writes",
    },
    Known {
        planes: &[&[".dense_weights", ".row_offsets"], &[".dense_weights", ".in_perm"]],
        name: "SPQR",
        advice: "dequantize it with the spqr package first",
    },
    Known {
        planes: &[&[".tables", ".scales"], &[".tables2"]],
        name: "HIGGS",
        advice: "call dequantize() of transformers on the model, save it, and compare that",
    },
    Known {
        planes: &[&[".forward_hadamard_matrix"], &[".backward_hadamard_matrix"], &[".dqweight"]],
        name: "FP-QUANT",
        advice: "its weights are rotated; dequantize it with transformers first",
    },
    Known {
        planes: &[&[".qweight", ".wscales"]],
        name: "SVDQUANT",
        advice: "compare another quantization of the same model",
    },
    Known {
        planes: &[&[".weight.compressed", ".weight.bitmask"]],
        name: "SPARSE-BITMASK",
        advice: "decompress it with compressed-tensors first",
    },
];

/// Refuses what is known.
pub fn build(group: &Group, context: &Context) -> Match {
    if group.has(".W_q") && context.config.method() == "sinq" {
        // Its planes are those of HQQ, with a second scale in a form of their own.
        let reason =
            "SINQ is recognised but not decoded; dequantize it with the sinq package first";
        return Err(Trouble::Refused { scheme: "SINQ".to_owned(), reason: reason.to_owned() });
    }
    let all = |planes: &[&str]| planes.iter().all(|suffix| group.has(suffix));
    let Some(known) = KNOWN.iter().find(|known| known.planes.iter().any(|planes| all(planes)))
    else {
        return Ok(None);
    };
    let reason = format!("{} is recognised but not decoded; {}", known.name, known.advice);
    Err(Trouble::Refused { scheme: known.name.to_owned(), reason })
}
