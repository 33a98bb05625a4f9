/*! Kinds 04, 19: planes that belong to no weight, and planes that do not fit. */

use serde_json::json;

use crate::made::*;
use crate::program::f32s;
use crate::table::{Files, Table, files, model};

fn of(all: &[Owned]) -> Files {
    model(file(all))
}

/// Attention of three layers.
fn attention(above: &str, layers: u64) -> Vec<Matrix> {
    let parts = ["q_proj", "k_proj", "v_proj", "o_proj"];
    let name = |at: u64| format!("{above}.{}.self_attn.{}.weight", at / 4, parts[at as usize % 4]);
    (0..layers * 4).map(|at| Matrix::new(name(at), &[32, 64], at)).collect()
}

/// Kind 04-kv-cache-scales.
#[test]
fn scales_of_the_cache() {
    let mut table = Table::of("04-kv-cache-scales");
    // Spellings of a layer that occur together, below the attention, their shape and type.
    #[rustfmt::skip]
    let cases: [(&str, &[&str], &[u64], &str, Scheme); 15] = [
        ("compressed-tensors", &["k_scale", "v_scale"], &[1], "BF16", Scheme::Fp8Rows),
        ("by heads", &["k_scale", "v_scale"], &[4, 1, 1], "F32", Scheme::Fp8),
        ("per head", &["k_scale", "v_scale"], &[4], "F16", Scheme::Packed(4, 32)),
        ("ModelOpt", &["k_proj.k_scale", "v_proj.v_scale"], &[], "F32", Scheme::Nvfp4),
        ("ModelOpt's quantizers", &["k_proj.output_scale", "v_proj.output_scale"], &[], "F32", Scheme::Fp8),
        ("AutoFP8", &["kv_scale"], &[1], "F32", Scheme::Fp8),
        ("below the module", &["attn.k_scale", "attn.v_scale", "attn.q_scale", "attn.prob_scale"], &[], "F32", Scheme::Int8Rows),
        ("Quark", &["k_proj.output_scale", "v_proj.output_scale", "q_proj.output_scale"], &[1], "F32", Scheme::Fp8),
        ("Quark's softmax", &["prob_output_scale", "q_scale", "k_scale", "v_scale"], &[], "F32", Scheme::Fp8),
        ("zero points", &["k_scale", "v_scale", "k_zero_point", "v_zero_point"], &[1], "F32", Scheme::Int8Rows),
        ("global", &["q_global_scale", "k_global_scale", "v_global_scale"], &[1], "F32", Scheme::Nvfp4),
        ("TensorRT-LLM", &["kv_cache_scaling_factor"], &[1], "F32", Scheme::Fp8),
        ("TensorRT-LLM, reciprocal", &["kv_cache_scaling_factor", "kv_cache_rcp_scaling_factor"], &[1], "F32", Scheme::Fp8),
        ("MLA", &["mla_attn.k_scale", "mla_attn.v_scale"], &[], "F32", Scheme::Fp8Blocks(32)),
        ("AutoAWQ and a cache", &["attn.k_scale", "attn.v_scale"], &[1], "F32", Scheme::Awq(32)),
    ];
    for (what, spellings, shape, dtype, scheme) in cases {
        let above = if shape.is_empty() { "model.layers" } else { "language_model.model.layers" };
        let matrices = attention(above, 3);
        let reference = of(&matrices.iter().map(Matrix::plain).collect::<Vec<_>>());
        let len = shape.iter().product::<u64>() as usize;
        let make = |odd: &dyn Fn(u64, &str) -> Option<f32>| {
            let mut all: Vec<Owned> = matrices.iter().flat_map(|it| it.quantized(scheme)).collect();
            for layer in 0..3 {
                for spelling in spellings {
                    let Some(value) = odd(layer, spelling) else { continue };
                    let values = vec![value; len];
                    let bytes = match dtype {
                        "BF16" => crate::program::bf16s(&values),
                        "F16" => f16s(&values),
                        _ => f32s(&values),
                    };
                    all.push(tensor(
                        format!("{above}.{layer}.self_attn.{spelling}"),
                        dtype,
                        shape,
                        bytes,
                    ));
                }
            }
            of(&all)
        };
        let last = *spellings.last().unwrap();
        let name = format!("{above}.1.self_attn.{last}");
        table.healthy(what, &reference, &make(&|layer, _| Some(0.03 + layer as f32 / 64.0)));
        let with = |value: Option<f32>| {
            make(&move |layer, spelling| {
                if layer == 1 && spelling == last { value } else { Some(0.25) }
            })
        };
        for (why, value) in
            [("NaN", Some(f32::NAN)), ("infinite", Some(f32::NEG_INFINITY)), ("lost", None)]
        {
            table.damaged(&format!("{what}, {why}"), &reference, &with(value), &[&name]);
        }
        if !last.contains("zero_point") {
            table.damaged(&format!("{what}, zero"), &reference, &with(Some(0.0)), &[&name]);
            table.damaged(&format!("{what}, negative"), &reference, &with(Some(-0.5)), &[&name]);
        }
    }
}

/// Kind 19-half-scales-and-leaked-buffers.
#[test]
fn planes_that_do_not_fit() {
    let mut table = Table::of("19-half-scales-and-leaked-buffers");
    let matrices = attention("model.layers", 2);
    let reference = of(&matrices.iter().map(Matrix::plain).collect::<Vec<_>>());
    let make = |scheme: Scheme| {
        matrices.iter().flat_map(|it| it.quantized(scheme)).collect::<Vec<Owned>>()
    };
    let module = "model.layers.1.self_attn.v_proj";
    for (scheme, suffix) in [
        (Scheme::Nvfp4, ".weight_scale"),
        (Scheme::Fp8Rows, ".weight_scale"),
        (Scheme::Int8Rows, ".weight_scale"),
        (Scheme::Packed(4, 32), ".weight_scale"),
        (Scheme::Gptq(32), ".scales"),
        (Scheme::Awq(32), ".qzeros"),
        (Scheme::Fp8Blocks(16), ".weight_scale_inv"),
        (Scheme::Mxfp4, ".weight_scale"),
    ] {
        table.healthy(&format!("{scheme:?}"), &reference, &of(&make(scheme)));
        for axis in 0..2 {
            let mut all = make(scheme);
            let plane = format!("{module}{suffix}");
            let (.., shape, bytes) = all.iter_mut().find(|it| it.0 == plane).unwrap();
            if shape[axis] < 2 {
                continue;
            }
            shape[axis] /= 2;
            bytes.truncate(bytes.len() / 2);
            table.check(
                &format!("{scheme:?}, half of axis {axis}"),
                &reference,
                &of(&all),
                &[5, 6],
                &[module],
                &["nothing was quantized"],
            );
        }
    }
    // Buffers that leaked.
    for leaked in [
        "weight_quantizer._amax",
        "input_quantizer._amax",
        "weight_quantizer._scale",
        "weight_quantizer._double_scale",
        "output_quantizer._amax",
    ] {
        let mut all = make(Scheme::Nvfp4);
        let name = format!("{module}.{leaked}");
        all.push(scalar(&name, 0.5));
        table.check(leaked, &reference, &of(&all), &[0, 5], &[&name], &["nothing was quantized"]);
    }
    // Codes of another scheme under the planes of this one.
    for (scheme, other) in
        [(Scheme::Nvfp4, Scheme::Int8Rows), (Scheme::Packed(4, 32), Scheme::Nvfp4)]
    {
        let mut all = make(scheme);
        let foreign = matrices[6].quantized(other)[0].clone();
        let codes = all.iter_mut().find(|it| it.0.starts_with(module)).unwrap();
        (codes.1, codes.2, codes.3) = (foreign.1, foreign.2, foreign.3);
        table.check(
            &format!("{other:?} in {scheme:?}"),
            &reference,
            &of(&all),
            &[5, 6],
            &[module],
            &["nothing was quantized"],
        );
    }
    // A configuration of another scheme.
    for (algorithm, scheme) in
        [("NVFP4", Scheme::Fp8), ("FP8", Scheme::Nvfp4), ("W4A16_AWQ", Scheme::Int8Rows)]
    {
        let config = json!({ "quantization": { "quant_algo": algorithm } }).to_string();
        let pair = files([
            ("model.safetensors", file(&make(scheme))),
            ("hf_quant_config.json", config.into()),
        ]);
        table.check(
            &format!("{algorithm} over {scheme:?}"),
            &reference,
            &pair,
            &[0, 5],
            &[],
            &["nothing was quantized"],
        );
    }
    let mut lost = make(Scheme::Nvfp4);
    lost.retain(|it| it.0 != format!("{module}.weight_scale_2"));
    table.damaged("a scale of the tensor lost", &reference, &of(&lost), &[module]);
}
