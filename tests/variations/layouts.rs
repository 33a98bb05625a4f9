/*! Kinds 03, 05, 06, 07: native shapes, files of `ComfyUI`, tables in pieces, experts that are turned. */

use serde_json::{Value, json};

use crate::forge::gguf::{Gguf, array, f32s as stored_f32s, id};
use crate::made::*;
use crate::program::{bf16s, f32s};
use crate::table::{Table, files, model};

/// Blocks of Q8_0 or Q4_0.
fn blocks(values: &[f32], ty: u32) -> Vec<u8> {
    let block = |block: &[f32]| {
        if ty == id::TENSOR_Q8_0 {
            let scale = most(block) / 127.0;
            let codes = block.iter().map(|value| (value / scale).round() as i8 as u8);
            return [f16s(&[scale]), codes.collect()].concat();
        }
        let end =
            block.iter().copied().fold(0f32, |end, it| if it.abs() > end.abs() { it } else { end });
        let scale = end / -8.0;
        let code = |value: f32| (value / scale + 8.5).clamp(0.0, 15.0) as u8;
        let codes = (0..16).map(|at| code(block[at]) | code(block[at + 16]) << 4);
        [f16s(&[scale]), codes.collect()].concat()
    };
    match ty {
        id::TENSOR_F32 => stored_f32s(values),
        id::TENSOR_F16 => f16s(values),
        _ => values.chunks(32).flat_map(block).collect(),
    }
}

/// A key that says a native shape, in an array of the type.
fn native(file: Gguf, name: &str, shape: &[u64], ty: u32) -> Gguf {
    let bytes: Vec<u8> = match ty {
        id::I32 | id::U32 => shape.iter().flat_map(|n| (*n as u32).to_le_bytes()).collect(),
        _ => shape.iter().flat_map(|n| n.to_le_bytes()).collect(),
    };
    file.entry(
        format!("comfy.gguf.orig_shape.{name}"),
        id::ARRAY,
        &array(ty, shape.len() as u64, &bytes),
    )
}

/// Kind 03-comfy-gguf-orig-shape.
#[test]
fn native_shapes() {
    let mut table = Table::of("03-comfy-gguf-orig-shape");
    let arch = |name: &str| Gguf::new().text("general.architecture", name);
    // Architecture, type of the key, type of the blocks, the reshaped tensor, its shape, as stored.
    #[rustfmt::skip]
    let cases: [(&str, u32, u32, &str, &[u64], &[u64]); 7] = [
        ("sd3", id::I32, id::TENSOR_Q8_0, "joint_blocks.1.x_block.mlp.fc2.weight", &[24, 160], &[15, 256]),
        ("wan", id::U32, id::TENSOR_Q4_0, "blocks.2.ffn.0.weight", &[32, 96], &[12, 256]),
        ("ltxv", id::I64, id::TENSOR_Q8_0, "transformer_blocks.0.attn1.to_q.weight", &[40, 192], &[30, 256]),
        ("hidream", id::U64, id::TENSOR_Q4_0, "double_stream_blocks.0.block.adaLN_modulation.1.weight", &[64, 36], &[9, 256]),
        ("wan", id::I32, id::TENSOR_F16, "patch_embedding.weight", &[16, 4, 1, 2, 2], &[16, 4, 2, 2]),
        ("sdxl", id::I32, id::TENSOR_Q8_0, "input_blocks.0.0.weight", &[32, 8, 3, 3], &[9, 256]),
        ("lumina2", id::I32, id::TENSOR_F32, "cap_pad_token", &[1, 1, 256], &[256]),
    ];
    for (architecture, key, ty, name, shape, stored) in cases {
        let other = Matrix::new("final_layer.linear.weight", &[32, 64], 1);
        let own = Matrix::new(name, shape, 2);
        let token = Matrix::new("pos_token", &[1, 1, 32], 3);
        let reference = [&own, &other, &token].map(Matrix::plain);
        let reference = model(file(&reference));
        let base = |file: Gguf, own: &Matrix| {
            let file = file.tensor(name, stored, ty, blocks(&own.values, ty));
            let file = file.tensor(
                &other.name,
                &other.shape,
                id::TENSOR_Q8_0,
                blocks(&other.values, id::TENSOR_Q8_0),
            );
            let file = file.tensor(&token.name, &[32], id::TENSOR_F32, stored_f32s(&token.values));
            files([("model.gguf", file.bytes())])
        };
        let with = |shape: &[u64]| native(arch(architecture), name, shape, key);
        let what = format!("{architecture} {name}");
        table.healthy(&what, &reference, &base(with(shape), &own));
        let reverse: Vec<u64> = shape.iter().rev().copied().collect();
        let mut odd = shape.to_vec();
        odd[0] += 1;
        if shape.len() != 3 {
            let at = |why: &str| format!("{what}, {why}");
            table.damaged(&at("no key"), &reference, &base(arch(architecture), &own), &[name]);
            table.damaged(&at("axes reversed"), &reference, &base(with(&reverse), &own), &[name]);
            table.damaged(&at("another size"), &reference, &base(with(&odd), &own), &[name]);
        }
        let mut bad = own.clone();
        let half = bad.values.len() / 2;
        bad.values[..half].iter_mut().for_each(|value| *value *= -1.0);
        table.damaged(&format!("{what}, signs"), &reference, &base(with(shape), &bad), &[name]);
    }
    // The reference is of the same kind.
    let own = Matrix::new("blocks.0.mlp.weight", &[24, 160], 5);
    let of = |ty: u32, shape: &[u64]| {
        let file = native(arch("flux"), &own.name, &own.shape, id::I32);
        files([("a.gguf", file.tensor(&own.name, shape, ty, blocks(&own.values, ty)).bytes())])
    };
    let plain = files([(
        "a.gguf",
        arch("flux").tensor(&own.name, &own.shape, id::TENSOR_F16, f16s(&own.values)).bytes(),
    )]);
    table.healthy(
        "both reshaped",
        &of(id::TENSOR_F16, &[15, 256]),
        &of(id::TENSOR_Q8_0, &[15, 256]),
    );
    table.healthy(
        "reshaped in two ways",
        &of(id::TENSOR_F16, &[30, 128]),
        &of(id::TENSOR_Q8_0, &[15, 256]),
    );
    table.healthy("the reference as it is", &plain, &of(id::TENSOR_Q8_0, &[15, 256]));
}

/// Kind 05-comfy-scaled-files.
#[test]
fn comfy_files() {
    let mut table = Table::of("05-comfy-scaled-files");
    let names = [
        "transformer_blocks.0.attn.to_q.weight",
        "transformer_blocks.0.ff.net.2.weight",
        "single_transformer_blocks.3.proj_out.weight",
    ];
    let matrices: Vec<Matrix> = names
        .iter()
        .enumerate()
        .map(|(at, name)| Matrix::new(*name, &[96, 64 + 32 * at as u64], at as u64))
        .collect();
    let norm = Matrix::new("proj_in.bias", &[64], 8);
    let reference = |prefix: &str| {
        let all = matrices.iter().chain([&norm]);
        model(file(
            &all.map(|it| it.named(format!("{prefix}{}", it.name)).plain()).collect::<Vec<_>>(),
        ))
    };
    let plain = reference("");
    // Codes of each matrix, with a scale and an input's scale under these suffixes.
    let fp8 = |suffixes: [&str; 2], shape: &[u64], prefix: &str| {
        let mut all = vec![norm.named(format!("{prefix}{}", norm.name)).plain()];
        for matrix in &matrices {
            let named = matrix.named(format!("{prefix}{}", matrix.name));
            let own = named.quantized(Scheme::Fp8);
            let module = named.name.strip_suffix(".weight").unwrap();
            all.push(own[0].clone());
            all.push(tensor(format!("{module}{}", suffixes[0]), "F32", shape, own[1].3.clone()));
            all.push(tensor(format!("{module}{}", suffixes[1]), "F32", shape, f32s(&[0.5])));
        }
        all
    };
    let old = [".scale_weight", ".scale_input"];
    let new = [".weight_scale", ".input_scale"];
    let marker = |dtype: &str, len: u64| tensor("scaled_fp8", dtype, &[len], vec![0; len as usize]);
    let plane = |all: Vec<Owned>, text: &str| {
        let marks: Vec<Owned> = all
            .iter()
            .filter_map(|(name, ..)| name.strip_suffix(".weight"))
            .map(|module| {
                tensor(format!("{module}.comfy_quant"), "U8", &[text.len() as u64], text.into())
            })
            .collect();
        [all, marks].concat()
    };
    let header = |all: &[Owned], format: &str, prefix: &str| {
        let layers: serde_json::Map<String, Value> = names
            .iter()
            .map(|name| {
                (
                    format!("{prefix}{}", name.strip_suffix(".weight").unwrap()),
                    json!({ "format": format }),
                )
            })
            .collect();
        let text = json!({ "format_version": "1.0", "layers": layers }).to_string();
        model(file_with(all, &json!({ "_quantization_metadata": text })))
    };
    let with = |mut all: Vec<Owned>, more: Owned| {
        all.push(more);
        all
    };
    let of = |all: &[Owned]| model(file(all));
    table.healthy("marker of two", &plain, &of(&with(fp8(old, &[], ""), marker("F8_E4M3", 2))));
    table.healthy(
        "marker of the other type",
        &plain,
        &of(&with(fp8(old, &[1], ""), marker("F8_E5M2", 0))),
    );
    table.healthy("no marker", &plain, &of(&fp8(old, &[], "")));
    let prefix = "model.diffusion_model.";
    let long = with(fp8(old, &[], prefix), marker("F8_E4M3", 0));
    table.healthy("both with a prefix", &reference(prefix), &of(&long));
    table.healthy("the quantized model has a prefix", &plain, &of(&long));
    let marked =
        with(fp8(old, &[], prefix), tensor(format!("{prefix}scaled_fp8"), "F8_E4M3", &[0], vec![]));
    table.healthy("the marker has the prefix", &reference(prefix), &of(&marked));
    let text = r#"{"format": "float8_e4m3fn", "full_precision_matrix_mult": true}"#;
    table.healthy("planes of JSON", &plain, &of(&plane(fp8(new, &[], ""), text)));
    table.healthy("planes of JSON with one value", &plain, &of(&plane(fp8(new, &[1], ""), text)));
    table.healthy("header", &plain, &header(&fp8(new, &[], ""), "float8_e4m3fn", ""));
    table.healthy(
        "header, prefix in both",
        &plain,
        &header(&fp8(new, &[], prefix), "float8_e4m3fn", prefix),
    );
    table.healthy(
        "header without the prefix",
        &plain,
        &header(&fp8(new, &[], prefix), "float8_e4m3fn", ""),
    );
    let int8 = |all: Vec<Owned>| {
        let own = matrices.iter().flat_map(|it| it.quantized(Scheme::Int8Rows));
        let rest = all.into_iter().filter(|it| it.0.ends_with("bias"));
        rest.chain(own).collect::<Vec<_>>()
    };
    table.healthy(
        "INT8 by rows",
        &plain,
        &of(&plane(int8(fp8(new, &[], "")), r#"{"format": "int8_tensorwise"}"#)),
    );
    // Damaged in one plane of the second matrix.
    let module = names[1].strip_suffix(".weight").unwrap();
    for (what, suffixes, suffix, bytes) in [
        ("scale NaN", old, ".scale_weight", Some(f32s(&[f32::NAN]))),
        ("scale zero", new, ".weight_scale", Some(f32s(&[0.0]))),
        ("scale too large", old, ".scale_weight", Some(f32s(&[0.01]))),
        ("scale lost", old, ".scale_weight", None),
        ("scale lost", new, ".weight_scale", None),
        ("input infinite", old, ".scale_input", Some(f32s(&[f32::INFINITY]))),
        ("input negative", new, ".input_scale", Some(f32s(&[-1.0]))),
        ("input NaN", new, ".input_scale", Some(f32s(&[f32::NAN]))),
    ] {
        let mut all = fp8(suffixes, &[], "");
        let at = all.iter().position(|it| it.0 == format!("{module}{suffix}")).unwrap();
        match bytes {
            Some(bytes) => all[at].3 = bytes,
            None => drop(all.remove(at)),
        }
        let marked =
            if suffixes == old { with(all, marker("F8_E4M3", 0)) } else { plane(all, text) };
        table.damaged(&format!("{what} {suffix}"), &plain, &of(&marked), &[module]);
    }
    // NVFP4 in the layout of the kernel.
    let kernel = |prefix: &str, wrong: bool| {
        let mut all = vec![norm.named(format!("{prefix}{}", norm.name)).plain()];
        for matrix in &matrices {
            let module = format!("{prefix}{}", matrix.name.strip_suffix(".weight").unwrap());
            let (codes, scales, whole) = nvfp4(&matrix.values);
            let (rows, groups) = (matrix.rows(), matrix.cols() / 16);
            let (down, across) = (rows.div_ceil(128), groups.div_ceil(4));
            let mut tiles = vec![0u8; down * across * 512];
            for (at, scale) in scales.iter().enumerate() {
                let (row, group) = (at / groups, at % groups);
                let place = row % 32 * 16 + row % 128 / 32 * 4 + group % 4;
                tiles[(row / 128 * across + group / 4) * 512 + place] = *scale;
            }
            if wrong && module.ends_with("net.2") {
                tiles[..16].fill(0x7E);
            }
            let bytes = codes.chunks(2).map(|two| two[0] << 4 | two[1]).collect();
            let shape = [down as u64 * 128, across as u64 * 4];
            all.push(tensor(
                format!("{module}.weight"),
                "U8",
                &[rows as u64, matrix.cols() as u64 / 2],
                bytes,
            ));
            all.push(tensor(format!("{module}.weight_scale"), "F8_E4M3", &shape, tiles));
            all.push(tensor(format!("{module}.weight_scale_2"), "F32", &[], f32s(&[whole])));
        }
        all
    };
    let nvfp4 = r#"{"format":"nvfp4"}"#;
    table.healthy("NVFP4 by planes", &plain, &of(&plane(kernel("", false), nvfp4)));
    table.healthy("NVFP4 by the header", &plain, &header(&kernel("", false), "nvfp4", ""));
    table.healthy("NVFP4 with a prefix", &plain, &header(&kernel(prefix, false), "nvfp4", prefix));
    table.damaged(
        "NVFP4, scales of four rows",
        &plain,
        &of(&plane(kernel("", true), nvfp4)),
        &[names[1]],
    );
}

/// Kind 06-one-scale-for-many-shards.
#[test]
fn tables_in_pieces() {
    let mut table = Table::of("06-one-scale-for-many-shards");
    // The pieces' names, their rows, the suffix of the scale, its type and shape, INT8.
    #[rustfmt::skip]
    let cases: [(&str, &[u64], &str, &str, &[u64], bool); 6] = [
        ("model.embed_tokens_per_layer.shards", &[40, 40], "weight_scale", "F32", &[1], false),
        ("model.layers.3.ple.embedding.parts", &[24, 24, 24, 24, 24], "weight_scale", "BF16", &[], false),
        ("language_model.ngram.chunks", &[32, 32, 16], "weight_scale", "F32", &[1, 1], false),
        ("model.oe_embed.shard", &[30, 30, 30], "weight_scale_inv", "F32", &[1], false),
        ("model.ngram_embedding", &[20, 20, 20, 20], "weight_scale", "F32", &[1], true),
        ("model.embed_tokens.shards", &[64; 11], "weight_scale", "F16", &[1], true),
    ];
    for (name, rows, suffix, dtype, shape, int8) in cases {
        let what = format!("{name} {suffix} {dtype}");
        let pieces: Vec<Matrix> = rows
            .iter()
            .enumerate()
            .map(|(at, rows)| Matrix::new(format!("{name}.{at}.weight"), &[*rows, 64], at as u64))
            .collect();
        let other = Matrix::new("model.layers.0.mlp.down_proj.weight", &[32, 128], 40);
        let reference =
            model(file(&pieces.iter().chain([&other]).map(Matrix::plain).collect::<Vec<_>>()));
        let table_name =
            if name.ends_with("ngram_embedding") { name } else { name.rsplit_once('.').unwrap().0 };
        let all: Vec<f32> = pieces.iter().flat_map(|it| it.values.clone()).collect();
        let scale = rounded(&[most(&all) / if int8 { 120.0 } else { 440.0 }])[0];
        let bytes = |scale: f32| match dtype {
            "BF16" => bf16s(&[scale]),
            "F16" => f16s(&[scale]),
            _ => f32s(&[scale]),
        };
        // F16 holds the scale with an error of its own.
        let scale = if dtype == "F16" { half::f16::from_f32(scale).to_f32() } else { scale };
        let make = |scales: &[f32]| {
            let mut all = other.quantized(Scheme::Fp8Blocks(64));
            for piece in &pieces {
                let code = |value: &f32| match value / scale {
                    value if int8 => value.round() as i8 as u8,
                    value => to_e4m3(value),
                };
                let codes = piece.values.iter().map(code).collect();
                all.push(tensor(
                    &piece.name,
                    if int8 { "I8" } else { "F8_E4M3" },
                    &piece.shape,
                    codes,
                ));
            }
            all.extend(scales.iter().map(|scale| {
                tensor(format!("{table_name}.{suffix}"), dtype, shape, bytes(*scale))
            }));
            all
        };
        let of = |all: &[Owned]| model(file(all));
        table.healthy(&what, &reference, &of(&make(&[scale])));
        for (why, scales) in
            [("lost", &[][..]), ("NaN", &[f32::NAN]), ("halved", &[scale / 2.0]), ("zero", &[0.0])]
        {
            table.damaged(&format!("{what}, {why}"), &reference, &of(&make(scales)), &[table_name]);
        }
        let mut all = make(&[scale]);
        all.remove(3);
        let lost = format!("{name}.1.weight");
        table.damaged(&format!("{what}, a piece lost"), &reference, &of(&all), &[&lost]);
        let mut all = make(&[scale]);
        let moved = all[2].3.clone();
        all[3].3 = moved;
        table.damaged(&format!("{what}, a piece twice"), &reference, &of(&all), &[&lost]);
    }
}

/// Stacked experts whose outputs are the last axis: turned, quantized, turned back.
fn turned_planes(matrix: &Matrix, scheme: Scheme, squeeze: bool) -> Vec<Owned> {
    let experts = matrix.shape[0];
    let turn = |plane: Owned| {
        let (name, dtype, shape, bytes) = plane;
        if shape.len() != 3 {
            return tensor(name, &dtype, &shape, bytes);
        }
        let width = bytes.len() / shape.iter().product::<u64>() as usize;
        let (rows, cols) = (shape[1] as usize, shape[2] as usize);
        let items: Vec<&[u8]> = bytes.chunks(width).collect();
        let bytes = turned(&items, rows, cols).concat();
        let shape = if squeeze && cols == 1 {
            vec![experts, shape[1]]
        } else {
            vec![experts, shape[2], shape[1]]
        };
        tensor(name, &dtype, &shape, bytes)
    };
    matrix.turned().quantized(scheme).into_iter().map(turn).collect()
}

/// Kind 07-nvfp4-bmm-experts-transposed.
#[test]
fn experts_that_are_turned() {
    let mut table = Table::of("07-nvfp4-bmm-experts-transposed");
    // The module, experts, inputs and outputs of gate and up, scheme, whether scales have two axes.
    #[rustfmt::skip]
    let cases: [(&str, u64, u64, u64, Scheme, bool); 8] = [
        ("model.layers.0.mlp.experts", 4, 64, 96, Scheme::Nvfp4, false),
        ("model.language_model.layers.3.mlp.experts", 3, 32, 128, Scheme::Nvfp4, false),
        ("model.layers.0.feed_forward.experts", 4, 64, 64, Scheme::Nvfp4, false),
        ("model.layers.0.feed_forward.experts", 5, 64, 160, Scheme::Fp8Rows, true),
        ("model.layers.7.mlp.experts", 2, 96, 64, Scheme::Fp8Rows, false),
        ("model.layers.0.block_sparse_moe.experts", 3, 64, 96, Scheme::Int8Rows, true),
        ("model.layers.0.mlp.experts", 3, 64, 96, Scheme::Int8Rows, false),
        ("model.layers.0.mlp.experts", 4, 64, 96, Scheme::Fp8, false),
    ];
    for (module, experts, inputs, outputs, scheme, squeeze) in cases {
        let what = format!("{module} {experts} x {inputs} x {outputs} {scheme:?} {squeeze}");
        let gate = Matrix::new(format!("{module}.gate_up_proj"), &[experts, inputs, outputs], 1);
        let down = Matrix::new(format!("{module}.down_proj"), &[experts, outputs / 2, inputs], 2);
        let bias = Matrix::new(format!("{module}.down_proj_bias"), &[experts, inputs], 3);
        let router = Matrix::new(
            format!("{}.weight", module.replace("experts", "router")),
            &[experts, inputs],
            4,
        );
        let all = [&gate, &down, &bias, &router];
        let reference = model(file(&all.map(Matrix::plain)));
        let make = || {
            let mut own = turned_planes(&gate, scheme, squeeze);
            own.extend(turned_planes(&down, scheme, squeeze));
            own.extend([bias.plain(), router.plain()]);
            own
        };
        let of = |all: &[Owned]| model(file(all));
        table.healthy(&what, &reference, &of(&make()));
        let mut exchanged = make();
        let at = exchanged.iter().position(|it| it.0 == down.name).unwrap();
        let one = exchanged[at].3.len() / experts as usize;
        exchanged[at].3.rotate_left(one);
        table.damaged(
            &format!("{what}, experts moved on"),
            &reference,
            &of(&exchanged),
            &[&down.name],
        );
        let mut scaled = make();
        let at =
            scaled.iter().position(|it| it.0 == format!("{}_weight_scale", gate.name)).unwrap();
        scaled[at].3.reverse();
        let width = if scaled[at].1 == "F32" { 4 } else { 1 };
        scaled[at].3.chunks_mut(width).for_each(<[u8]>::reverse);
        if !matches!(scheme, Scheme::Fp8) {
            table.damaged(
                &format!("{what}, scales reversed"),
                &reference,
                &of(&scaled),
                &[&gate.name],
            );
        }
    }
}
