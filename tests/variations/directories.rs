/*! Kinds 10 and 18: directories of GGUF files, and caches of links. */

use std::fs;

use crate::files_of::{foreign, index, layers, plain, quantized};
use crate::forge::gguf::{Gguf, f32s as stored_f32s, id};
use crate::made::*;
use crate::program::Suite;
use crate::table::{Files, Table, files};

/// Blocks of Q8_0.
fn q8_0(values: &[f32]) -> Vec<u8> {
    let block = |block: &[f32]| {
        let scale = most(block) / 127.0;
        let codes = block.iter().map(|value| (value / scale).round() as i8 as u8).collect();
        [f16s(&[scale]), codes].concat()
    };
    values.chunks(32).flat_map(block).collect()
}

/// Kind 10-gguf-directories-and-splits.
#[test]
fn directories_of_gguf() {
    let mut table = Table::of("10-gguf-directories-and-splits");
    let matrices: Vec<Matrix> = layers("blk")
        .iter()
        .map(|it| {
            it.named(
                it.name
                    .replace("self_attn.q_proj", "attn_q")
                    .replace("self_attn.o_proj", "attn_output")
                    .replace("mlp.up_proj", "ffn_up")
                    .replace("mlp.down_proj", "ffn_down"),
            )
        })
        .collect();
    let head = |architecture: &str| Gguf::new().text("general.architecture", architecture);
    let add = |file: Gguf, it: &Matrix, quantize: bool| {
        if quantize {
            file.tensor(&it.name, &it.shape, id::TENSOR_Q8_0, q8_0(&it.values))
        } else {
            file.tensor(&it.name, &it.shape, id::TENSOR_F32, stored_f32s(&it.values))
        }
    };
    let all = |architecture: &str, quantize: bool| {
        matrices.iter().fold(head(architecture), |file, it| add(file, it, quantize)).bytes()
    };
    let other = |file: Gguf| file.f32("x.weight", &[4], &[1.0, 2.0, 3.0, 4.0]).bytes();
    // What lies beside the model, under which name, and what its header says.
    #[rustfmt::skip]
    let beside: [(&str, &str, &str, Gguf); 8] = [
        ("qwen2vl", "a projector under the model's name", "qwen2-vl-vision.gguf", head("clip").text("general.type", "mmproj")),
        ("llama", "a projector without a type", "a-first.gguf", head("clip")),
        ("gemma3", "an importance matrix", "calibration.gguf", head("gemma3").text("general.type", "imatrix")),
        ("llama", "an adapter", "style.gguf", head("llama").text("general.type", "adapter").text("adapter.type", "lora")),
        ("qwen3", "a control vector", "happy.gguf", head("controlvector")),
        ("llama", "a vocabulary", "ggml-vocab-x.gguf", head("llama").text("general.type", "vocab")),
        ("qwen3", "a draft head", "mtp-model-Q8_0.gguf", head("qwen3")),
        ("phi3", "a vector with a type", "zz.gguf", head("controlvector").text("general.type", "adapter")),
    ];
    for (architecture, what, name, file) in beside {
        let reference = files([("ref.gguf", all(architecture, false))]);
        let pair = files([("model-Q8_0.gguf", all(architecture, true)), (name, other(file))]);
        table.noted(what, &reference, &pair, &[name]);
    }
    let reference = files([("ref.gguf", all("llama", false))]);
    // Shards: how many, which tensors lie in which, the types of the counts.
    for (count, cuts) in [
        (2, &[3usize, 8][..]),
        (4, &[2, 2, 5, 8]),
        (3, &[0, 8, 8]),
        (12, &[1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8]),
    ] {
        let make = |without: Option<usize>| -> Files {
            let mut from = 0;
            let mut all = Vec::new();
            for (no, cut) in cuts.iter().enumerate() {
                let mut file = if no == 0 { head("llama") } else { Gguf::new() };
                file = file.u16("split.no", no as u16).u16("split.count", count);
                file = file.entry("split.tensors.count", id::I32, &8i32.to_le_bytes());
                let file = matrices[from..*cut].iter().fold(file, |file, it| add(file, it, true));
                from = *cut;
                if without != Some(no) {
                    all.push((format!("m-{:05}-of-{count:05}.gguf", no + 1), file.bytes()));
                }
            }
            all
        };
        table.healthy(&format!("{count} shards"), &reference, &make(None));
        let missing = format!("m-00002-of-{count:05}.gguf");
        table.check(
            &format!("{count} shards, one missing"),
            &reference,
            &make(Some(1)),
            &[6],
            &[&missing],
            &[],
        );
        let first = format!("m-00001-of-{count:05}.gguf");
        table.check(
            &format!("{count} shards, the first missing"),
            &reference,
            &make(Some(0)),
            &[6],
            &[&first],
            &[],
        );
        let projector = (String::from("vision.gguf"), other(head("clip")));
        table.noted(
            &format!("{count} shards and a projector"),
            &reference,
            &[make(None), vec![projector]].concat(),
            &["vision.gguf"],
        );
        let renamed: Files = make(None)
            .into_iter()
            .enumerate()
            .map(|(at, (_, bytes))| (format!("part{at}.gguf"), bytes))
            .collect();
        table.check(
            &format!("{count} shards, renamed"),
            &reference,
            &renamed,
            &[6],
            &["part0.gguf"],
            &[],
        );
    }
    let two = files([("a-Q8_0.gguf", all("llama", true)), ("b-Q8_0.gguf", all("llama", true))]);
    table.check("two models", &reference, &two, &[6], &["a-Q8_0.gguf", "b-Q8_0.gguf"], &[]);
    for names in [
        ["m.gguf.part1of2", "m.gguf.part2of2"],
        ["m.gguf-split-a", "m.gguf-split-b"],
        ["m.gguf.001", "m.gguf.002"],
        ["m.gguf.part-aa", "m.gguf.part-ab"],
    ] {
        let bytes = all("llama", true);
        let (a, b) = bytes.split_at(bytes.len() / 2);
        let pieces = files([(names[0], a.to_vec()), (names[1], b.to_vec())]);
        table.check(&format!("pieces {names:?}"), &reference, &pieces, &[6], &[names[0]], &[]);
    }
    let bad = foreign(&matrices);
    let wrong = bad.iter().fold(head("llama"), |file, it| add(file, it, true)).bytes();
    table.damaged(
        "another model",
        &reference,
        &files([("m.gguf", wrong), ("v.gguf", other(head("clip")))]),
        &[&matrices[2].name, "v.gguf"],
    );
}

/// Kind 18-cache-of-links.
#[cfg(unix)]
#[test]
fn caches_of_links() {
    use std::os::unix::fs::symlink;
    let mut table = Table::of("18-cache-of-links");
    let matrices = layers("model.layers");
    let (own, bad) =
        (quantized(&matrices, Scheme::Fp8Rows), quantized(&foreign(&matrices), Scheme::Fp8Rows));
    let (first, second) = own.split_at(8);
    let (one, two, listed) = (
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    );
    let bytes = [file(first), file(second), index(&[(one, first), (two, second)])];
    let cut = |bytes: &[u8], len: usize| Some(bytes[..len].to_vec());
    // The blob of the second shard, its link's target, exit code, what is said.
    #[rustfmt::skip]
    let cases: [(&str, Option<Vec<u8>>, &str, i32, &[&str]); 8] = [
        ("whole", Some(bytes[1].clone()), "../../blobs/b", 0, &[]),
        ("an absolute link", Some(bytes[1].clone()), "/absolute", 0, &[]),
        ("two links", Some(bytes[1].clone()), "again", 0, &[]),
        ("no blob", None, "../../blobs/b", 6, &[two, "link"]),
        ("cut short", cut(&bytes[1], 3000), "../../blobs/b", 6, &[two]),
        ("cut in the header", cut(&bytes[1], 20), "../../blobs/b", 6, &[two]),
        ("empty", Some(Vec::new()), "../../blobs/b", 6, &[two]),
        ("a link to itself", None, two, 6, &[two, "link"]),
    ];
    for (what, blob, target, code, says) in cases {
        let suite = Suite::new();
        suite.write("r/model.safetensors", file(&plain(&matrices)));
        let root = "hub/models--org--name";
        suite.write(&format!("{root}/blobs/a"), &bytes[0]);
        suite.write(&format!("{root}/blobs/i"), &bytes[2]);
        if let Some(blob) = blob {
            suite.write(&format!("{root}/blobs/b"), blob);
        }
        suite.write(&format!("{root}/refs/main"), "0f1e2d");
        let snapshot = suite.path().join(root).join("snapshots/0f1e2d");
        fs::create_dir_all(&snapshot).unwrap();
        let absolute = suite.path().join(root).join("blobs/b");
        let target = if target == "/absolute" { absolute.to_str().unwrap() } else { target };
        symlink("../../blobs/b", snapshot.join("again")).unwrap();
        for (name, target) in [(one, "../../blobs/a"), (two, target), (listed, "../../blobs/i")] {
            symlink(target, snapshot.join(name)).unwrap();
        }
        for path in [format!("{root}/snapshots/0f1e2d"), root.to_owned(), format!("{root}/")] {
            table.expect(
                &format!("{what}, {path}"),
                &suite.qualm(&["check", "r", &path]),
                &[code],
                says,
                &["No such file"],
            );
        }
        fs::remove_file(snapshot.join(listed)).unwrap();
        table.expect(
            &format!("{what}, no index"),
            &suite.qualm(&["check", "r", root]),
            &[code],
            says,
            &["No such file"],
        );
        if code == 0 {
            fs::write(suite.path().join(root).join("blobs/a"), file(&bad[..8])).unwrap();
            let ran = suite.qualm(&["check", "r", root]);
            table.expect(&format!("{what}, another model"), &ran, &[5], &[&matrices[0].name], &[]);
            table.count(1, 1);
        }
    }
    // Refs that lead nowhere, and several revisions.
    let suite = Suite::new();
    suite.write("r/model.safetensors", file(&plain(&matrices)));
    for revision in ["aa11", "bb22"] {
        suite
            .write(&format!("hub/models--o--m/snapshots/{revision}/model.safetensors"), file(&own));
    }
    table.expect(
        "no refs",
        &suite.qualm(&["check", "r", "hub/models--o--m"]),
        &[6],
        &["aa11", "bb22", "snapshots"],
        &[],
    );
    suite.write("hub/models--o--m/refs/main", "bb22\n");
    table.expect(
        "refs with a line's end",
        &suite.qualm(&["check", "r", "hub/models--o--m"]),
        &[0],
        &[],
        &[],
    );
}
