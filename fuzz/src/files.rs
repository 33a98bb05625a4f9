/*!
Targets for what is read beside weights: specs, snapshots, records, blobs, archives, configurations.
*/

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use qualm::baseline::{Places, Snapshot};
use qualm::measure::printed_stats;
use qualm::model;
use qualm::report::compare::{Comparison, Style};
use qualm::report::{Options, REPORTS};
use qualm::shown::{Notation, Shown};
use qualm::spec::{self, LoadOptions};
use qualm::suite::blob::Blob;
use qualm::suite::merge::{self, Loaded};
use qualm::suite::record::Contract;

use super::check_model;

/// Parses the input as a spec, and asks every pair what it demands of a tensor; what is wrong is said.
pub fn spec(data: &[u8]) {
    let options = LoadOptions { env: &|name| Some(format!("/{name}")), ..LoadOptions::default() };
    let (path, root) = (Path::new("specs/s.toml"), Path::new("specs"));
    match spec::parse(data, path, root, &options) {
        Ok(spec) => {
            for pair in spec.pairs.iter().take(16) {
                let Ok(resolver) = spec.resolver(pair) else { continue };
                for name in ["blk.0.attn_q.weight", "", "x\u{202e}"] {
                    let tensor = resolver.tensor(name);
                    assert!(tensor.bounds().count() <= 64);
                    let _ = (resolver.rename(name), tensor.skip(), tensor.may_be_missing());
                }
            }
        }
        Err(errors) => {
            let plain = errors.render(false);
            assert!(!plain.trim().is_empty(), "an error has a text");
            assert!(plain.len() <= (1 << 20) + 600 * data.len(), "in proportion to the input");
            assert_shown(&errors.render(true));
        }
    }
}

/// What is printed is text, whatever it is.
fn assert_shown(text: &str) {
    let mut stream = Shown::new(Vec::new(), Notation::Text { color: false });
    stream.write_all(text.as_bytes()).expect("memory");
    let shown = String::from_utf8(stream.itself().expect("memory").clone()).expect("UTF-8");
    let drives = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!shown.contains(drives) && !shown.contains('\u{202e}'), "{shown:?}");
}

/// What is read as a snapshot and rendered reads back, and renders to the same bytes.
pub fn snapshot(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let path = Path::new("x.snap");
    let Ok(first) = Snapshot::parse(path, text) else { return };
    let rendered = first.render();
    let second = Snapshot::parse(path, &rendered).expect("what was rendered reads back");
    assert_eq!(second.render(), rendered);
}

/// What is read as a record renders to every report, and is nothing new against itself.
pub fn record(data: &[u8]) {
    let Ok(contract) = Contract::from_json(data, Path::new("contract.json")) else { return };
    for report in REPORTS {
        let rendered = report.render(&contract, &Options::default());
        let bytes = rendered.unwrap_or_else(|error| panic!("{}: {error}", report.name())).bytes;
        let text = String::from_utf8(bytes).expect("a report is text");
        let foreign = report.file_name().ends_with("html") && text.contains("<fuzz");
        assert!(!foreign, "an element that a name brought in");
    }
    let comparison = Comparison::new(&contract, &contract);
    assert!(comparison.newly_failing.is_empty(), "nothing fails anew");
    assert_shown(&comparison.render(Style::Text, 60_000));
}

/// A blob, given the digest that it lacks, is merged or refused. Its sums do not overflow.
pub fn blob(data: &[u8]) {
    let Ok(mut blob) = serde_json::from_slice::<Blob>(data) else {
        return with_file("blob-1-of-1.json", data, |path| {
            assert!(Blob::read(path).is_err(), "what is no blob is not read as one");
        });
    };
    blob.digest = String::new();
    let bytes = blob.to_bytes().expect("it was read from JSON");
    with_file("blob-1-of-1.json", &bytes, |path| {
        let _ = merge::gather(vec![Loaded::read(path)], true);
    });
}

/// Everything pending in an archive is for a snapshot directly inside the suite's own directory.
pub fn archive(data: &[u8]) {
    with_file("a.zip", data, |path| {
        let workspace = path.parent().expect("a directory").to_owned();
        let snapshots = workspace.join("snapshots");
        let places = Places { workspace, snapshots: vec![snapshots.clone()], pending: Vec::new() };
        let Ok(found) = places.from_artefact(path) else { return };
        for pending in found {
            assert_eq!(pending.snapshot.parent(), Some(snapshots.as_path()));
            let _ = pending.read();
        }
    });
}

/// Printed statistics and importance matrices are read, or say what is wrong.
pub fn numbers(data: &[u8]) {
    with_file("stats.txt", data, |path| {
        // A NaN is kept: it agrees with nothing.
        let _ = printed_stats::read(path, qualm::codec::TensorType::Q4_0);
    });
    if let Ok(model) = model::from_bytes(Path::new("input"), data.to_vec())
        && let Ok(weights) = model::imatrix::from_model(&model)
    {
        let sound = |weight: &f32| weight.is_finite() && *weight >= 0.0;
        assert!(weights.values().flatten().all(sound), "NaN and negative weights are errors");
    }
}

/// A checkpoint whose planes look like several schemes, beside a configuration: the first byte chooses
/// which file the rest is written to. Every tensor decodes, or says why not.
pub fn configuration(data: &[u8]) {
    const NAMES: [&str; 6] = [
        "config.json",
        "quantize_config.json",
        "hf_quant_config.json",
        "quantization_config.json",
        "quanto_qmap.json",
        "model.safetensors.index.json",
    ];
    let Some((&first, rest)) = data.split_first() else { return };
    with_file(NAMES[usize::from(first) % NAMES.len()], rest, |path| {
        let directory = path.parent().expect("a directory");
        let bytes = checkpoint();
        fs::write(directory.join("model.safetensors"), &bytes).expect("written");
        match model::open(directory) {
            Ok(model) => check_model(&model, bytes.len() as u64),
            Err(error) => assert!(error.to_string().contains("model.safetensors"), "{error}"),
        }
    });
}

/// Planes of NVFP4, GPTQ, packed integers and LLM.int8.
fn checkpoint() -> Vec<u8> {
    let planes: [(&str, &str, &[usize], usize); 12] = [
        ("a.weight", "U8", &[4, 16], 64),
        ("a.weight_scale", "F8_E4M3", &[4, 2], 8),
        ("a.weight_scale_2", "F32", &[], 4),
        ("b.qweight", "I32", &[4, 8], 128),
        ("b.qzeros", "I32", &[1, 1], 4),
        ("b.scales", "F16", &[1, 8], 16),
        ("b.g_idx", "I32", &[32], 128),
        ("c.weight_packed", "I32", &[4, 4], 64),
        ("c.weight_scale", "F16", &[4, 1], 8),
        ("d.SCB", "F32", &[4], 16),
        ("d.weight", "I8", &[4, 8], 32),
        ("e.weight", "F8_E4M3", &[4, 8], 32),
    ];
    let (mut header, mut data) = (Vec::new(), Vec::new());
    for (name, ty, shape, len) in planes {
        let begin = data.len();
        data.extend((0..len).map(|i| (i * 37 + begin) as u8 & 0x3f));
        let end = data.len();
        header.push(format!(
            r#""{name}":{{"dtype":"{ty}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#
        ));
    }
    let header = format!("{{{}}}", header.join(","));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// A folder whose entries the input describes, three bytes each: what it is, its name, where it leads.
/// Opening it as a model ends, and an error names a path below it.
pub fn directory(data: &[u8]) {
    const NAMES: [&str; 8] = [
        "model.safetensors",
        "model.safetensors.index.json",
        "config.json",
        "a.gguf",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "hf_quant_config.json",
        "x.bin",
    ];
    with_file("bytes", data, |path| {
        let folder = path.parent().expect("a directory").join("model");
        fs::create_dir(&folder).expect("made");
        for entry in data.chunks_exact(3) {
            let at = folder.join(NAMES[usize::from(entry[1]) % NAMES.len()]);
            let to = NAMES[usize::from(entry[2]) % NAMES.len()];
            // What is there already stays.
            let _ = match entry[0] % 6 {
                0 => fs::write(&at, checkpoint()),
                1 => fs::create_dir(&at),
                2 => link(Path::new(to), &at),
                3 => link(Path::new("/dev/zero"), &at),
                4 => fs::write(&at, format!(r#"{{"weight_map":{{"a.weight":"{to}"}}}}"#)),
                _ => fs::write(&at, data),
            };
        }
        match model::open(&folder) {
            Ok(model) => {
                assert!(model.files.iter().all(|file| file.path.starts_with(&folder)));
            }
            Err(error) => assert!(error.to_string().contains("model"), "{error}"),
        }
    });
}

#[cfg(unix)]
fn link(target: &Path, at: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

#[cfg(not(unix))]
fn link(_: &Path, at: &Path) -> std::io::Result<()> {
    fs::write(at, b"")
}

/// Does something with a file of this name in a directory of its own.
fn with_file(name: &str, bytes: &[u8], work: impl FnOnce(&Path)) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path: PathBuf = directory.path().join(name);
    fs::write(&path, bytes).expect("written");
    work(&path);
}
