/*! Kinds 09, 11 to 17 and x1: names, buffers, ties, axes and metadata, and what is said of them. */

use serde_json::json;

use crate::forge::gguf::{Gguf, array, f32s as stored_f32s, id, string};
use crate::made::*;
use crate::program::{Suite, f32s};
use crate::table::{Files, Table, files, model};

fn of(all: &[Owned]) -> Files {
    model(file(all))
}

fn plain(matrices: &[Matrix]) -> Vec<Owned> {
    matrices.iter().map(Matrix::plain).collect()
}

/// Two layers below a prefix, and a norm of each.
fn layers(prefix: &str) -> Vec<Matrix> {
    let matrices = (0..6u64).map(|at| {
        let (layer, part) = (at / 3, at % 3);
        let (name, shape): (_, &[u64]) = match part {
            0 => ("self_attn.q_proj", &[48, 64]),
            1 => ("mlp.down_proj", &[64, 96]),
            _ => ("input_layernorm", &[64]),
        };
        Matrix::new(format!("{prefix}layers.{layer}.{name}.weight"), shape, at)
    });
    matrices.collect()
}

/// Matrices in a scheme, the rest as it is.
fn quantized(matrices: &[Matrix], scheme: Scheme) -> Vec<Owned> {
    let one =
        |it: &Matrix| if it.shape.len() == 2 { it.quantized(scheme) } else { vec![it.plain()] };
    matrices.iter().flat_map(one).collect()
}

/// Kind 09-mixed-precision.
#[test]
fn several_schemes() {
    let mut table = Table::of("09-mixed-precision");
    let matrices = layers("model.");
    let reference = of(&plain(&matrices));
    for schemes in [
        [Scheme::Fp8, Scheme::Nvfp4, Scheme::Int8Rows, Scheme::Packed(4, 32)],
        [Scheme::Gptq(32), Scheme::Fp8Rows, Scheme::Packed(8, 32), Scheme::Fp8Blocks(32)],
        [Scheme::Awq(32), Scheme::Int8Rows, Scheme::Awq(32), Scheme::Fp8],
        [Scheme::Mxfp4, Scheme::Fp8Rows, Scheme::Fp8Rows, Scheme::Nvfp4],
    ] {
        let mut at = schemes.iter();
        let make = |matrix: &Matrix| match matrix.shape.len() {
            2 => matrix.quantized(*at.next().unwrap()),
            _ => vec![matrix.plain()],
        };
        let all: Vec<Owned> = matrices.iter().flat_map(make).collect();
        table.healthy(&format!("{schemes:?}"), &reference, &of(&all));
        let last = matrices[4].name.strip_suffix(".weight").unwrap();
        let mut bad = all.clone();
        let codes = bad.iter_mut().find(|it| it.0.starts_with(last)).unwrap();
        codes.3.reverse();
        table.damaged(&format!("{schemes:?}, codes reversed"), &reference, &of(&bad), &[last]);
    }
}

/// Kind 12-prefix-renamed.
#[test]
fn prefixes() {
    let mut table = Table::of("12-prefix-renamed");
    for (one, other, scheme) in [
        ("model.", "model.language_model.", Scheme::Fp8Rows),
        ("language_model.model.", "model.", Scheme::Int8Rows),
        ("model.text_model.", "model.language_model.", Scheme::Nvfp4),
        ("", "transformer.", Scheme::Packed(4, 32)),
        ("thinker.model.", "model.", Scheme::Gptq(32)),
        ("model.decoder.", "decoder.", Scheme::Fp8),
    ] {
        let what = format!("{one} and {other}");
        let (reference, named) = (layers(one), layers(other));
        let own = quantized(&named, scheme);
        table.noted(&what, &of(&plain(&reference)), &of(&own), &["prefix"]);
        let lost = "layers.1.mlp.down_proj";
        let mut less = own.clone();
        less.retain(|it| !it.0.contains(lost));
        table.damaged(&format!("{what}, one lost"), &of(&plain(&reference)), &of(&less), &[lost]);
        let mut bad = own;
        bad.iter_mut().find(|it| it.0.contains(lost)).unwrap().3.reverse();
        table.damaged(&format!("{what}, reversed"), &of(&plain(&reference)), &of(&bad), &[lost]);
    }
}

/// Kind 13-buffers-on-one-side.
#[test]
fn buffers() {
    let mut table = Table::of("13-buffers-on-one-side");
    let matrices = layers("model.");
    let frequencies =
        |base: f32| -> Vec<f32> { (0..16).map(|i| base.powf(-(i as f32) / 16.0)).collect() };
    let at = |name: &str, dtype: &str, shape: &[u64], bytes: Vec<u8>| {
        tensor(format!("model.{name}"), dtype, shape, bytes)
    };
    for (buffer, other) in [
        (at("rotary_emb.inv_freq", "F32", &[16], f32s(&frequencies(1e4))), f32s(&frequencies(5e5))),
        (
            at(
                "layers.0.self_attn.rotary_emb.inv_freq",
                "BF16",
                &[16],
                crate::program::bf16s(&frequencies(1e4)),
            ),
            crate::program::bf16s(&frequencies(1e6)),
        ),
        (at("layers.1.attn.masked_bias", "F32", &[1], f32s(&[-1e9])), f32s(&[3.0])),
        (
            at(
                "embeddings.position_ids",
                "I64",
                &[1, 4],
                (0..4i64).flat_map(i64::to_le_bytes).collect(),
            ),
            (1..5i64).flat_map(i64::to_le_bytes).collect(),
        ),
    ] {
        let (without, own) = (plain(&matrices), quantized(&matrices, Scheme::Fp8Rows));
        let with = |all: &[Owned], one: &Owned| of(&[all, std::slice::from_ref(one)].concat());
        let name = buffer.0.clone();
        table.noted(
            &format!("{name} in the reference"),
            &with(&without, &buffer),
            &of(&own),
            &[&name, "buffer"],
        );
        table.noted(
            &format!("{name} in the other"),
            &of(&without),
            &with(&own, &buffer),
            &[&name, "buffer"],
        );
        table.healthy(&format!("{name} in both"), &with(&without, &buffer), &with(&own, &buffer));
        let changed = tensor(&name, &buffer.1, &buffer.2, other);
        table.damaged(
            &format!("{name} differs"),
            &with(&without, &buffer),
            &with(&own, &changed),
            &[&name],
        );
        let lost = &matrices[0].name;
        let less: Vec<Owned> =
            own.iter().filter(|it| !it.0.contains("layers.0.self_attn.q_proj")).cloned().collect();
        table.damaged(
            &format!("{name} and a matrix"),
            &with(&without, &buffer),
            &of(&less),
            &[lost],
        );
    }
}

/// Kind 14-tied-lm-head.
#[test]
fn ties() {
    let mut table = Table::of("14-tied-lm-head");
    for (embedding, head, prefix, scheme) in [
        ("model.embed_tokens.weight", "lm_head.weight", "model.", Scheme::Int8Rows),
        (
            "model.language_model.embed_tokens.weight",
            "lm_head.weight",
            "model.language_model.",
            Scheme::Fp8Rows,
        ),
        ("transformer.wte.weight", "lm_head.weight", "transformer.", Scheme::Fp8),
        (
            "language_model.model.embed_tokens.weight",
            "language_model.lm_head.weight",
            "language_model.model.",
            Scheme::Packed(8, 32),
        ),
    ] {
        let own = Matrix::new(embedding, &[80, 64], 31);
        let matrices = layers(prefix);
        let config = |tied: bool| {
            (
                "config.json".to_owned(),
                json!({ "tie_word_embeddings": tied }).to_string().into_bytes(),
            )
        };
        let make = |more: &[Owned], quantize: bool, tied: bool| {
            let all = if quantize { quantized(&matrices, scheme) } else { plain(&matrices) };
            let mut made = of(&[&all[..], &[own.plain()], more].concat());
            made.push(config(tied));
            made
        };
        let same = own.named(head);
        let wrong = Matrix::new(head, &[80, 64], 77);
        let what = format!("{embedding} and {head}");
        table.noted(
            &format!("{what}, in the other"),
            &make(&[], false, true),
            &make(&[same.plain()], true, true),
            &[head, "tie"],
        );
        table.noted(
            &format!("{what}, quantized"),
            &make(&[], false, true),
            &make(&same.quantized(scheme), true, true),
            &[head, "tie"],
        );
        table.noted(
            &format!("{what}, in the reference"),
            &make(&[same.plain()], false, true),
            &make(&[], true, true),
            &[head, "tie"],
        );
        table.damaged(
            &format!("{what}, another one"),
            &make(&[], false, true),
            &make(&[wrong.plain()], true, true),
            &[head, "tie"],
        );
        table.damaged(
            &format!("{what}, not tied"),
            &make(&[wrong.plain()], false, false),
            &make(&[], true, false),
            &[head],
        );
    }
}

/// Kind 15-mlx-per-module-overrides.
#[test]
fn widths_of_mlx() {
    let mut table = Table::of("15-mlx-per-module-overrides");
    for (tower, (bits, size), (own_bits, own_size), scale) in [
        ("vision_tower.blocks", (4, 64), (8, 32), 0),
        ("audio_tower.layers", (3, 64), (6, 32), 0),
        ("vision_model.encoder.layers", (4, 64), (8, 64), 1),
        ("multi_modal_projector", (2, 64), (4, 32), 2),
        ("model.layers.9.mlp", (5, 64), (8, 64), 0),
    ] {
        let what = format!("{tower} of {own_bits} bits by {own_size}, the rest {bits} by {size}");
        let text: Vec<Matrix> = (0..2)
            .map(|at| Matrix::new(format!("model.layers.{at}.mlp.up_proj.weight"), &[32, 128], at))
            .collect();
        let own: Vec<Matrix> = (0..2)
            .map(|at| Matrix::new(format!("{tower}.{at}.fc1.weight"), &[48, 64 << scale], at + 8))
            .collect();
        let reference = of(&plain(&[&text[..], &own].concat()));
        let all = [
            quantized(&text, Scheme::Mlx(bits, size)),
            quantized(&own, Scheme::Mlx(own_bits, own_size)),
        ]
        .concat();
        let configuration = |prefix: &str| {
            let mut settings = json!({ "bits": bits, "group_size": size });
            for at in 0..2 {
                settings[format!("{prefix}{tower}.{at}.fc1")] =
                    json!({ "bits": own_bits, "group_size": own_size });
            }
            ("config.json".to_owned(), json!({ "quantization": settings }).to_string().into_bytes())
        };
        let make = |all: &[Owned], prefix: Option<&str>| {
            let own = ("model.safetensors".to_owned(), file_with(all, &json!({ "format": "mlx" })));
            let more = prefix.map(configuration);
            [own].into_iter().chain(more).collect::<Files>()
        };
        table.healthy(&what, &reference, &make(&all, Some("")));
        // Where the planes leave it open, the width is said to be a guess, or to contradict the configuration.
        let elsewhere = make(&all, Some("language_model."));
        let what_else = format!("{what}, another prefix");
        let open = if own_size == size { 5 } else { 0 };
        table.check(&what_else, &reference, &elsewhere, &[open], &["bits"], &[]);
        table.healthy(&format!("{what}, no configuration"), &reference, &make(&all, None));
        let mut bad = all.clone();
        let name = format!("{tower}.1.fc1");
        bad.iter_mut().find(|it| it.0 == format!("{name}.scales")).unwrap().3.reverse();
        table.damaged(&format!("{what}, scales"), &reference, &make(&bad, Some("")), &[&name]);
    }
}

/// Kind 16-odd-names.
#[test]
fn odd_names() {
    let mut table = Table::of("16-odd-names");
    for names in [
        [
            "params/decoder/layer_0/kernel:0",
            "weights with spaces",
            "a\tb.weight",
            "\u{202e}txet.weight",
        ],
        ["\u{1b}[2Jx.weight", "äöü.重み.weight", "'\"`$(x).weight", "\u{2067}x\u{2069}.weight"],
        ["..", "a/../../b", "x\u{0}y.weight", "\u{200f}z.weight"],
        ["[section].weight", "*?.weight", "\u{7f}.weight", "\u{61c}\u{9b}31m.weight"],
    ] {
        let matrices: Vec<Matrix> = names
            .iter()
            .enumerate()
            .map(|(at, name)| Matrix::new(*name, &[32, 64], at as u64))
            .collect();
        let suite = Suite::new();
        let stored = |matrices: &[Matrix]| {
            file(&matrices.iter().map(|it| it.stored("F16")).collect::<Vec<_>>())
        };
        suite.write("r.safetensors", file(&plain(&matrices)));
        suite.write("q.safetensors", stored(&matrices));
        let mut bad = matrices.clone();
        bad[2].values.reverse();
        suite.write("b.safetensors", stored(&bad));
        let never = [
            "\u{202e}",
            "\u{1b}[2J",
            "\u{2067}",
            "\u{2069}",
            "\u{200f}",
            "\u{61c}",
            "\u{9b}",
            "\u{7f}",
            "\u{0}",
            "internal error",
        ];
        let (r, q) = ("r.safetensors", "q.safetensors");
        for (arguments, codes) in [
            (&["check", r, q][..], &[0, 5][..]),
            (&["diff", r, q], &[0, 5]),
            (&["inspect", q], &[0]),
            (&["init", r, q, "--name", "s", "--out", "specs/s.toml"], &[0]),
            (&["run", "--no-baseline"], &[0]),
            (&["check", r, "b.safetensors"], &[5]),
        ] {
            table.expect(
                &format!("{names:?} {arguments:?}"),
                &suite.qualm(arguments),
                codes,
                &[],
                &never,
            );
        }
        table.count(1, 1);
    }
}

/// Kind 17-mlx-conv-channel-last.
#[test]
fn channels() {
    let mut table = Table::of("17-mlx-conv-channel-last");
    // The channels of a convolution go last.
    let last = |matrix: &Matrix| {
        let (out, channels) = (matrix.shape[0], matrix.shape[1]);
        let inner = matrix.values.len() / (out * channels) as usize;
        let shape = [&[out], &matrix.shape[2..], &[channels]].concat();
        Matrix { values: turned(&matrix.values, channels as usize, inner), shape, ..matrix.clone() }
    };
    for (shapes, scheme) in [
        ([&[16u64, 3, 14, 14][..], &[32, 16, 3], &[8, 3, 3, 3]], Scheme::Mlx(4, 32)),
        ([&[24, 4, 2, 8, 8], &[48, 1, 7], &[16, 5, 5, 5]], Scheme::Mlx(8, 32)),
        ([&[40, 8, 3, 3], &[16, 3, 3], &[12, 6, 1, 1]], Scheme::Mlx(4, 32)),
        ([&[32, 2, 16, 16], &[64, 32, 5], &[7, 7, 7, 7]], Scheme::Mlx(6, 32)),
    ] {
        let names = [
            "vision_tower.patch_embed.proj.weight",
            "audio_tower.conv1.weight",
            "audio_tower.conv2.weight",
        ];
        let convolutions: Vec<Matrix> = names
            .iter()
            .zip(shapes)
            .zip(0..)
            .map(|((name, shape), seed)| Matrix::new(*name, shape, seed))
            .collect();
        let matrices = layers("model.");
        let reference = of(&plain(&[&convolutions[..], &matrices].concat()));
        let make = |convolutions: &[Matrix]| {
            let all = [plain(convolutions), quantized(&matrices, scheme)].concat();
            model(file_with(&all, &json!({ "format": "mlx" })))
        };
        let moved: Vec<Matrix> = convolutions.iter().map(last).collect();
        table.healthy(&format!("{shapes:?}"), &reference, &make(&moved));
        for at in 0..3 {
            let mut bad = moved.clone();
            let one = bad[at].values.len() / bad[at].shape[0] as usize;
            bad[at].values[..one * 2].rotate_left(one);
            table.damaged(
                &format!("{shapes:?}, filters of {at} exchanged"),
                &reference,
                &make(&bad),
                &[names[at]],
            );
        }
    }
}

/// Kind 11-gguf-odd-metadata.
#[test]
fn odd_metadata() {
    let mut table = Table::of("11-gguf-odd-metadata");
    let own = Matrix::new("blk.0.ffn_up.weight", &[32, 64], 3);
    let reference = files([(
        "r.gguf",
        Gguf::new()
            .text("general.architecture", "llama")
            .f32(&own.name, &own.shape, &own.values)
            .bytes(),
    )]);
    let with = |file: Gguf| {
        files([(
            "q.gguf",
            file.tensor(&own.name, &own.shape, id::TENSOR_F16, f16s(&own.values)).bytes(),
        )])
    };
    let head = || Gguf::new().text("general.architecture", "llama");
    let bools = array(id::BOOL, 3, &[0, 1, 1]);
    let texts = array(id::STRING, 3, &[string("a"), string([0xff, 0, 0xfe]), string("")].concat());
    let nested =
        array(id::ARRAY, 2, &[array(id::U16, 2, &[1, 0, 2, 0]), array(id::F64, 0, &[])].concat());
    let numbers = array(id::F32, 3, &stored_f32s(&[f32::NAN, f32::INFINITY, -0.0]));
    for (what, ty, value) in [
        ("booleans", id::ARRAY, bools),
        ("invalid UTF-8 and NUL", id::ARRAY, texts),
        ("nested", id::ARRAY, nested),
        ("NaN and infinities", id::ARRAY, numbers),
        ("an empty string", id::STRING, string("")),
        ("the least integer", id::I64, i64::MIN.to_le_bytes().to_vec()),
        ("the greatest integer", id::U64, u64::MAX.to_le_bytes().to_vec()),
        ("a small integer", id::I8, vec![0x80]),
        ("a NaN", id::F64, f64::NAN.to_le_bytes().to_vec()),
    ] {
        table.healthy(what, &reference, &with(head().entry("Some.Odd-key/x", ty, &value)));
    }
    for alignment in [8u32, 64, 4096, 65536] {
        let mut file = head().u32("general.alignment", alignment);
        file.alignment = alignment as usize;
        table.healthy(&format!("alignment {alignment}"), &reference, &with(file));
    }
    for (what, file, says) in [
        ("a key twice", head().u32("a.b", 1).u32("a.b", 1), "a.b"),
        ("a type that does not exist", head().entry("x.half", 13, &[0; 2]), "x.half"),
        ("an array of such", head().entry("x.list", id::ARRAY, &array(77, 1, &[0; 8])), "x.list"),
        ("a boolean of 2", head().entry("x.flag", id::BOOL, &[2]), "x.flag"),
    ] {
        table.check(what, &reference, &with(file), &[6], &[says], &[]);
    }
    let mut bad = own.clone();
    bad.values.reverse();
    let odd = head().entry("k", id::STRING, &string([0xff])).tensor(
        &own.name,
        &own.shape,
        id::TENSOR_F16,
        f16s(&bad.values),
    );
    table.damaged("another matrix", &reference, &files([("q.gguf", odd.bytes())]), &[&own.name]);
}

/// Kind x1-diff-says-what-is-below.
#[test]
fn below_the_threshold() {
    let mut table = Table::of("x1-diff-says-what-is-below");
    for (scheme, other) in [
        (Scheme::Fp8Rows, "one reversed"),
        (Scheme::Nvfp4, "one of another model"),
        (Scheme::Gptq(32), "one with other signs"),
        (Scheme::Mlx(8, 32), "one reversed"),
    ] {
        let matrices = layers("model.");
        let mut wrong = matrices.clone();
        match other {
            "one reversed" => wrong[3].values.reverse(),
            "one of another model" => wrong[3] = Matrix::new(&wrong[3].name, &wrong[3].shape, 99),
            _ => wrong[3].values.iter_mut().for_each(|it| *it = -*it),
        }
        let suite = Suite::new();
        suite.write("r.safetensors", file(&plain(&matrices)));
        suite.write("good.safetensors", file(&quantized(&matrices, scheme)));
        suite.write("bad.safetensors", file(&quantized(&wrong, scheme)));
        for (name, gate, code) in
            [("good", true, 0), ("good", false, 0), ("bad", true, 5), ("bad", false, 0)]
        {
            let path = format!("{name}.safetensors");
            let mut arguments = vec!["diff", "r.safetensors", &path, "--json"];
            arguments.extend((!gate).then_some("--no-threshold"));
            let ran = suite.qualm(&arguments);
            let below = format!("\"any_below_threshold\": {}", name == "bad");
            table.expect(&format!("{scheme:?} {arguments:?}"), &ran, &[code], &[&below], &[]);
        }
        table.count(1, 1);
    }
}
