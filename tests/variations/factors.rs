/*! Kinds 20, 21, 25: factors that were multiplied into the columns of a weight before it was quantized. */

use serde_json::json;

use crate::made::*;
use crate::program::{Random, Suite, bf16s, f32s};
use crate::table::{Files, Table, files, model};

/// Factors whose logarithms spread so far.
fn factors(len: usize, spread: f32, seed: u64) -> Vec<f32> {
    let factors: Vec<f32> =
        Random(seed).normals(len).iter().map(|it| (it * spread).exp()).collect();
    rounded(&factors)
}

/// The columns times the factors, or divided by them.
fn columns(matrix: &Matrix, factors: &[f32], divide: bool) -> Matrix {
    let cols = matrix.cols();
    let value = |(at, value): (usize, &f32)| {
        let factor = factors[at % cols];
        if divide { value / factor } else { value * factor }
    };
    Matrix { values: matrix.values.iter().enumerate().map(value).collect(), ..matrix.clone() }
}

fn of(all: &[Owned]) -> Files {
    model(file(all))
}

/// Kind 20-awq-scaled-activation.
#[test]
fn factors_in_the_activation() {
    let mut table = Table::of("20-awq-scaled-activation");
    // Above, the matrices before and behind the activation, the activation, the type of its factors, width, groups.
    #[rustfmt::skip]
    let cases: [(&str, &str, &str, &str, &str, u64, usize); 7] = [
        ("transformer.h", "mlp.c_fc", "mlp.c_proj", "mlp.act", "F16", 64, 64),
        ("transformer.blocks", "ffn.up_proj", "ffn.down_proj", "ffn.act", "F16", 96, 32),
        ("transformer.h", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", "mlp.gelu_impl", "F16", 64, 32),
        ("gpt_neox.layers", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", "mlp.act", "BF16", 128, 64),
        ("model.layers", "mlp.fc1", "mlp.fc2", "mlp.activation_fn", "F32", 64, 64),
        ("model.decoder.layers", "fc1", "fc2", "activation_fn", "F16", 64, 64),
        ("transformer.h", "mlp.fc_in", "mlp.fc_out", "mlp.act", "F16", 64, 32),
    ];
    for (above, first, last, activation, dtype, wide, group) in cases {
        let what = format!("{above} {last} {activation} {dtype}");
        let blocks: Vec<[Matrix; 2]> = (0..3)
            .map(|block| {
                let name = |part: &str| format!("{above}.{block}.{part}.weight");
                [
                    Matrix::new(name(first), &[wide * 2, wide], block * 2),
                    Matrix::new(name(last), &[wide, wide * 2], block * 2 + 1),
                ]
            })
            .collect();
        let norm = Matrix::new("transformer.ln_f.weight", &[wide], 50);
        let plain: Vec<Owned> = blocks.iter().flatten().chain([&norm]).map(Matrix::plain).collect();
        let config = json!({ "quantization_config": { "quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", "zero_point": true } });
        let config = config.to_string().into_bytes();
        let make = |wrong: &dyn Fn(&mut Vec<f32>)| {
            let mut all = vec![norm.plain()];
            for (block, [first, last]) in blocks.iter().enumerate() {
                let mut own = factors(last.cols(), 0.4, block as u64 + 3);
                all.extend(first.quantized(Scheme::Awq(group)));
                all.extend(columns(last, &own, false).quantized(Scheme::Awq(group)));
                if block == 1 {
                    wrong(&mut own);
                }
                let bytes = match dtype {
                    "F16" => f16s(&own),
                    "BF16" => bf16s(&own),
                    _ => f32s(&own),
                };
                let name = format!("{above}.{block}.{activation}.scales");
                all.push(tensor(name, dtype, &[own.len() as u64], bytes));
            }
            files([("model.safetensors", file(&all)), ("config.json", config.clone())])
        };
        let reference = of(&plain);
        let said = format!("{above}.0.{activation}.scales");
        table.noted(&what, &reference, &make(&|_| {}), &[&said]);
        let name = format!("{above}.1.{last}");
        table.damaged(
            &format!("{what}, reversed"),
            &reference,
            &make(&|own| own.reverse()),
            &[&name],
        );
        table.damaged(
            &format!("{what}, moved on"),
            &reference,
            &make(&|own| own.rotate_left(1)),
            &[&name],
        );
        table.damaged(&format!("{what}, ones"), &reference, &make(&|own| own.fill(1.0)), &[&name]);
        let above = format!("{above}.1.");
        table.damaged(
            &format!("{what}, NaN"),
            &reference,
            &make(&|own| own[5] = f32::NAN),
            &[&above],
        );
        table.damaged(&format!("{what}, zero"), &reference, &make(&|own| own[7] = 0.0), &[&above]);
    }
}

/// Kind 21-torchao-act-pre-scale.
#[test]
fn factors_of_torchao() {
    let mut table = Table::of("21-torchao-act-pre-scale");
    // Class of the weight, module, shape, shape of the factors, their type.
    #[rustfmt::skip]
    let cases: [(&str, &str, [u64; 2], &[u64], &str); 5] = [
        ("Int8Tensor", "model.layers.{}.self_attn.o_proj", [64, 96], &[96], "BF16"),
        ("Int8Tensor", "layers.{}.feed_forward.w2", [48, 128], &[1, 128], "F32"),
        ("Int8Tensor", "transformer.h.{}.mlp.c_proj", [64, 64], &[64], "F16"),
        ("Float8Tensor", "model.layers.{}.mlp.down_proj", [32, 128], &[128], "BF16"),
        ("Float8Tensor", "model.layers.{}.mlp.gate_proj", [96, 64], &[1, 64], "F32"),
    ];
    for (class, module, shape, extents, dtype) in cases {
        let what = format!("{class} {module} {extents:?} {dtype}");
        let matrices: Vec<Matrix> = (0..3)
            .map(|layer| {
                Matrix::new(
                    format!("{}.weight", module.replace("{}", &layer.to_string())),
                    &shape,
                    layer,
                )
            })
            .collect();
        let plain: Vec<Owned> = matrices.iter().map(Matrix::plain).collect();
        let reference = of(&plain);
        let make = |wrong: &dyn Fn(&mut Vec<f32>)| {
            let mut all = Vec::new();
            let mut metadata = serde_json::Map::new();
            for (layer, matrix) in matrices.iter().enumerate() {
                let mut own = factors(matrix.cols(), 0.3, layer as u64 + 9);
                let scheme = if class == "Int8Tensor" { Scheme::Int8Rows } else { Scheme::Fp8Rows };
                let planes = columns(matrix, &own, true).quantized(scheme);
                let module = matrix.name.strip_suffix(".weight").unwrap();
                for ((_, ty, shape, bytes), suffix) in planes.into_iter().zip(["qdata", "scale"]) {
                    all.push(tensor(format!("{module}._weight_{suffix}"), &ty, &shape, bytes));
                }
                if layer == 1 {
                    wrong(&mut own);
                }
                let bytes = match dtype {
                    "F16" => f16s(&own),
                    "BF16" => bf16s(&own),
                    _ => f32s(&own),
                };
                all.push(tensor(format!("{module}._weight_act_pre_scale"), dtype, extents, bytes));
                let names =
                    ["qdata", "scale", "act_pre_scale"].map(|it| format!("{module}._weight_{it}"));
                let data = json!({ "_type": class, "_data": { "block_size": [1, matrix.cols()] }, "_tensor_data_names": names });
                metadata.insert(matrix.name.clone(), data.to_string().into());
            }
            model(file_with(&all, &metadata.into()))
        };
        table.healthy(&what, &reference, &make(&|_| {}));
        let name = matrices[1].name.strip_suffix(".weight").unwrap();
        table.damaged(
            &format!("{what}, reversed"),
            &reference,
            &make(&|own| own.reverse()),
            &[name],
        );
        table.damaged(&format!("{what}, ones"), &reference, &make(&|own| own.fill(1.0)), &[name]);
        table.damaged(
            &format!("{what}, NaN"),
            &reference,
            &make(&|own| own[3] = f32::NAN),
            &[name],
        );
        table.damaged(&format!("{what}, zero"), &reference, &make(&|own| own[3] = 0.0), &[name]);
    }
}

/// Kind 25-smoothing-factors-and-what-to-expect.
#[test]
fn what_to_expect_behind_factors() {
    let mut table = Table::of("25-smoothing-factors-and-what-to-expect");
    // Module, shape, scheme, spread of the factors, their type.
    #[rustfmt::skip]
    let cases: [(&str, [u64; 2], Scheme, f32, &str); 9] = [
        ("model.layers.0.self_attn.o_proj", [64, 128], Scheme::Int8Rows, 0.3, "BF16"),
        ("model.layers.3.mlp.gate_proj", [96, 256], Scheme::Int8Rows, 0.7, "F32"),
        ("model.layers.0.mlp.up_proj", [128, 64], Scheme::Nvfp4, 0.3, "F16"),
        ("model.layers.7.mlp.down_proj", [64, 256], Scheme::Nvfp4, 0.7, "BF16"),
        ("model.layers.0.self_attn.qkv_proj", [96, 128], Scheme::Fp8, 0.5, "BF16"),
        ("transformer.h.0.mlp.c_proj", [64, 128], Scheme::Fp8Rows, 0.6, "F32"),
        ("model.layers.0.mlp.experts.1.down_proj", [64, 96], Scheme::Int8Rows, 0.4, "F16"),
        ("model.layers.0.mlp.down_proj", [64, 96], Scheme::Nvfp4, 0.1, "BF16"),
        ("model.layers.1.mlp.down_proj", [96, 128], Scheme::Int8Rows, 0.05, "F32"),
    ];
    for (module, shape, scheme, spread, dtype) in cases {
        let what = format!("{module} {scheme:?} {spread} {dtype}");
        let matrix = Matrix::new(format!("{module}.weight"), &shape, 5);
        let norm = Matrix::new("model.norm.weight", &[shape[1]], 6);
        let reference = of(&[matrix.plain(), norm.plain()]);
        let sound = factors(matrix.cols(), spread, 11);
        let sound = if dtype == "F16" {
            sound.iter().map(|it| half::f16::from_f32(*it).to_f32()).collect()
        } else {
            sound
        };
        let make = |own: &[f32]| {
            let mut all = columns(&matrix, &sound, true).quantized(scheme);
            let bytes = match dtype {
                "F16" => f16s(own),
                "BF16" => bf16s(own),
                _ => f32s(own),
            };
            all.push(tensor(format!("{module}.pre_quant_scale"), dtype, &[shape[1]], bytes));
            all.push(norm.plain());
            all
        };
        table.healthy(&what, &reference, &of(&make(&sound)));
        let name = matrix.name.as_str();
        let mut turned = sound.clone();
        turned.reverse();
        table.damaged(&format!("{what}, reversed"), &reference, &of(&make(&turned)), &[name]);
        let ones = vec![1.0; sound.len()];
        table.damaged(&format!("{what}, ones"), &reference, &of(&make(&ones)), &[name]);
        let mut all = make(&sound);
        if matches!(scheme, Scheme::Int8Rows | Scheme::Fp8Rows) {
            let scale = f32::from_le_bytes(all[1].3[8..12].try_into().unwrap());
            all[1].3[8..12].copy_from_slice(&f32s(&[scale * 2.0]));
            table.damaged(&format!("{what}, a row's scale"), &reference, &of(&all), &[name]);
        } else {
            let at = all[0].3.len() / 2;
            all[0].3[at..].reverse();
            table.damaged(&format!("{what}, codes reversed"), &reference, &of(&all), &[name]);
        }
    }
    // `run` and `diff` judge alike.
    let matrix = Matrix::new("model.layers.0.mlp.down_proj.weight", &[64, 128], 5);
    let own = factors(128, 0.5, 3);
    let mut all = columns(&matrix, &own, true).quantized(Scheme::Int8Rows);
    all.push(tensor("model.layers.0.mlp.down_proj.pre_quant_scale", "BF16", &[128], bf16s(&own)));
    let suite = Suite::new();
    suite.write("r.safetensors", file(&[matrix.plain()]));
    suite.write("q.safetensors", file(&all));
    suite.spec("");
    table.expect("run", &suite.qualm(&["run", "--no-baseline"]), &[0], &[], &["bad-imatrix"]);
    table.expect("diff", &suite.qualm(&["diff", "r.safetensors", "q.safetensors"]), &[0], &[], &[]);
}
