/*! Kinds 01, 02, 08, 26: which of several files is the model. */

use crate::made::*;
use crate::table::{Files, Table, files, model};

/// Two layers, whose names begin so.
pub fn layers(above: &str) -> Vec<Matrix> {
    let parts = ["self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"];
    let name = |at: usize| format!("{above}.{}.{}.weight", at / 4, parts[at % 4]);
    (0..8).map(|at| Matrix::new(name(at), &[48, 64], at as u64)).collect()
}

pub fn plain(matrices: &[Matrix]) -> Vec<Owned> {
    matrices.iter().map(Matrix::plain).collect()
}

pub fn quantized(matrices: &[Matrix], scheme: Scheme) -> Vec<Owned> {
    matrices.iter().flat_map(|it| it.quantized(scheme)).collect()
}

/// Values of another model under the names of this one.
pub fn foreign(matrices: &[Matrix]) -> Vec<Matrix> {
    let other = |(at, it): (usize, &Matrix)| Matrix::new(&it.name, &it.shape, 500 + at as u64);
    matrices.iter().enumerate().map(other).collect()
}

/// An index: which file holds which of the tensors.
pub fn index(parts: &[(&str, &[Owned])]) -> Vec<u8> {
    let names = parts.iter().flat_map(|(file, tensors)| {
        tensors.iter().map(move |(name, ..)| (name.clone(), (*file).into()))
    });
    let map: serde_json::Map<String, serde_json::Value> = names.collect();
    serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map })
        .to_string()
        .into_bytes()
}

/// Kind 01-index-reused-shards.
#[test]
fn shards_that_hold_more_than_their_own() {
    let mut table = Table::of("01-index-reused-shards");
    for (above, scheme, other, first, second) in [
        (
            "model.layers",
            Scheme::Awq(32),
            Scheme::Fp8,
            "awq-1.safetensors",
            "base-00007.safetensors",
        ),
        (
            "model.layers",
            Scheme::Nvfp4,
            Scheme::Fp8Blocks(32),
            "nvfp4.safetensors",
            "model-00002-of-00009.safetensors",
        ),
        (
            "language_model.layers",
            Scheme::Int8Rows,
            Scheme::Gptq(32),
            "a.safetensors",
            "official.safetensors",
        ),
        ("model.layers", Scheme::Gptq(64), Scheme::Int8Rows, "z.safetensors", "a.safetensors"),
        (
            "model.layers",
            Scheme::Fp8,
            Scheme::Fp8,
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ),
    ] {
        let matrices = layers(above);
        let embedding = Matrix::new("model.embed_tokens.weight", &[40, 64], 60);
        let all: Vec<Matrix> = matrices.iter().chain([&embedding]).cloned().collect();
        let reference = model(file(&plain(&all)));
        let own = quantized(&matrices, scheme);
        let kept = [embedding.plain()];
        let stale = quantized(&foreign(&matrices), other);
        let what = format!("{scheme:?} over {other:?} in {second}");
        let make = |own: &[Owned], more: &[Owned]| {
            files([
                (first, file(own)),
                (second, file(&[&kept[..], more].concat())),
                ("model.safetensors.index.json", index(&[(first, own), (second, &kept)])),
            ])
        };
        table.noted(&what, &reference, &make(&own, &stale), &[second]);
        // The same bytes as those that count.
        table.noted(&format!("{what}, copies"), &reference, &make(&own, &own), &[second]);
        let bad = quantized(&foreign(&matrices), scheme);
        let sound = quantized(&matrices, other);
        table.damaged(
            &format!("{what}, the listed are another model's"),
            &reference,
            &make(&bad, &sound),
            &[&matrices[0].name, second],
        );
        let mut lost = own.clone();
        lost.retain(|it| !it.0.starts_with(&format!("{above}.1.mlp.down_proj")));
        let name = matrices[7].name.strip_suffix(".weight").unwrap();
        table.damaged(
            &format!("{what}, one is not listed"),
            &reference,
            &make(&lost, &own),
            &[name],
        );
    }
}

/// Kind 02-stale-index-beside-single-file.
#[test]
fn two_saves_in_one_directory() {
    let mut table = Table::of("02-stale-index-beside-single-file");
    let matrices = layers("model.layers");
    let reference = model(file(&plain(&matrices)));
    for (name, count, scheme, other) in [
        ("model", 2, Scheme::Fp8Rows, Scheme::Nvfp4),
        ("model", 3, Scheme::Gptq(32), Scheme::Int8Rows),
        ("diffusion_pytorch_model", 2, Scheme::Int8Rows, Scheme::Fp8),
        ("diffusion_pytorch_model", 4, Scheme::Fp8, Scheme::Fp8),
    ] {
        let what = format!("{name}, {count} shards, {scheme:?} and {other:?}");
        let single = format!("{name}.safetensors");
        let listed = format!("{name}.safetensors.index.json");
        let shard = |at: usize| format!("{name}-0000{}-of-0000{count}.safetensors", at + 1);
        let shards = |matrices: &[Matrix]| -> Files {
            let part = matrices.len().div_ceil(count);
            let parts: Vec<Vec<Owned>> =
                matrices.chunks(part).map(|it| quantized(it, other)).collect();
            let names: Vec<String> = (0..count).map(shard).collect();
            let listing: Vec<(&str, &[Owned])> = names
                .iter()
                .zip(&parts)
                .map(|(name, part)| (name.as_str(), part.as_slice()))
                .collect();
            let own = listing.iter().map(|(name, part)| ((*name).to_owned(), file(part)));
            own.chain([(listed.clone(), index(&listing))]).collect()
        };
        let whole =
            |matrices: &[Matrix]| vec![(single.clone(), file(&quantized(matrices, scheme)))];
        let (sound, bad) = (&matrices, &foreign(&matrices));
        let join = |a: Files, b: Files| [a, b].concat();
        let both = [single.as_str(), listed.as_str()];
        table.noted(
            &format!("{what}, both sound"),
            &reference,
            &join(whole(sound), shards(sound)),
            &both,
        );
        table.noted(
            &format!("{what}, shards of another model"),
            &reference,
            &join(whole(sound), shards(bad)),
            &both,
        );
        table.damaged(
            &format!("{what}, the file of another model"),
            &reference,
            &join(whole(bad), shards(sound)),
            &both,
        );
        let only_index = vec![shards(sound).pop().unwrap()];
        table.noted(
            &format!("{what}, an index alone"),
            &reference,
            &join(whole(sound), only_index),
            &both,
        );
        let mut no_index = shards(sound);
        no_index.pop();
        table.noted(&format!("{what}, shards alone"), &reference, &no_index, &["index"]);
        let mut gap = no_index.clone();
        gap.remove(1);
        table.check(&format!("{what}, a gap"), &reference, &gap, &[6], &[&shard(1)], &[]);
        table.noted(
            &format!("{what}, a file and shards without an index"),
            &reference,
            &join(whole(sound), no_index),
            &[&single, &shard(0)],
        );
    }
}

/// Kind 08-block-dropped.
#[test]
fn blocks_that_are_gone() {
    let mut table = Table::of("08-block-dropped");
    for (block, parts, beside, scheme) in [
        (
            "mtp",
            &["fc.weight", "layers.0.self_attn.q_proj.weight", "norm.weight"][..],
            "mtp.safetensors",
            Scheme::Fp8Rows,
        ),
        (
            "model.layers.61",
            &["eh_proj.weight", "shared_head.head.weight", "mlp.down_proj.weight"],
            "nextn.safetensors",
            Scheme::Fp8Blocks(32),
        ),
        (
            "visual",
            &["blocks.0.attn.qkv.weight", "patch_embed.proj.weight", "merger.mlp.0.weight"],
            "visual.safetensors",
            Scheme::Awq(32),
        ),
        (
            "audio_tower",
            &["layers.0.fc1.weight", "conv1.weight", "proj.weight"],
            "audio_tower.safetensors",
            Scheme::Nvfp4,
        ),
        (
            "model.vision_tower",
            &["encoder.layers.0.mlp.fc1.weight", "patch_embed.weight"],
            "vision_tower.safetensors",
            Scheme::Int8Rows,
        ),
    ] {
        let matrices = layers("model.layers");
        let extra: Vec<Matrix> = parts
            .iter()
            .enumerate()
            .map(|(at, part)| Matrix::new(format!("{block}.{part}"), &[32, 64], 70 + at as u64))
            .collect();
        let reference = model(file(&[plain(&matrices), plain(&extra)].concat()));
        let own = quantized(&matrices, scheme);
        let whole = [own.clone(), plain(&extra)].concat();
        let names: Vec<&str> = extra.iter().map(|it| it.name.as_str()).collect();
        table.healthy(&format!("{block}, kept"), &reference, &model(file(&whole)));
        table.damaged(&format!("{block}, dropped"), &reference, &model(file(&own)), &names);
        let aside = files([("model.safetensors", file(&own)), (beside, file(&plain(&extra)))]);
        table.check(
            &format!("{block}, in {beside}"),
            &reference,
            &aside,
            &[0, 5],
            &[beside],
            &["nothing was quantized"],
        );
        let (one, two) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
        let kept = plain(&extra);
        let listed = index(&[(one, &own), (two, &kept)]);
        let sharded = files([
            (one, file(&own)),
            (two, file(&kept)),
            ("model.safetensors.index.json", listed.clone()),
        ]);
        table.healthy(&format!("{block}, in a shard"), &reference, &sharded);
        let less = files([
            (one, file(&own)),
            (two, file(&kept[1..])),
            ("model.safetensors.index.json", listed),
        ]);
        table.check(
            &format!("{block}, listed and not there"),
            &reference,
            &less,
            &[5, 6],
            &names[..1],
            &[],
        );
    }
}

/// Kind 26-files-beside-the-model.
#[test]
fn files_beside_the_model() {
    let mut table = Table::of("26-files-beside-the-model");
    let matrices = layers("model.layers");
    let reference = model(file(&plain(&matrices)));
    let own = file(&quantized(&matrices, Scheme::Int8Rows));
    let bad = file(&quantized(&foreign(&matrices), Scheme::Int8Rows));
    let adapter =
        file(&[Matrix::new("base_model.model.layers.0.lora_A.weight", &[4, 64], 1).plain()]);
    // The model, what lies beside it.
    #[rustfmt::skip]
    let cases: [(&str, &str, Vec<u8>); 10] = [
        ("model.safetensors", "adapter_model.safetensors", adapter.clone()),
        ("model.safetensors", "optimizer.safetensors", adapter.clone()),
        ("model.safetensors", "consolidated.safetensors", bad.clone()),
        ("model.safetensors", "pytorch_model.bin", vec![0x80, 2]),
        ("model.safetensors", "flax_model.msgpack", vec![1]),
        ("model.safetensors", "original/consolidated.00.pth", vec![1]),
        ("model.safetensors", "onnx/model.onnx", vec![1]),
        ("model.safetensors", "model-Q8_0.gguf", vec![1]),
        ("diffusion_pytorch_model.safetensors", "pytorch_lora_weights.safetensors", adapter.clone()),
        ("llama-int8.safetensors", "optimizer.safetensors", adapter.clone()),
    ];
    for (name, beside, bytes) in cases {
        let what = format!("{name} beside {beside}");
        table.healthy(&what, &reference, &files([(name, own.clone()), (beside, bytes.clone())]));
        table.healthy(
            &format!("{what}, in the reference"),
            &files([(name, file(&plain(&matrices))), (beside, bytes.clone())]),
            &model(own.clone()),
        );
        table.damaged(
            &format!("{what}, another model"),
            &reference,
            &files([(name, bad.clone()), (beside, bytes)]),
            &[&matrices[1].name],
        );
    }
    let name = "model.layers.0.mlp.down_proj.weight";
    table.check(
        "an adapter alone",
        &reference,
        &files([("adapter_model.safetensors", adapter)]),
        &[5, 6],
        &[name],
        &[],
    );
}
