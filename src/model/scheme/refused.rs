/*!
Schemes that are known by their planes but not decoded: each is refused by name, with what to do.
*/

use super::group::{Context, Group, Match, Trouble};

/// Suffixes of the planes of all of them.
pub const SUFFIXES: &[&str] = &[
    ".codebooks",
    ".codes",
    ".centroids.weight",
    ".indices",
    ".res_centroids.weight",
    ".res_indices",
    ".dense_weights",
    ".row_offsets",
    ".col_vals",
    ".in_perm",
    ".q_weight",
    ".q_groups",
    ".q_scale",
    ".q_scale_max",
    ".q_invperm",
    ".q_perm",
    ".trellis",
    ".suh",
    ".svh",
    ".su",
    ".sv",
    ".mcg",
    ".mul1",
    ".tables",
    ".tables2",
    ".B",
    ".s",
    ".workspace",
    ".B_24",
    ".B_meta",
    ".meta",
    ".compressed",
    ".bitmask",
    ".forward_hadamard_matrix",
    ".backward_hadamard_matrix",
    ".wscales",
    ".proj_down",
    ".proj_up",
];

/// The planes that give a scheme away, its name, and what to do.
const KNOWN: &[(&[&str], &str, &str)] = &[
    (&[".trellis"], "EXL3", "compare the checkpoint that it was converted from in another format"),
    (&[".q_weight", ".q_groups"], "EXL2", "compare another quantization of the same model"),
    (&[".codebooks", ".codes"], "AQLM", "dequantize it with the aqlm package and compare that"),
    (&[".centroids.weight", ".indices"], "VPTQ", "dequantize it with the vptq package first"),
    (&[".dense_weights", ".row_offsets"], "SPQR", "dequantize it with the spqr package first"),
    (&[".B_24", ".B_meta"], "MARLIN24", "export it again with the pack-quantized format"),
    (&[".weight_packed", ".meta"], "MARLIN24", "export it again with the pack-quantized format"),
    (&[".B", ".s"], "MARLIN", "export it again with checkpoint_format gptq"),
    (&[".compressed", ".bitmask"], "SPARSE24", "decompress it with compressed-tensors first"),
    (&[".tables", ".scales"], "HIGGS", "dequantize it with transformers first"),
    (&[".forward_hadamard_matrix"], "FP-QUANT", "its weights are rotated; dequantize it first"),
    (&[".qweight", ".wscales"], "SVDQUANT", "compare another quantization of the same model"),
];

/// Refuses what is known.
pub fn build(group: &Group, _: &Context) -> Match {
    let known = KNOWN.iter().find(|(planes, ..)| planes.iter().all(|suffix| group.has(suffix)));
    let Some((_, name, advice)) = known else { return Ok(None) };
    let reason = format!("{name} is recognised but not decoded; {advice}");
    Err(Trouble::Refused { scheme: (*name).to_owned(), reason })
}
