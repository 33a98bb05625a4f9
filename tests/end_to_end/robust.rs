/*!
Killed, starved, cut short, or fed with rubbish: the program leaves whole files, stays small, and says
what is wrong.
*/

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::program::*;
use crate::reports::{timeless, tree};

const A: &[u64] = &[16, 256];

/// A tensor that is made of holes: name, dtype, shape, bytes.
type Hollow<'a> = (&'a str, &'a str, &'a [u64], u64);

/// What some of them begin with.
type Filled = Vec<(usize, Vec<u8>)>;

/// Writes a file of holes, but for the tensors that are filled from their start.
fn hollow(path: &Path, tensors: &[Hollow], filled: &[(usize, Vec<u8>)]) {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    let mut begins = Vec::new();
    for (name, dtype, shape, len) in tensors {
        let entry = serde_json::json!({
            "dtype": dtype, "shape": shape, "data_offsets": [end, end + len],
        });
        header.insert((*name).to_owned(), entry);
        begins.push(end);
        end += len;
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let data = 8 + header.len() as u64;
    for (tensor, bytes) in filled {
        file.seek(SeekFrom::Start(data + begins[*tensor])).unwrap();
        file.write_all(bytes).unwrap();
    }
    file.set_len(data + end).unwrap();
}

/// Waits for a child and returns the most memory that was resident at a time, in bytes.
#[cfg(target_os = "linux")]
fn peak_of(mut child: Child) -> (i32, u64) {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        // The kernel's own high-water mark; it only grows.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) * 1024);
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code().unwrap_or(-1), peak);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn spawn(directory: &Path, arguments: &[&str]) -> Child {
    let mut command = command(directory);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the program starts")
}

/// What may be resident, whatever the model's size: 64 MiB, and 1 KiB for each tensor.
#[cfg(target_os = "linux")]
fn allowed(tensors: u64) -> u64 {
    (64 << 20) + (tensors << 10)
}

#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_model() {
    let suite = Suite::new();
    // As f32 the weight takes four times what may be resident.
    let side: u64 = 6144;
    let shape: &[u64] = &[side, side];
    let elements = side * side;
    let r = suite.path().join("r.safetensors");
    hollow(&r, &[("m.weight", "BF16", shape, elements * 2)], &[]);
    let scales = f32s(&vec![0.5; (side / 128 * side / 128) as usize]);
    let blocks: &[u64] = &[side / 128, side / 128];
    let half = |count: u64| [0x00u8, 0x38].repeat(count as usize);
    let cases: [(&str, Vec<Hollow>, Filled); 4] = [
        ("F16", vec![("m.weight", "F16", shape, elements * 2)], vec![]),
        (
            "FP8 in blocks",
            vec![
                ("m.weight", "F8_E4M3", shape, elements),
                ("m.weight_scale_inv", "F32", blocks, scales.len() as u64),
            ],
            vec![(1, scales.clone())],
        ),
        (
            "GPTQ, transposed",
            vec![
                ("m.qweight", "I32", &[6144 / 8, 6144], elements / 2),
                ("m.qzeros", "I32", &[48, 6144 / 8], 48 * 6144 / 2),
                ("m.scales", "F16", &[48, 6144], 48 * 6144 * 2),
                ("m.g_idx", "I32", &[6144], 6144 * 4),
            ],
            vec![
                (2, half(48 * 6144)),
                (3, (0..6144).flat_map(|i: i32| (i / 128).to_le_bytes()).collect()),
            ],
        ),
        (
            "gpt-oss's stacks, which are transposed",
            vec![
                ("m.weight_blocks", "U8", &[4096, 512, 16], 4096 * 512 * 16),
                ("m.weight_scales", "U8", &[4096, 512], 4096 * 512),
            ],
            vec![(1, vec![127; 4096 * 512])],
        ),
    ];
    for (what, tensors, filled) in cases {
        let q = suite.path().join("q.safetensors");
        hollow(&q, &tensors, &filled);
        if what.starts_with("gpt-oss") {
            // Listed only: its name is not the reference's.
            let (code, peak) = peak_of(spawn(suite.path(), &["inspect", "q.safetensors"]));
            assert!(matches!(code, 0 | 6), "{what}: exit code {code}");
            assert!(peak < allowed(2), "{what}: {} MiB", peak >> 20);
            continue;
        }
        let (code, peak) =
            peak_of(spawn(suite.path(), &["diff", "r.safetensors", "q.safetensors"]));
        assert!(matches!(code, 0 | 5), "{what}: exit code {code}");
        assert!(peak > 1 << 20, "the peak was seen");
        assert!(peak < allowed(2), "{what}: {} MiB", peak >> 20);
    }
}

/// A suite over a pair of so many tensors of 64 elements, all zero.
#[cfg(target_os = "linux")]
fn many(count: usize) -> Suite {
    let suite = Suite::new();
    let names: Vec<String> = (0..count)
        .map(|i| format!("model.layers.{}.mlp.experts.{}.down_proj.weight", i / 100, i % 100))
        .collect();
    for (file, dtype, len) in [("r.safetensors", "F32", 256u64), ("q.safetensors", "BF16", 128)] {
        let tensors: Vec<Hollow> =
            names.iter().map(|name| (name.as_str(), dtype, &[4, 16][..], len)).collect();
        hollow(&suite.path().join(file), &tensors, &[]);
    }
    suite.spec("");
    suite
}

#[cfg(target_os = "linux")]
#[test]
fn memory_grows_by_less_than_a_kibibyte_a_tensor() {
    let suite = many(40_000);
    let table: [&[&str]; 4] = [
        &["diff", "r.safetensors", "q.safetensors"],
        &["check", "r.safetensors", "q.safetensors"],
        &["inspect", "--headers", "q.safetensors"],
        &["run", "--list"],
    ];
    for arguments in table {
        let (code, peak) = peak_of(spawn(suite.path(), arguments));
        assert_eq!(code, 0, "{arguments:?}");
        assert!(peak < allowed(40_000), "{arguments:?}: {} MiB", peak >> 20);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_that_records_every_check_takes_five_kibibytes_a_tensor() {
    let suite = many(10_000);
    let (code, peak) = peak_of(spawn(suite.path(), &["run", "--no-baseline"]));
    assert_eq!(code, 0);
    assert!(peak < allowed(5 * 10_000), "{} MiB", peak >> 20);
}

#[cfg(unix)]
#[test]
fn a_file_that_is_cut_short_while_it_is_read_is_an_error_and_no_signal() {
    let suite = Suite::new();
    // Holes, so that it costs nothing but time to read.
    let elements = 1u64 << 33;
    for (file, dtype, width) in [("r.safetensors", "F32", 4), ("q.safetensors", "BF16", 2)] {
        let path = suite.path().join(file);
        hollow(&path, &[("m", dtype, &[1 << 17, 1 << 16], elements * width)], &[]);
    }
    let mut command = command(suite.path());
    command.args(["diff", "r.safetensors", "q.safetensors"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(400));
    let file = OpenOptions::new().write(true).open(suite.path().join("r.safetensors")).unwrap();
    file.set_len(4096).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{text}");
    for word in ["\"m\"", "r.safetensors", "cannot read"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

/// What every file of a run may hold: before and after, whole.
struct States {
    names: BTreeSet<String>,
    whole: BTreeSet<(String, String)>,
}

fn write_models(suite: &Suite, seed: u64) {
    let mut random = Random(seed);
    let (r, noise) = (random.normals(4096), random.normals(4096));
    let q: Vec<f32> = r.iter().zip(&noise).map(|(r, n)| r + 0.01 * n).collect();
    suite.models(&[("a", "F32", A, f32s(&r))], &[("a", "BF16", A, bf16s(&q))]);
}

/// The names and contents below the directory that a run or an acceptance writes.
fn written(suite: &Suite) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for directory in ["target/qualm", "snapshots"] {
        if suite.path().join(directory).exists() {
            for (name, bytes) in tree(&suite.path().join(directory)) {
                files.push((format!("{directory}/{}", name.display()), timeless(&bytes)));
            }
        }
    }
    files
}

#[test]
fn a_run_that_is_killed_leaves_every_file_old_or_new_and_whole() {
    let suite = Suite::new();
    suite.spec("integrity = { conversion = \"off\", column = \"off\", sqnr_expected = \"off\", worst_row = \"off\", worst_block = \"off\", reason = \"noise\" }");
    let mut states = States { names: BTreeSet::new(), whole: BTreeSet::new() };
    // Of a machine that was not busy with something else.
    let mut shortest = Duration::MAX;
    // Every state that there is: each model, with no baseline, its own, and the other's.
    for seed in [1, 2, 1, 2] {
        write_models(&suite, seed);
        for arguments in [&["run"][..], &["accept"], &["run"]] {
            let start = Instant::now();
            suite.qualm(arguments);
            shortest = shortest.min(start.elapsed());
            for (name, text) in written(&suite) {
                states.names.insert(name.clone());
                states.whole.insert((name, text));
            }
        }
    }
    assert!(states.names.contains("snapshots/s__p.snap"), "{:?}", states.names);
    let mut random = Random(77);
    let (mut killed, mut interesting) = (0, 0);
    for round in 0..50 {
        write_models(&suite, 1 + round % 2);
        let arguments = if round % 3 == 2 { &["accept"][..] } else { &["run"] };
        let before = written(&suite);
        let mut child = spawn(suite.path(), arguments);
        std::thread::sleep(shortest.mul_f64(random.below(1000) as f64 / 1000.0));
        child.kill().unwrap();
        killed += u32::from(child.wait().unwrap().code().is_none());
        interesting += u32::from(written(&suite) != before);
        for (name, text) in written(&suite) {
            // What was being written has a name of its own, and is nothing that anybody reads.
            if states.names.contains(&name) {
                let whole = states.whole.contains(&(name.clone(), text.clone()));
                assert!(whole, "round {round}: {name} is neither old nor new:\n{text}");
            }
        }
        // Whatever was left does not stand in the way.
        let after = suite.qualm(&["run"]);
        assert!(matches!(after.code, 0 | 8), "{after}");
        if round % 5 == 0 {
            suite.qualm(&["reject"]);
        }
    }
    assert!(killed >= 10, "{killed} of 50 were killed");
    assert!(interesting >= 1, "some were killed after they had written something");
}

/// One tensor `t` of the given entry, and so many bytes of data.
fn entry(entry: &str, data: usize) -> Vec<u8> {
    let header = format!("{{\"t\":{entry}}}");
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn rubbish_is_an_input_error_that_names_file_and_tensor_at_once() {
    let u8s = |shape: &str, begin: u64, end: u64| {
        format!("{{\"dtype\":\"U8\",\"shape\":[{shape}],\"data_offsets\":[{begin},{end}]}}")
    };
    let two = |a: String, b: String, data: usize| {
        let header = format!("{{\"t\":{a},\"u\":{b}}}");
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
    };
    let raw = |len: u64, header: &[u8]| [&len.to_le_bytes()[..], header].concat();
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 5\n".to_vec();
    let twice = |entry: &str| {
        let header = format!("{{\"t\":{entry},\"t\":{entry}}}");
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat()
    };
    for (what, bytes, says) in [
        ("header beyond the file", raw(1 << 20, b"{}"), "runs past the file's end"),
        ("offsets that overlap", two(u8s("4", 0, 4), u8s("4", 2, 6), 6), "\"u\""),
        ("offsets that leave a gap", two(u8s("4", 0, 4), u8s("4", 5, 9), 9), "\"u\""),
        ("offsets beyond the end", entry(&u8s("8", 0, 8), 4), "\"t\""),
        ("data behind the last tensor", entry(&u8s("4", 0, 4), 5), "bytes"),
        ("a shape product that overflows", entry(&u8s("4294967296,4294967296", 0, 4), 4), "\"t\""),
        ("a name twice", twice(&u8s("4", 0, 4)), "\"t\""),
        ("invalid UTF-8", raw(6, b"{\"\xFF\":1"), "UTF-8"),
        ("a header of 100 MB", raw(100_000_000, b"{}"), "runs past the file's end"),
        ("a header of more", raw(100_000_001, b"{}"), "limit"),
        ("zero bytes", vec![], "is empty"),
        ("a Git LFS pointer", lfs, "LFS"),
        ("a pickle", b"\x80\x02}q\x00.".to_vec(), "pickle"),
        ("a big-endian GGUF", [b"GGUF", &3u32.to_be_bytes()[..], &[0; 16]].concat(), "big-endian"),
        ("GGUF of version 1", [b"GGUF", &1u32.to_le_bytes()[..], &[0; 16]].concat(), "version 1"),
        ("nonsense", b"hello, world, this is no model".to_vec(), "bad.model"),
    ] {
        let suite = Suite::new();
        suite.write("bad.model", bytes);
        suite.write("r.safetensors", safetensors(&[("t", "F32", &[1], vec![0; 4])]));
        for arguments in [
            &["diff", "r.safetensors", "bad.model"][..],
            &["diff", "bad.model", "r.safetensors"],
            &["inspect", "bad.model"],
            &["stats", "bad.model"],
            &["check", "r.safetensors", "bad.model"],
        ] {
            let start = Instant::now();
            let ran = suite.qualm(arguments);
            let took = start.elapsed();
            assert_eq!(ran.code, 6, "{what}: {arguments:?}: {ran}");
            let said = format!("{}{}", ran.out, ran.err);
            assert!(said.contains("bad.model"), "{what} names the file: {ran}");
            assert!(said.contains(says), "{what}: no {says:?} in {ran}");
            assert!(took < Duration::from_secs(3), "{what}: {took:?}");
        }
    }
    // A directory that holds no model.
    let suite = Suite::new();
    fs::create_dir(suite.path().join("empty")).unwrap();
    suite.qualm(&["inspect", "empty"]).exits(6).says("empty");
}
