/*! The GGUF reader against files that gguf-py wrote, and against ones made byte by byte. */

#![allow(clippy::type_complexity)] // The rows of tables.

mod forge;

use std::path::{Path, PathBuf};

use forge::gguf::{Gguf, array, f32s, id, string};
use qualm::codec::TensorType;
use qualm::model::{self, Extent, Format, Model, PlaneFault, Scratch, Storage, Tensor};
use serde_json::{Value, json};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gguf").join(name)
}

fn read(file: &Gguf) -> Model {
    model::from_bytes(Path::new("m.gguf"), file.bytes()).expect("sound")
}

fn metadata<'a>(model: &'a Model, key: &str) -> &'a Value {
    &model.metadata.iter().find(|(k, _)| k == key).expect(key).1
}

fn tensor<'a>(model: &'a Model, name: &str) -> &'a Tensor {
    model.tensors.iter().find(|tensor| tensor.name == name).expect(name)
}

fn values(model: &Model, name: &str) -> Vec<f32> {
    let tensor = tensor(model, name);
    let mut values = vec![f32::NAN; tensor.numel() as usize];
    tensor
        .decode(&model.files, 0..tensor.numel(), &mut Scratch::default(), &mut values)
        .expect("decodes");
    values
}

#[test]
fn every_metadata_type() {
    let model = model::open(&data("values.gguf")).expect("gguf-py's file");
    let digest = |of: &str, len: u64, sha256: &str, first: Value| json!({ "type": "array", "of": of, "len": len, "sha256": sha256, "first": first });
    // The digests are hashlib's of the same bytes packed with Python's struct.
    #[rustfmt::skip]
    let cases = [
        ("general.architecture", json!("test")),
        ("general.alignment", json!(64)),
        ("scalar.u8", json!(255)),
        ("scalar.i8", json!(-128)),
        ("scalar.u16", json!(65535)),
        ("scalar.i16", json!(-32768)),
        ("scalar.u32", json!(4294967295u32)),
        ("scalar.i32", json!(-2147483648)),
        ("scalar.f32", json!(1e-12)),
        ("scalar.u64", json!(u64::MAX)),
        ("scalar.i64", json!(i64::MIN)),
        ("scalar.f64", json!(0.1)),
        ("scalar.true", json!(true)),
        ("scalar.false", json!(false)),
        ("scalar.string", json!("naïve 🦙")),
        ("short.strings", json!(["a", "", "c"])),
        ("short.ints", json!([3, 1, 2])),
        ("long.strings", digest("string", 100, "dcdc6051c5fd7d73222929cd232419038729f77cb159bcaaafe088bb3a16c60b", json!(["token 0", "token 1", "token 2", "token 3"]))),
        ("long.floats", digest("f32", 100, "bfd5678205aacceea428d358d2bc356f22137d9458037ec81498661141ba8e6b", json!([0.0, 0.25, 0.5, 0.75]))),
        ("long.string", json!({ "type": "string", "len": 5000, "sha256": "c59d3c0480cc2d71d8f646e735e92da65450311eec46e81a5db8c7e6e8a92054", "first": "x".repeat(64) })),
    ];
    for (key, expected) in &cases {
        assert_eq!(metadata(&model, key), expected, "{key}");
    }
    assert_eq!(model.metadata.len(), cases.len(), "nothing else");
}

#[test]
fn odd_metadata_keeps_apart_what_differs() {
    let with = |ty, value: &[u8]| metadata(&read(&Gguf::new().entry("k", ty, value)), "k").clone();
    let nan = with(id::F32, &f32::NAN.to_le_bytes());
    assert_eq!(nan, json!("NaN"));
    assert_eq!(with(id::F64, &f64::NEG_INFINITY.to_le_bytes()), json!("-inf"));
    let [a, b] = [b"a\xFF", b"a\xFE"].map(|text| with(id::STRING, &string(text)));
    assert_eq!([&a["first"], &b["first"]], [&json!("a\u{FFFD}"); 2], "the same to read");
    assert_ne!(a, b, "but not equal");
    assert_eq!(with(id::ARRAY, &array(id::F32, 0, &[])), json!([]));
    let long = |last: u8| {
        let mut elements = vec![0; 16];
        elements.push(last);
        with(id::ARRAY, &array(id::U8, 17, &elements))
    };
    assert_ne!(long(1), long(2));
}

#[test]
fn tensors_as_gguf_py_lists_them() {
    let model = model::open(&data("values.gguf")).expect("gguf-py's file");
    assert_eq!(model.format, Format::Gguf);
    // Name, shape, type, offset in the file and bytes as gguf-py's reader prints them.
    #[rustfmt::skip]
    let expected: [(&str, &[u64], TensorType, u64, u64); 5] = [
        ("blocks", &[2, 2, 64], TensorType::Q8_0, 8192, 272),
        ("cube", &[2, 3, 4], TensorType::F16, 8000, 48),
        ("integers", &[5], TensorType::I8, 8128, 5),
        ("matrix", &[2, 3], TensorType::F32, 7936, 24),
        ("one", &[1], TensorType::F32, 8064, 4),
    ];
    assert_eq!(model.tensors.len(), expected.len());
    for (tensor, (name, shape, ty, offset, len)) in model.tensors.iter().zip(expected) {
        assert_eq!((tensor.name.as_str(), tensor.shape.as_slice()), (name, shape));
        let at = Extent { file: 0, offset, len };
        assert_eq!(tensor.extent(), Some(at), "{name}");
        assert_eq!(tensor.qtype(), ty.name(), "{name}");
    }
    assert_eq!(values(&model, "matrix"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(values(&model, "cube"), (0u8..24).map(f32::from).collect::<Vec<_>>());
    // sha256sum of the first 7936 bytes.
    assert_eq!(model.files[0].header_sha256, HEADER_SHA256);
    assert!(model.notes.is_empty(), "{:?}", model.notes);
}

const HEADER_SHA256: &str = "8406538eabd4df0c1152998959d122dca9145c0639f970313a3830d587169f38";

#[test]
fn a_split_model_opens_from_any_shard_and_from_its_directory() {
    let shards: Vec<PathBuf> =
        (1..=3).map(|no| data(&format!("split-0000{no}-of-00003.gguf"))).collect();
    let directory = tempfile::tempdir().expect("a directory");
    for shard in &shards {
        let name = shard.file_name().expect("a name");
        std::fs::copy(shard, directory.path().join(name)).expect("copied");
    }
    // A projector beside the model is no second model.
    let projector = directory.path().join("mmproj-f16.gguf");
    std::fs::write(
        &projector,
        Gguf::new().text("general.architecture", "clip").f32("v", &[1], &[0.0]).bytes(),
    )
    .expect("written");
    for path in shards.iter().map(PathBuf::as_path).chain([directory.path()]) {
        let model = model::open(path).expect("all shards are there");
        let names: Vec<&str> = model.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["t0", "t1", "t2", "t3", "t4"], "{}", path.display());
        assert_eq!(values(&model, "t3"), [3.0; 16], "from the second file");
        assert_eq!(model.files.len(), 3);
        assert_eq!(metadata(&model, "general.name"), "five tensors in three shards");
        let split = model.metadata.iter().any(|(key, _)| key.starts_with("split."));
        assert!(!split, "how it is stored is no property of the model");
    }
}

#[test]
fn lawful_but_rare() {
    let scalar = Gguf::new().f32("s", &[], &[7.0]);
    let empty_last = Gguf::new().f32("a", &[1], &[1.0]).f32("z", &[0, 5], &[]);
    let mut second = Gguf::new().f32("a", &[1], &[1.0]);
    second.version = 2;
    let mut alone = Gguf::new();
    alone.alignment = 1;
    let mut wide = Gguf::new().u32("general.alignment", 1 << 12).f32("a", &[1], &[1.0]);
    wide.alignment = 1 << 12;
    let gap = Gguf::new().f32("a", &[1], &[1.0]).f32("b", &[17], &[2.0; 17]).offset(64);
    let reversed =
        Gguf::new().f32("b", &[1], &[1.0]).offset(64).f32("a", &[9], &[0.0; 9]).offset(0);
    let long = Gguf::new().f32(&"n".repeat(64), &[1], &[0.0]);
    let unknown = Gguf::new().f32("a", &[1], &[1.0]).tensor("u", &[8], 43, vec![0; 100]);
    // File, its tensors and their shapes, what a note says.
    #[rustfmt::skip]
    let cases: [(&str, Vec<u8>, &[(&str, &[u64])], Option<&str>); 10] = [
        ("a scalar of rank 0", scalar.bytes(), &[("s", &[])], None),
        ("an empty tensor after padding that is not there", empty_last.bytes(), &[("a", &[1]), ("z", &[0, 5])], None),
        ("version 2", second.bytes(), &[("a", &[1])], None),
        ("no tensors, no padding", alone.bytes(), &[], None),
        ("alignment 4096", wide.bytes(), &[("a", &[1])], None),
        ("a gap", [gap.bytes(), vec![0; 40]].concat(), &[("a", &[1]), ("b", &[17])], Some("1 gaps between tensors; the first, of 60 bytes, is before \"b\"")),
        ("bytes at the end", [scalar.bytes(), vec![0; 100]].concat(), &[("s", &[])], Some("72 bytes follow the last tensor")),
        ("another order of the data", reversed.bytes(), &[("a", &[9]), ("b", &[1])], None),
        ("a name of 64 bytes", long.bytes(), &[(&"n".repeat(64), &[1])], Some("longer than the 63 bytes")),
        ("a type of tomorrow", unknown.bytes(), &[("a", &[1]), ("u", &[8])], None),
    ];
    for (what, bytes, expected, note) in cases {
        let model = model::from_bytes(Path::new("m.gguf"), bytes);
        let model = model.unwrap_or_else(|e| panic!("{what}: {e}"));
        let tensors: Vec<(&str, &[u64])> =
            model.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())).collect();
        assert_eq!(tensors, expected, "{what}");
        match note {
            Some(note) => {
                assert!(model.notes.iter().any(|n| n.contains(note)), "{what}: {:?}", model.notes);
            }
            None => assert!(model.notes.is_empty(), "{what}: {:?}", model.notes),
        }
    }
}

#[test]
fn types_that_cannot_be_read_are_named_and_do_not_stop_the_others() {
    #[rustfmt::skip]
    let cases = [
        (4, "Q4_2", "was removed from ggml"),
        (31, "Q4_0_4_4", "was removed from ggml"),
        (43, "type 43", "is not known"),
        (97, "Q8_0_X4", "for activations in memory"),
        (142, "IQ2_TN", "was removed from ik_llama.cpp"),
        (251, "type 251", "ik_llama.cpp's row-interleaved types"),
        (1 << 31, "type 2147483648", "is not known"),
    ];
    for (ty, name, reason) in cases {
        let file = Gguf::new().tensor("bad", &[2, 32], ty, vec![0; 64]).f32("good", &[1], &[1.0]);
        let model = read(&file);
        let bad = tensor(&model, "bad");
        assert_eq!(bad.qtype(), name);
        let Storage::Undecodable { reason: said, .. } = &bad.storage else { panic!("{name}") };
        assert!(said.contains(reason) && said.contains(&ty.to_string()), "{said}");
        assert_eq!(values(&model, "good"), [1.0]);
        let mut out = [0.0; 64];
        let read = bad.decode(&model.files, 0..64, &mut Scratch::default(), &mut out);
        assert_eq!(&read.expect_err(name).to_string(), said);
    }
}

/// Two blocks of 64 values: every value of block `b` is `scale`.
fn nvfp4(scales: &[f32]) -> Vec<u8> {
    // UE4M3 0x38 is 1; the E2M1 codes 2, 4, 5, 7 are 1, 2, 3, 6.
    let code = |scale: f32| match scale as u8 {
        1 => 0x22,
        2 => 0x44,
        3 => 0x55,
        _ => 0x77,
    };
    scales.iter().flat_map(|&scale| [vec![0x38; 4], vec![code(scale); 32]].concat()).collect()
}

#[test]
fn nvfp4_weights_take_their_factors() {
    let blocks = |file: Gguf, name: &str, shape: &[u64], scales: &[f32]| {
        file.tensor(name, shape, id::TENSOR_NVFP4, nvfp4(scales))
    };
    let base = || blocks(Gguf::new(), "x.weight", &[2, 64], &[1.0, 2.0]);
    let experts = || blocks(Gguf::new(), "x.weight", &[2, 1, 64], &[1.0, 3.0]);
    // File, tensors left, stored bytes of x.weight, first value of each row, what a note says.
    #[rustfmt::skip]
    let cases: [(&str, Gguf, &[&str], u64, [f32; 2], Option<&str>); 9] = [
        ("no factor is a factor of 1", base(), &["x.weight"], 72, [1.0, 2.0], None),
        ("one factor", base().f32("x.scale", &[1], &[0.5]), &["x.weight"], 76, [0.5, 1.0], None),
        ("a scalar factor", base().f32("x.scale", &[], &[0.5]), &["x.weight"], 76, [0.5, 1.0], None),
        ("the other name", base().f32("x.weight.scale", &[1], &[0.5]), &["x.weight"], 76, [0.5, 1.0], None),
        ("one for each expert", experts().f32("x.scale", &[2], &[0.5, -2.0]), &["x.weight"], 80, [0.5, -6.0], None),
        ("one for all experts", experts().f32("x.scale", &[1], &[0.5]), &["x.weight"], 76, [0.5, 1.5], None),
        ("activations have a scale too", base().f32("x.input_scale", &[1], &[9.0]), &["x.weight"], 72, [1.0, 2.0], None),
        ("a factor for each row is something else", base().f32("x.scale", &[2], &[0.5, 0.5]), &["x.scale", "x.weight"], 72, [1.0, 2.0], Some("\"x.scale\" is not an F32 factor")),
        ("an F16 factor is something else", base().tensor("x.scale", &[1], id::TENSOR_F16, vec![0; 2]), &["x.scale", "x.weight"], 72, [1.0, 2.0], Some("is not an F32 factor")),
    ];
    for (what, file, names, bytes, expected, note) in cases {
        let model = read(&file);
        let found: Vec<&str> = model.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(found, names, "{what}");
        let weight = tensor(&model, "x.weight");
        assert_eq!((weight.qtype(), weight.stored_bytes()), ("NVFP4", bytes), "{what}");
        let values = values(&model, "x.weight");
        assert_eq!(values[..64], [expected[0]; 64], "{what}");
        assert_eq!(values[64..], [expected[1]; 64], "{what}");
        let mut middle = [f32::NAN; 64];
        weight.decode(&model.files, 32..96, &mut Scratch::default(), &mut middle).expect("decodes");
        assert_eq!(middle[..], values[32..96], "{what}: a range across blocks and experts");
        assert_eq!(
            model.notes.iter().any(|n| n.contains(note.unwrap_or(""))),
            note.is_some(),
            "{what}: {:?}",
            model.notes
        );
    }
    // Scales that are zero or not finite, of the weight or of its activations.
    let zero = base().f32("x.scale", &[1], &[0.0]).f32("x.input_scale", &[1], &[f32::INFINITY]);
    let model = read(&zero);
    let Storage::Joined(weight) = &tensor(&model, "x.weight").storage else { panic!("joined") };
    let found = weight.check_planes(&model.files, &mut Scratch::default()).expect("readable");
    let faults: Vec<_> = found.iter().map(|f| (f.plane.as_str(), f.fault)).collect();
    let expected = [("x.scale", PlaneFault::Zero), ("x.input_scale", PlaneFault::NonFinite)];
    assert_eq!(faults, expected);
    assert_eq!(weight.activation_planes()[0].name, "x.input_scale");
    let other = Gguf::new().tensor("x.weight", &[32], id::TENSOR_Q8_0, vec![0; 34]);
    let model = read(&other.f32("x.scale", &[1], &[0.5]).f32("x.input_scale", &[1], &[0.5]));
    assert_eq!(model.tensors.len(), 3, "beside another type it is an ordinary tensor");
}

#[test]
fn importance_matrices() {
    let read = |file: &[u8]| {
        let model = model::from_bytes(Path::new("m"), file.to_vec()).expect("sound");
        model::imatrix::from_model(&model).map_err(|error| error.to_string())
    };
    let matrix = || Gguf::new().text("general.type", "imatrix");
    let sums = |file: Gguf, shape: &[u64], values: &[f32]| file.f32("w.in_sum2", shape, values);
    let counts =
        |file: Gguf, values: &[f32]| file.f32("w.counts", &[values.len() as u64, 1], values);
    #[rustfmt::skip]
    let right: [(&str, Vec<u8>, &[f32]); 5] = [
        ("one row", counts(sums(matrix(), &[1, 3], &[2.0, 4.0, 0.0]), &[2.0]).bytes(), &[1.0, 2.0, 0.0]),
        ("a row for each expert, one never used", counts(sums(matrix(), &[2, 2], &[2.0, 4.0, 0.0, 0.0]), &[4.0, 0.0]).bytes(), &[0.5, 1.0, 1.0, 1.0]),
        ("sums of plain activations are left out", counts(sums(matrix(), &[1, 1], &[8.0]), &[2.0]).f32("w.in_sum", &[1, 1], &[-3.0]).bytes(), &[4.0]),
        ("flat GGUF", Gguf::new().f32("w", &[2], &[0.25, 3.0]).bytes(), &[0.25, 3.0]),
        ("flat safetensors", forge::safetensors_raw(54, br#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, &f32s(&[0.25, 3.0])), &[0.25, 3.0]),
    ];
    for (what, file, expected) in &right {
        let weights = read(file).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(weights.len(), 1, "{what}");
        assert_eq!(weights["w"], *expected, "{what}");
    }
    #[rustfmt::skip]
    let wrong = [
        ("sums without counts", sums(matrix(), &[1, 3], &[2.0; 3]).bytes(), "there is no w.counts"),
        ("counts without sums", counts(matrix(), &[2.0]).bytes(), "there is no w.in_sum2"),
        ("two counts for one row", counts(sums(matrix(), &[1, 4], &[2.0; 4]), &[2.0, 2.0]).bytes(), "does not have one row for each of the 2 counts"),
        ("nothing", matrix().bytes(), "holds no importance matrix"),
        ("a negative sum", counts(sums(matrix(), &[1, 2], &[2.0, -1.0]), &[2.0]).bytes(), "tensor \"w.in_sum2\": value 1 is -1"),
        ("NaN", Gguf::new().f32("w", &[2], &[0.25, f32::NAN]).bytes(), "value 1 is NaN"),
        ("an infinite count", counts(sums(matrix(), &[1, 1], &[2.0]), &[f32::INFINITY]).bytes(), "tensor \"w.counts\": value 0 is inf"),
        ("quotient beyond f32", counts(sums(matrix(), &[1, 1], &[3e38]), &[1e-9]).bytes(), "value 0 is inf"),
        ("blocks", Gguf::new().tensor("w", &[32], id::TENSOR_Q8_0, vec![0; 34]).bytes(), "is stored as Q8_0"),
    ];
    for (what, file, expected) in &wrong {
        let error = read(file).expect_err(what);
        assert!(error.contains(expected), "{what}: {error}");
    }
    let old = model::imatrix::read(Path::new("imatrix.dat")).expect_err("the old format");
    assert!(old.to_string().contains("--output-format gguf"), "{old}");
}
