/*!
Plays the fuzz corpus back on stable Rust, and fuzzes every target for a short, fixed number of runs.

`cargo test --test fuzz_corpus -- --ignored` writes the seeds that are made here anew.
*/

mod forge;
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::path::{Path, PathBuf};

use forge::gguf::{Gguf, array, id, string};
use qualm::codec::{Class, TYPES};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// Runs of a target on changed inputs: short enough for every commit. `fuzz/run` goes on from there.
const RUNS: u64 = 300;

/// Replays what a target keeps, and then changes it, the same way every time.
fn play(target: &str) {
    let (_, body) = targets::TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    let directory = std::fs::read_dir(corpus(target)).expect("the corpus is committed");
    let mut paths: Vec<PathBuf> = directory.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let inputs: Vec<Vec<u8>> =
        paths.iter().map(|path| std::fs::read(path).expect("readable")).collect();
    assert!(!inputs.is_empty(), "{target} has inputs");
    for (path, input) in paths.iter().zip(&inputs) {
        let passed = std::panic::catch_unwind(|| body(input));
        assert!(passed.is_ok(), "{} breaks its target", path.display());
    }
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for run in 0..RUNS {
        let input = change(&inputs, &mut random);
        let passed = std::panic::catch_unwind(|| body(&input));
        if passed.is_err() {
            let kept = std::env::temp_dir().join(format!("qualm-{target}-{run}"));
            std::fs::write(&kept, &input).expect("written");
            panic!("run {run} breaks {target}; its input is {}", kept.display());
        }
    }
}

/// The generator of Marsaglia, with Vigna's shifts.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }
}

/// An input of the corpus with a few changes: what libFuzzer does, without its feedback.
fn change(inputs: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    const WORDS: [&[u8]; 10] = [
        &[0; 8],
        &[0xFF; 8],
        b"18446744073709551615",
        b"-1",
        b"1e309",
        b"NaN",
        b"\xE2\x80\xAE",
        b"\x1B[2J",
        b"[[[[[[[[",
        b"<fuzz>",
    ];
    let mut input = inputs[random.below(inputs.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len());
        let len = random.below(16).min(input.len() - at);
        match random.below(7) {
            0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
            1 if !input.is_empty() => input[at] = random.below(256) as u8,
            2 => drop(input.drain(at..at + len)),
            3 => input.truncate(at),
            4 => {
                let piece = input[at..at + len].to_vec();
                input.splice(at..at, piece);
            }
            5 => {
                let other = &inputs[random.below(inputs.len())];
                let from = random.below(other.len());
                let to = (from + random.below(64)).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let word = WORDS[random.below(WORDS.len())];
                let end = (at + random.below(word.len() + 1)).min(input.len());
                input.splice(at..end, word.iter().copied());
            }
        }
    }
    input
}

/// A test a target.
macro_rules! targets {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                play(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_played() {
            let played = [$(stringify!($name)),*];
            let known: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(played.as_slice(), known);
            for name in known {
                let listed = corpus(name).join("../../fuzz_targets").join(format!("{name}.rs"));
                assert!(listed.exists(), "{name} is no target of libFuzzer");
            }
        }
    };
}

targets!(
    gguf,
    safetensors,
    scheme,
    decode,
    encode,
    spec,
    snapshot,
    record,
    blob,
    archive,
    numbers,
    configuration,
    directory,
    reads
);

fn write(target: &str, name: &str, bytes: &[u8]) {
    std::fs::create_dir_all(corpus(target)).expect("a directory");
    std::fs::write(corpus(target).join(name), bytes).expect("written");
}

#[test]
#[ignore = "writes files into the source tree"]
fn write_seeds() {
    let scalars: [(u32, &[u8]); 11] = [
        (id::U8, &[1]),
        (id::I8, &[0xFF]),
        (id::U16, &[1, 2]),
        (id::I16, &[1, 0xFF]),
        (id::U32, &[1, 2, 3, 4]),
        (id::I32, &[1, 2, 3, 0xFF]),
        (id::F32, &[0, 0, 0x80, 0x3F]),
        (id::BOOL, &[1]),
        (id::U64, &[1; 8]),
        (id::I64, &[0xFF; 8]),
        (id::F64, &[0x3F; 8]),
    ];
    let keys = scalars
        .iter()
        .fold(Gguf::new().text("s", "text"), |file, (ty, value)| {
            file.entry(format!("k{ty}"), *ty, value)
        })
        .entry("a", id::ARRAY, &array(id::STRING, 2, &[string("x"), string("yz")].concat()))
        .entry("b", id::ARRAY, &array(id::U8, 20, &[7; 20]))
        .entry("c", id::ARRAY, &array(id::STRING, 20, &string("t").repeat(20)));
    let types = [id::TENSOR_F32, id::TENSOR_Q8_0, id::TENSOR_Q4_K, id::TENSOR_NVFP4, 4, 153];
    let tensors = types.iter().fold(Gguf::new(), |file, &ty| {
        file.tensor(format!("t{ty}"), &[2, 256], ty, vec![0x31; 64])
    });
    let mut version_2 = Gguf::new().f32("a", &[2], &[1.0, 2.0]);
    version_2.version = 2;
    let mut aligned = Gguf::new().u32("general.alignment", 8).f32("a", &[], &[1.0]);
    aligned.alignment = 8;
    let nvfp4 = Gguf::new()
        .tensor("x.weight", &[2, 1, 64], id::TENSOR_NVFP4, vec![0x38; 72])
        .f32("x.scale", &[2], &[0.5, 2.0])
        .f32("x.input_scale", &[1], &[1.0]);
    let split = Gguf::new().u16("split.no", 0).u16("split.count", 1).u32("split.tensors.count", 1);
    for (name, file) in [
        ("keys", keys),
        ("tensors", tensors),
        ("version-2", version_2),
        ("aligned", aligned),
        ("nvfp4", nvfp4),
        ("split", split.f32("a", &[1], &[1.0])),
        ("blocks", Gguf::new().tensor("q", &[2, 32], id::TENSOR_Q8_0, vec![0x3C; 68])),
    ] {
        write("gguf", name, &file.bytes());
    }
    let entry = |name: &str, dtype: &str, shape: &str, begin: u64, end: u64| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
    };
    let two = [entry("a", "F32", "[2]", 0, 8), entry("b", "BF16", "[1,2]", 8, 12)].join(",");
    let small = [
        entry("e", "F4", "[2]", 0, 1),
        entry("f", "F8_E4M3", "[1]", 1, 2),
        entry("u", "X9", "[]", 2, 3),
    ];
    for (name, header, data) in [
        ("two", format!("{{{two}}}"), 12),
        ("metadata", format!(r#"{{"__metadata__":{{"format":"pt"}},{two}}}"#), 12),
        ("small", format!("{{{}}}", small.join(",")), 3),
        ("empty", format!("{{{}}}", entry("z", "I64", "[0,5]", 0, 0)), 0),
    ] {
        write("safetensors", name, &forge::safetensors(&header, data));
    }
    write_schemes();
    for (index, row) in TYPES.iter().enumerate() {
        let unit =
            |rows: qualm::codec::RowCodec| rows.frame.meta() + row.block_bytes * rows.frame.rows();
        let blocks = (0..row.rows.map_or(row.block_bytes, unit)).map(|i| (i * 37 + 11) as u8);
        let input: Vec<u8> = std::iter::once(index as u8).chain(blocks).collect();
        write("decode", row.name, &input);
        if row.class == Class::Quantized {
            let value = |i: usize| ((i as f32 * 0.7).sin().to_bits() >> 16) as u16;
            let values = (0..row.block_len).flat_map(|i| value(i).to_le_bytes());
            let input: Vec<u8> = std::iter::once(index as u8).chain(values).collect();
            write("encode", row.name, &input);
        }
    }
}

/// Seeds of planes.
fn write_schemes() {
    // Every suffix of a scheme, with a type that its planes may have.
    let suffixes = targets::suffixes();
    assert!(suffixes.len() <= 256, "a byte chooses one of them");
    let plane = |suffix: &str, ty: u8, rank: u8, rows: u8, columns: u8| {
        let index = suffixes.iter().position(|known| *known == suffix).expect("a suffix");
        [index as u8, ty & 7 | (ty & 8) << 2 | rank << 3, rows, columns]
    };
    let (u8s, i8s, e4m3, e8m0, f16, f32, i32, i64) = (0, 1, 2, 3, 4, 5, 6, 7);
    let (i16, bf16) = (8, 9);
    // Ranks with an extent that is fixed: books of two, tiles of 16 and 40 words, groups of 17.
    let (books, tiles, groups, half_tiles) = (8, 9, 10, 11);
    #[rustfmt::skip]
    let schemes: [(&str, &[[u8; 4]]); 18] = [
        ("fp8", &[plane(".weight", e4m3, 2, 4, 8), plane(".weight_scale", f32, 2, 4, 1)]),
        ("fp8-block", &[plane(".weight", e4m3, 2, 4, 8), plane(".weight_scale_inv", f32, 2, 1, 1)]),
        ("int8", &[plane(".weight", i8s, 2, 4, 8), plane(".weight_scale", f16, 2, 4, 1), plane(".weight_zero_point", i8s, 2, 4, 1)]),
        ("packed", &[plane(".weight_packed", i32, 2, 4, 4), plane(".weight_scale", f16, 2, 4, 1), plane(".weight_shape", i64, 1, 0, 2)]),
        ("nvfp4", &[plane(".weight", u8s, 2, 4, 16), plane(".weight_scale", e4m3, 2, 4, 2), plane(".weight_scale_2", f32, 0, 0, 0)]),
        ("mxfp4", &[plane(".weight_packed", u8s, 2, 4, 16), plane(".weight_scale", e8m0, 2, 4, 1)]),
        ("gptq", &[plane(".qweight", i32, 2, 4, 8), plane(".qzeros", i32, 2, 1, 1), plane(".scales", f16, 2, 1, 8), plane(".g_idx", i32, 1, 0, 32)]),
        ("awq", &[plane(".qweight", i32, 2, 32, 1), plane(".qzeros", i32, 2, 1, 1), plane(".scales", f16, 2, 1, 8)]),
        ("exl3", &[plane(".trellis", i16, tiles, 8, 8), plane(".suh", f16, 1, 0, 128), plane(".svh", f16, 1, 0, 128)]),
        ("exl3-half", &[plane(".trellis", i16, half_tiles, 8, 8), plane(".su", i16, 1, 0, 8), plane(".sv", i16, 1, 0, 8), plane(".mul1", i32, 0, 0, 0)]),
        ("exl3-embedding", &[plane(".trellis", i16, groups, 3, 1), plane(".signs", f16, groups, 1, 0)]),
        ("exl2", &[plane(".q_weight", i32, 2, 4, 8), plane(".q_groups", i16, 1, 0, 2), plane(".q_scale", i32, 2, 1, 1), plane(".q_scale_max", f16, 1, 0, 1), plane(".q_invperm", i32, 1, 0, 1)]),
        ("aqlm", &[plane(".codes", i8s, 3, 4, 2), plane(".codebooks", f16, books, 16, 8), plane(".scales", f16, 1, 0, 2)]),
        ("sparse-24", &[plane(".compressed", bf16, 2, 4, 4), plane(".bitmask", u8s, 2, 4, 1)]),
        ("sparse-24-fp8", &[plane(".compressed", e4m3, 2, 4, 4), plane(".bitmask", u8s, 2, 4, 1), plane(".weight_scale", f32, 2, 4, 1)]),
        ("marlin", &[plane(".B", i32, 2, 2, 128), plane(".s", f16, 2, 1, 64)]),
        ("marlin-24", &[plane(".weight_packed", i32, 2, 1, 128), plane(".scale_packed", f16, 2, 1, 64), plane(".meta", i16, 2, 1, 128)]),
        ("gpt-oss", &[plane("_blocks", u8s, 3, 4, 16), plane("_scales", u8s, 2, 2, 4)]),
    ];
    for (name, planes) in schemes {
        let fill: Vec<u8> = match name {
            // One group of four bits, and the identity for a permutation.
            "exl2" => [vec![4], vec![0; 31]].concat(),
            // Two of each four.
            "sparse-24" | "sparse-24-fp8" => vec![0x33; 32],
            "marlin-24" => vec![0x44; 32],
            _ => (0..32).map(|i: u8| i.wrapping_mul(37)).collect(),
        };
        write("scheme", name, &[planes.concat(), vec![0; 4], fill].concat());
    }
}
