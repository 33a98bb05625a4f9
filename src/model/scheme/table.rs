/*!
The one table of schemes: what each is called, which suffixes it goes by, and who puts it together.

The detector tries the rows in order; the table of docs/formats.md is made from them. Adding a scheme is one
file and one row.
*/

use super::group::{Context, Group, Match};
use super::{
    affine, aqlm, awq, bitsandbytes, comfy, exl2, exl3, fp4, fp8, gptq, hqq, int8, marlin,
};
use super::{mlx, packed, quanto, quark, refused, sparse24, ternary, torchao, vptq};
use crate::codec::TensorType;

/// One row of the table.
pub struct Scheme {
    /// What the documentation calls it.
    pub name: &'static str,
    /// Names in the `qtype` column; `{n}` stands for the bits of a code.
    pub qtypes: &'static str,
    /// Every suffix that a plane of it may have, after the base name.
    pub suffixes: &'static [&'static str],
    /// What tells it from the others, and which tools write it.
    pub docs: &'static str,
    /// Puts a weight together; `Ok(None)` if the planes are another scheme's.
    pub(super) build: fn(&Group, &Context) -> Match,
}

/// Every scheme, in the order in which they are tried.
pub static SCHEMES: &[Scheme] = &[
    Scheme {
        name: "recognised, not decoded",
        qtypes: "QUIP#, QTIP, HIGGS, SPQR, SINQ, FP-QUANT, SVDQUANT, …",
        suffixes: refused::SUFFIXES,
        docs: "refused by name, with what to do instead",
        build: refused::build,
    },
    Scheme {
        name: "EXL3",
        qtypes: "EXL3",
        suffixes: exl3::SUFFIXES,
        docs: "`trellis` I16 of 1 to 8 bits and half rates, `suh` and `svh` (or `su` and `sv`), code \
               books `mcg`, `mul1` and neither; quantized embeddings with `signs`; cut to the \
               reference's shape",
        build: exl3::build,
    },
    Scheme {
        name: "EXL2",
        qtypes: "EXL2",
        suffixes: exl2::SUFFIXES,
        docs: "`q_weight` I32 with `q_groups` of mixed widths, `q_scale`, `q_scale_max`, `q_invperm` or \
               `q_perm`; cut to the reference's shape",
        build: exl2::build,
    },
    Scheme {
        name: "AQLM",
        qtypes: "AQLM",
        suffixes: aqlm::SUFFIXES,
        docs: "`codes` with `codebooks` of any number, width and group, and `scales`",
        build: aqlm::build,
    },
    Scheme {
        name: "VPTQ",
        qtypes: "VPTQ",
        suffixes: vptq::SUFFIXES,
        docs: "`indices`, packed or not, with `centroids.weight`, residuals, outliers, `perm`, \
               `weight_scale` and `weight_bias`, as `config_for_layers` says",
        build: vptq::build,
    },
    Scheme {
        name: "compressed-tensors sparse-24-bitmask",
        qtypes: "SPARSE24, SPARSE24-FP8, SPARSE24-INT8",
        suffixes: sparse24::SUFFIXES,
        docs: "`compressed` of floats, FP8 or INT8 with `bitmask` U8, and `weight_scale` over codes",
        build: sparse24::build,
    },
    Scheme {
        name: "marlin-24",
        qtypes: "SPARSE24-INT4, SPARSE24-INT8",
        suffixes: marlin::SPARSE_SUFFIXES,
        docs: "`weight_packed` I32 with `scale_packed` and `meta` (compressed-tensors), or `B_24`, `s` \
               and `B_meta` (GPTQ); 4 and 8 bits",
        build: marlin::build_sparse,
    },
    Scheme {
        name: "GPTQ marlin",
        qtypes: "GPTQ4",
        suffixes: marlin::SUFFIXES,
        docs: "`B` I32 `[in/16, 2*out]` with `s`, what `checkpoint_format` `marlin` writes",
        build: marlin::build,
    },
    Scheme {
        name: "ComfyUI",
        qtypes: "NVFP4, MXFP8",
        suffixes: comfy::SUFFIXES,
        docs: "named by `comfy_quant` or the header's `_quantization_metadata`: scales in tiles of \
               128 x 4, NVFP4 with the high nibble first; FP8 and INT8 as below",
        build: comfy::build,
    },
    Scheme {
        name: "compressed-tensors pack-quantized",
        qtypes: "INT{n}",
        suffixes: packed::SUFFIXES,
        docs: "`weight_packed` I32 with `weight_scale`; 1 to 8 bits, dense and loose packing, \
               groups, channels, zero points, `weight_g_idx`",
        build: packed::build,
    },
    Scheme {
        name: "NVFP4",
        qtypes: "NVFP4",
        suffixes: fp4::NVFP4_SUFFIXES,
        docs: "E2M1 codes, E4M3 scales of 16, and a scale of the tensor: `weight_global_scale` \
               (compressed-tensors, divides) or `weight_scale_2` (ModelOpt, multiplies)",
        build: fp4::build_nvfp4,
    },
    Scheme {
        name: "MXFP4, MXFP6",
        qtypes: "MXFP4, MXFP6",
        suffixes: fp4::MX_SUFFIXES,
        docs: "E2M1, E2M3 or E3M2 codes and E8M0 scales of 32: compressed-tensors, Quark, ModelOpt, \
               DeepSeek-V4",
        build: fp4::build_mx,
    },
    Scheme {
        name: "gpt-oss MXFP4",
        qtypes: "MXFP4",
        suffixes: &["_blocks", "_scales"],
        docs: "experts as `X_blocks` and `X_scales`, transposed to `[experts, in, out]`",
        build: fp4::build_gpt_oss,
    },
    Scheme {
        name: "FP8",
        qtypes: "FP8, MXFP8",
        suffixes: fp8::SUFFIXES,
        docs: "E4M3 or E5M2 codes (FNUZ as well) with a scale per tensor, row, block or group; \
               `weight_scale_inv` multiplies, too: DeepSeek, compressed-tensors, ModelOpt, Quark, \
               FBGEMM, Mistral",
        build: fp8::build,
    },
    Scheme {
        name: "Quark integers",
        qtypes: "INT{n}",
        suffixes: quark::SUFFIXES,
        docs: "`weight` I32, eight 4-bit codes to a word in AWQ's order unless `pack_method` is \
               `order`, `[in, out/8]` in groups and `[out, in/8]` else; transposed bytes; 3 bits",
        build: quark::build,
    },
    Scheme {
        name: "INT8",
        qtypes: "INT8",
        suffixes: int8::SUFFIXES,
        docs: "I8 codes with `weight_scale` per tensor, row, block or group, and zero points: \
               compressed-tensors, ModelOpt, Quark",
        build: int8::build,
    },
    Scheme {
        name: "bitsandbytes LLM.int8",
        qtypes: "INT8",
        suffixes: bitsandbytes::INT8_SUFFIXES,
        docs: "I8 codes with `SCB`, row-major",
        build: bitsandbytes::build_int8,
    },
    Scheme {
        name: "bitsandbytes 4-bit",
        qtypes: "NF4, FP4",
        suffixes: bitsandbytes::FOUR_BIT_SUFFIXES,
        docs: "codes of a stored map with `absmax` of a block, plain or doubly quantized, in any \
               storage type",
        build: bitsandbytes::build_4bit,
    },
    Scheme {
        name: "AWQ",
        qtypes: "AWQ4",
        suffixes: &[".qweight", ".qzeros", ".scales", ".g_idx"],
        docs: "`qweight` I32 `[in, out/8]` in the interleaved order of the gemm kernels; also what \
               AutoRound writes as `auto_awq`; factors of a scaled activation (`mlp.act.scales`) are \
               taken out",
        build: awq::build,
    },
    Scheme {
        name: "GPTQ",
        qtypes: "GPTQ{n}",
        suffixes: gptq::SUFFIXES,
        docs: "`qweight` I32 `[in*n/32, out]`, 2 to 8 bits; formats `gptq`, `gptq_v2`, `gptq_p` and \
               AutoRound's; act-order",
        build: gptq::build,
    },
    Scheme {
        name: "MLX",
        qtypes: "MLX{n}, MXFP4, MXFP8, NVFP4",
        suffixes: &[".weight", ".scales", ".biases", ".qbiases", ".global_scale"],
        docs: "`weight` U32 with `scales` and, for the affine mode, `biases`; 2 to 8 bits",
        build: mlx::build,
    },
    Scheme {
        name: "HQQ",
        qtypes: "HQQ{n}",
        suffixes: hqq::SUFFIXES,
        docs: "`W_q`, `scale`, `zero` and settings as tensors; 1, 2, 3, 4 and 8 bits, both axes",
        build: hqq::build,
    },
    Scheme {
        name: "torchao",
        qtypes: "FP8, INT8, INT{n}, MXFP4, MXFP8, NVFP4",
        suffixes: torchao::SUFFIXES,
        docs: "flattened tensor subclasses (`_weight_qdata`) that the file's metadata describe; \
               `act_pre_scale` is applied",
        build: torchao::build,
    },
    Scheme {
        name: "optimum-quanto",
        qtypes: "INT8, FP8, INT4, INT2",
        suffixes: quanto::SUFFIXES,
        docs: "`weight._data`, `weight._scale`, `weight._shift`",
        build: quanto::build,
    },
    Scheme {
        name: "ModelOpt INT4",
        qtypes: "INT4",
        suffixes: &[".weight", ".weight_scale", ".weight_scale_2", ".pre_quant_scale"],
        docs: "`weight` U8 `[out/2, in]`, two rows to a byte; `pre_quant_scale` is applied",
        build: affine::build_model_opt,
    },
    Scheme {
        name: "BitNet",
        qtypes: "BITNET",
        suffixes: &[".weight", ".weight_scale"],
        docs: "ternary `weight` U8 `[out/4, in]`, divided by its `weight_scale`",
        build: ternary::build,
    },
    Scheme {
        name: "Gemma QAT",
        qtypes: "INT4, INT2",
        suffixes: &[".weight", ".weight_scale"],
        docs: "`weight` U8 with one F32 scale a row, where the configuration says `gemma`",
        build: affine::build_gemma,
    },
    Scheme {
        name: "EETQ",
        qtypes: "INT8",
        suffixes: &[".weight", ".weight_scales"],
        docs: "`weight` I8 `[in, out]` with one scale a column",
        build: int8::build_eetq,
    },
];

/// Is this what `qualm inspect` prints as a type: an element or block type, or a scheme?
pub fn knows_qtype(name: &str) -> bool {
    TensorType::from_name(name).is_some() || names_scheme(name)
}

/// Is this a name of the `qtype` column, without regard to case?
fn names_scheme(name: &str) -> bool {
    let is = |known: &str| match known.split_once("{n}") {
        Some((family, rest)) => {
            name.get(..family.len()).is_some_and(|it| it.eq_ignore_ascii_case(family))
                && name[family.len()..].strip_suffix(rest).is_some_and(|bits| {
                    bits.parse::<u32>().is_ok_and(|bits| (1..=8).contains(&bits))
                })
        }
        None => known.eq_ignore_ascii_case(name),
    };
    SCHEMES.iter().flat_map(|scheme| scheme.qtypes.split(", ")).any(is)
}

/// The table as Markdown, for the documentation.
pub fn markdown_table() -> String {
    let mut text = String::from("| scheme | qtype | recognised by |\n| --- | --- | --- |\n");
    for Scheme { name, qtypes, docs, .. } in SCHEMES {
        text.extend(["| ", name, " | ", qtypes, " | ", docs, " |\n"]);
    }
    text
}
