/*!
Quantized safetensors checkpoints as their own tools write them, against the values that those tools
(or, where a tool computes in a narrower type, its formula in f32) decode them to.
*/

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use qualm::model::{self, Model, PlaneFault, PlaneFinding, Scratch, Storage, Tensor, hex, scheme};
use serde_json::Value;
use sha2::{Digest, Sha256};

mod forge;

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/schemes");
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir());
    cases.sort();
    assert_eq!(cases.len(), 70);
    cases
}

fn expected(case: &Path) -> BTreeMap<String, Value> {
    let text = std::fs::read(case.join("expected.json")).unwrap();
    let value: Value = serde_json::from_slice(&text).unwrap();
    serde_json::from_value(value["tensors"].clone()).unwrap()
}

fn decode(model: &Model, tensor: &Tensor, range: Range<u64>, scratch: &mut Scratch) -> Vec<f32> {
    let mut values = vec![f32::NAN; (range.end - range.start) as usize];
    tensor.decode(&model.files, range, scratch, &mut values).unwrap();
    values
}

fn sha256(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    hex(&Sha256::digest(bytes))
}

/// Whether these are the values that a decode in f32 must give: where zeros are negative on one side
/// alone, all are made positive.
fn decodes_to(values: &[f32], expected: &Value) -> bool {
    let formula = &expected["f32_formula"];
    let of = if formula["dequantized_f32_sha256"].is_string() { formula } else { expected };
    let positive = || sha256(&values.iter().map(|value| value + 0.0).collect::<Vec<f32>>());
    let all = of["dequantized_f32_sha256"].as_str().unwrap();
    let without = of["dequantized_f32_sha256_no_negative_zero"].as_str();
    sha256(values) == all || positive() == without.unwrap_or(all)
}

/// Opens a case as it would be compared: what is padded is cut to the shape of the reference, which
/// stands in the expectations.
fn open(case: &Path) -> Model {
    let mut model = model::open(case).unwrap();
    let reference = expected(case).into_iter().map(|(name, expected)| Tensor {
        name,
        shape: serde_json::from_value(expected["shape"].clone()).unwrap(),
        storage: Storage::Undecodable {
            what: "F32".to_owned(),
            reason: "only its shape is known".to_owned(),
            at: None,
        },
    });
    let reference = Model { tensors: reference.collect(), ..model.clone() };
    scheme::align(&reference, &mut model);
    model
}

#[test]
fn every_case_decodes_to_the_published_values() {
    let mut wrong = Vec::new();
    for case in cases() {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let model = open(&case);
        let by_name = model.by_name();
        let expected = expected(&case);
        for finding in &model.findings {
            wrong.push(format!("{name}: {finding:?}"));
        }
        for tensor in &model.tensors {
            if !expected.contains_key(&tensor.name) && !tensor.name.ends_with("_bias") {
                wrong.push(format!("{name}: {} {} is left over", tensor.name, tensor.qtype()));
            }
        }
        for (tensor_name, expected) in &expected {
            let Some(&index) = by_name.get(tensor_name.as_str()) else {
                wrong.push(format!("{name}: {tensor_name} is missing"));
                continue;
            };
            let tensor = &model.tensors[index];
            let shape: Vec<u64> = serde_json::from_value(expected["shape"].clone()).unwrap();
            let known = match &tensor.storage {
                Storage::Joined(weight) => weight.shape_is_known(),
                Storage::Plain { .. } => true,
                Storage::Undecodable { reason, .. } => {
                    wrong.push(format!("{name}: {tensor_name}: {reason}"));
                    continue;
                }
            };
            if known && tensor.shape != shape {
                wrong.push(format!("{name}: {tensor_name} has shape {:?}", tensor.shape));
                continue;
            }
            let values = decode(&model, tensor, 0..tensor.numel(), &mut Scratch::default());
            if !decodes_to(&values, expected) {
                wrong.push(format!("{name}: {tensor_name} {} has other values", tensor.qtype()));
            }
            if let Storage::Joined(weight) = &tensor.storage {
                let found = weight.check_planes(&model.files, &mut Scratch::default()).unwrap();
                // The tool that wrote this one lowers packed zero points a word at a time.
                let borrows = |it: &PlaneFinding| it.fault == PlaneFault::Borrowed;
                if !found.iter().all(|it| name == "gptq-2bit" && borrows(it)) {
                    wrong.push(format!("{name}: {found:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A pseudo-random sequence, the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end.max(1)
    }
}

#[test]
fn every_range_decodes_to_its_part_of_the_whole() {
    let mut random = Random(7);
    for case in cases() {
        let model = open(&case);
        // One scratch for all, as a thread has: tiles and buffers of one weight must not leak into
        // another.
        let mut scratch = Scratch::default();
        for tensor in model.tensors.iter().filter(|t| matches!(t.storage, Storage::Joined(_))) {
            let numel = tensor.numel();
            let whole = decode(&model, tensor, 0..numel, &mut Scratch::default());
            let mut ranges = Vec::new();
            let mut start = 0;
            while start < numel {
                let longest = [1, 40, 700, 5000][random.below(4) as usize];
                let end = (start + 1 + random.below(longest)).min(numel);
                ranges.push(start..end);
                start = end;
            }
            // In order, as the engine asks, and then some out of order.
            for _ in 0..20 {
                let start = random.below(numel);
                ranges.push(start..start + random.below(numel - start) + 1);
            }
            for range in ranges {
                let part = decode(&model, tensor, range.clone(), &mut scratch);
                let expected = &whole[range.start as usize..range.end as usize];
                let same = part.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{}: {} {range:?}", case.display(), tensor.name);
            }
        }
    }
}

/// A checkpoint's own description of a tensor, with its bytes.
#[derive(Clone, Debug)]
struct Stored {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    data: Vec<u8>,
}

fn stored(file: &Path) -> Vec<Stored> {
    let bytes = std::fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let data = &bytes[8 + length..];
    header
        .into_iter()
        .filter(|(name, _)| name != "__metadata__")
        .map(|(name, entry)| {
            let [begin, end]: [usize; 2] =
                serde_json::from_value(entry["data_offsets"].clone()).unwrap();
            Stored {
                name,
                dtype: entry["dtype"].as_str().unwrap().to_owned(),
                shape: serde_json::from_value(entry["shape"].clone()).unwrap(),
                data: data[begin..end].to_vec(),
            }
        })
        .collect()
}

fn write(tensors: &[Stored]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for tensor in tensors {
        let begin = data.len();
        data.extend(&tensor.data);
        let offsets = [begin, data.len()];
        let entry = serde_json::json!({
            "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets,
        });
        header.insert(tensor.name.clone(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    forge::safetensors_raw(header.len() as u64, &header, &data)
}

const DTYPES: &[(&str, u64)] = &[
    ("U8", 1),
    ("I8", 1),
    ("I16", 2),
    ("I32", 4),
    ("U32", 4),
    ("I64", 8),
    ("F32", 4),
    ("F16", 2),
    ("BF16", 2),
    ("F8_E4M3", 1),
    ("F8_E8M0", 1),
    ("BOOL", 1),
];

/// Puts one fault into one plane: it stays a well-formed safetensors file.
fn damage(tensors: &mut Vec<Stored>, random: &mut Random) {
    let index = random.below(tensors.len() as u64) as usize;
    let tensor = &mut tensors[index];
    let dimension = random.below(tensor.shape.len() as u64) as usize;
    match random.below(6) {
        0 => {
            tensors.remove(index);
            return;
        }
        1 => {
            let (dtype, _) = DTYPES[random.below(DTYPES.len() as u64) as usize];
            dtype.clone_into(&mut tensor.dtype);
        }
        2 => tensor.shape.insert(dimension, [0, 1, 2, 7][random.below(4) as usize]),
        3 if !tensor.shape.is_empty() => {
            tensor.shape.remove(dimension);
        }
        _ if !tensor.shape.is_empty() => {
            let extent = tensor.shape[dimension];
            let options = [0, 1, extent / 2, extent.saturating_sub(1), extent + 1, extent * 2];
            tensor.shape[dimension] = options[random.below(6) as usize];
        }
        _ => {}
    }
    let width =
        DTYPES.iter().find(|(name, _)| *name == tensor.dtype).map_or(1, |(_, width)| *width);
    let len = tensor.shape.iter().product::<u64>() * width;
    let fill = [0, 0xFF, random.below(256) as u8][random.below(3) as usize];
    if random.below(2) == 0 {
        tensor.data = vec![fill; len as usize];
    }
    tensor.data.resize(len as usize, fill);
}

#[test]
fn damaged_planes_are_errors_or_findings_and_never_a_panic() {
    let mut random = Random(11);
    let mut faults = 0;
    for case in cases() {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(&case).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "safetensors"));
        files.retain(|file| !file.ends_with("reference.safetensors"));
        files.sort();
        let original: Vec<Stored> = files.iter().flat_map(|file| stored(file)).collect();
        let directory = tempfile::tempdir().unwrap();
        if random.below(2) == 0 && case.join("config.json").exists() {
            let to = directory.path().join("config.json");
            std::fs::copy(case.join("config.json"), to).unwrap();
        }
        for _ in 0..20 {
            let mut tensors = original.clone();
            for _ in 0..=random.below(2) {
                damage(&mut tensors, &mut random);
            }
            let path = directory.path().join("model.safetensors");
            std::fs::write(&path, write(&tensors)).unwrap();
            let model = model::open(&path).unwrap();
            let mut scratch = Scratch::default();
            faults += model.findings.len();
            for tensor in &model.tensors {
                let numel = tensor.numel().min(100_000);
                let mut values = vec![0.0; numel as usize];
                let start = random.below(numel);
                let range = start..numel;
                let part = &mut values[start as usize..];
                let _ = tensor.decode(&model.files, range, &mut scratch, part);
                if let Storage::Joined(weight) = &tensor.storage {
                    let _ = weight.check_planes(&model.files, &mut scratch);
                }
            }
        }
    }
    assert!(faults > 250, "{faults}");
}

#[test]
fn a_header_length_that_looks_like_a_pickle_is_none() {
    let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    let header = format!("{header}{}", " ".repeat(640 - header.len()));
    let model = model::from_bytes(Path::new("model"), forge::safetensors(&header, 1)).unwrap();
    assert_eq!(model.tensors.len(), 1);
}

/// A model of the given planes: name, dtype, shape, bytes.
fn forged(planes: &[(&str, &str, &[u64], Vec<u8>)]) -> Model {
    let tensors: Vec<Stored> = planes
        .iter()
        .map(|(name, dtype, shape, data)| Stored {
            name: (*name).to_owned(),
            dtype: (*dtype).to_owned(),
            shape: shape.to_vec(),
            data: data.clone(),
        })
        .collect();
    model::from_bytes(Path::new("forged"), write(&tensors)).unwrap()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn i32s(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn layouts_without_a_published_case_follow_their_formula() {
    let one = |planes: &[(&str, &str, &[u64], Vec<u8>)]| {
        let model = forged(planes);
        assert_eq!(model.findings, [], "{}", planes[0].0);
        assert_eq!(model.tensors.len(), 1, "{:?}", model.tensors);
        let tensor = &model.tensors[0];
        let values = decode(&model, tensor, 0..tensor.numel(), &mut Scratch::default());
        (tensor.name.clone(), tensor.qtype().to_owned(), tensor.shape.clone(), values)
    };
    let expected = |name: &str, qtype: &str, shape: &[u64], values: &[f32]| {
        (name.to_owned(), qtype.to_owned(), shape.to_vec(), values.to_vec())
    };
    assert_eq!(
        one(&[
            ("x.experts.down_proj", "F8_E4M3", &[2, 1, 2], vec![0x38, 0x40, 0xB8, 0x30]),
            ("x.experts.down_proj_scale_inv", "F32", &[2, 1, 1], f32s(&[3.0, 5.0])),
        ]),
        expected("x.experts.down_proj", "FP8", &[2, 1, 2], &[3.0, 6.0, -5.0, 2.5]),
        "fused experts: suffixes on the weight's own name"
    );
    assert_eq!(
        one(&[
            ("x.weight", "F8_E4M3", &[1, 2], vec![0x38, 0x40]),
            ("x.weight_scale_inv", "U8", &[1, 1], vec![128]),
        ]),
        expected("x.weight", "FP8", &[1, 2], &[2.0, 4.0]),
        "bytes as scales are exponents"
    );
    assert_eq!(
        one(&[
            ("x.weight", "U8", &[1, 2], vec![0b10_01_00_10, 0b00_00_01_01]),
            ("x.weight_scale", "F32", &[1], f32s(&[4.0])),
        ]),
        expected("x.weight", "BITNET", &[4, 2], &[0.25, 0.0, -0.25, 0.0, 0.0, -0.25, 0.25, -0.25]),
        "BitNet: a quarter of the rows in each pair of bits, divided by the scale"
    );
    assert_eq!(
        one(&[
            ("x.weight", "I8", &[2, 3], vec![1, 2, 3, 0xFF, 0xFE, 0xFD]),
            ("x.weight_scales", "F32", &[3], f32s(&[1.0, 10.0, 100.0])),
        ]),
        expected("x.weight", "INT8", &[3, 2], &[1.0, -1.0, 20.0, -20.0, 300.0, -300.0]),
        "EETQ: inputs as rows"
    );
    assert_eq!(
        one(&[
            ("x.weight", "U8", &[1, 2], vec![7, 3]),
            ("x.weight_scale", "F32", &[1], f32s(&[2.0])),
            ("x.weight_zero_point", "U8", &[1], vec![5]),
        ]),
        expected("x.weight", "INT8", &[1, 2], &[4.0, -4.0]),
        "unsigned bytes with zero points"
    );
    assert_eq!(
        one(&[
            ("x.weight_packed", "I32", &[2, 1], i32s(&[0x7654_3210, -1])),
            ("x.weight_scale", "F32", &[2, 1], f32s(&[1.0, 2.0])),
            (
                "x.weight_shape",
                "I64",
                &[2],
                [2u64, 8].iter().flat_map(|n| n.to_le_bytes()).collect()
            ),
            ("x.weight_zero_point", "I8", &[2, 1], vec![0xFF, 2]),
        ])
        .3[6..10],
        [-1.0, 0.0, 10.0, 10.0],
        "compressed-tensors before 0.10: zero points as plain bytes"
    );
    assert_eq!(
        one(&[
            ("x.weight", "U32", &[1, 2], i32s(&[0x2222_2222, 0x4444_4444])),
            ("x.scales", "U8", &[1, 1], vec![0x38]),
            ("x.global_scale", "F32", &[1], f32s(&[2688.0])),
        ]),
        expected(
            "x.weight",
            "NVFP4",
            &[1, 16],
            &[1., 1., 1., 1., 1., 1., 1., 1., 2., 2., 2., 2., 2., 2., 2., 2.]
        ),
        "MLX nvfp4: the global scale is the largest magnitude, 448 * 6 where it changes nothing"
    );
}

#[test]
fn planes_that_do_not_fit_are_findings_that_name_them() {
    use PlaneFault::{Extra, Missing, NonFinite, Shape, Zero};
    let codes = ("x.weight", "F8_E4M3", &[2u64, 2][..], vec![0x38; 4]);
    let gptq = |index: [i32; 32]| {
        vec![
            ("x.qweight", "I32", &[4u64, 8][..], i32s(&[0; 32])),
            ("x.qzeros", "I32", &[2, 1], i32s(&[0x7777_7777; 2])),
            ("x.scales", "F32", &[2, 8], f32s(&[1.0; 16])),
            ("x.g_idx", "I32", &[32], i32s(&index)),
        ]
    };
    for (planes, fault, plane, why) in [
        (
            vec![codes.clone(), ("x.weight_scale", "F32", &[3, 1], f32s(&[1.0; 3]))],
            Some(Shape),
            "x.weight_scale",
            "three scales for two rows",
        ),
        (
            vec![codes.clone(), ("x.weight_scale", "F32", &[2, 1], f32s(&[0.0; 2]))],
            Some(Zero),
            "x.weight_scale",
            "all scales are zero",
        ),
        (
            vec![codes.clone(), ("x.weight_scale", "F32", &[2, 1], f32s(&[0.0, 1.0]))],
            None,
            "",
            "one row of zeros is no fault",
        ),
        (
            vec![codes.clone(), ("x.weight_scale", "F32", &[2, 1], f32s(&[1.0, f32::NAN]))],
            Some(NonFinite),
            "x.weight_scale",
            "a scale is NaN",
        ),
        (
            vec![codes.clone(), ("x.input_scale", "F32", &[], f32s(&[1.0]))],
            Some(Missing),
            "x.weight_scale",
            "activations have a scale, the weight has none",
        ),
        (vec![codes.clone()], None, "", "a plain cast is complete"),
        (
            vec![
                ("x.weight", "F32", &[2, 2], f32s(&[1.0; 4])),
                ("x.weight_scale", "F32", &[2, 1], f32s(&[1.0; 2])),
            ],
            Some(Extra),
            "x.weight_scale",
            "a scale beside a weight that is not quantized",
        ),
        (
            vec![("x.weight_scale", "F32", &[2, 1], f32s(&[1.0; 2]))],
            Some(Extra),
            "x.weight_scale",
            "a scale without a weight",
        ),
        (
            vec![
                ("x.weight", "U8", &[2, 8], vec![0; 16]),
                ("x.weight_scale", "F8_E4M3", &[2, 1], vec![0x38; 2]),
            ],
            Some(Missing),
            "x.weight_scale_2",
            "NVFP4 without the tensor's scale",
        ),
        (gptq([0; 32]), Some(Zero), "x.g_idx", "an index that was never filled in"),
    ] {
        let model = forged(&planes);
        let mut found: Vec<(PlaneFault, String)> =
            model.findings.iter().map(|finding| (finding.fault, finding.plane.clone())).collect();
        for tensor in &model.tensors {
            if let Storage::Joined(weight) = &tensor.storage {
                let planes = weight.check_planes(&model.files, &mut Scratch::default()).unwrap();
                found.extend(planes.into_iter().map(|finding| (finding.fault, finding.plane)));
            }
        }
        let expected: Vec<_> = fault.map(|fault| (fault, plane.to_owned())).into_iter().collect();
        assert_eq!(found, expected, "{why}");
    }
    let mut index = [0; 32];
    index[31] = 2;
    let model = forged(&gptq(index));
    let mut values = vec![0.0; 256];
    let error = model.tensors[0].decode(&model.files, 0..256, &mut Scratch::default(), &mut values);
    let message = error.unwrap_err().to_string();
    assert!(message.contains("column 31 to group 2"), "{message}");
}

#[test]
fn what_is_not_decoded_is_refused_by_name() {
    let i16s = |len: usize| vec![0; len * 2];
    for (planes, what, word) in [
        (
            vec![
                ("x.Qidxs", "I64", &[8u64, 2][..], vec![0; 128]),
                ("x.SU", "F16", &[8], i16s(8)),
                ("x.SV", "F16", &[8], i16s(8)),
            ],
            "QUIP#",
            "quip-sharp",
        ),
        (
            vec![
                ("x.trellis", "I16", &[1, 16], i16s(16)),
                ("x.SU", "F16", &[8], i16s(8)),
                ("x.SV", "F16", &[8], i16s(8)),
            ],
            "QTIP",
            "qtip",
        ),
        (
            vec![
                ("x.weight", "U8", &[8, 8], vec![0; 64]),
                ("x.scales", "F16", &[8, 1], i16s(8)),
                ("x.tables", "F16", &[256, 2], i16s(512)),
            ],
            "HIGGS",
            "dequantize()",
        ),
        (
            vec![
                ("x.dense_weights", "I32", &[8], vec![0; 32]),
                ("x.row_offsets", "I32", &[3], vec![0; 12]),
            ],
            "SPQR",
            "spqr",
        ),
        (
            vec![
                ("x.qweight", "U8", &[8, 8], vec![0; 64]),
                ("x.scales", "U8", &[8, 1], vec![0; 8]),
                ("x.forward_hadamard_matrix", "F16", &[2, 2], i16s(4)),
            ],
            "FP-QUANT",
            "rotated",
        ),
        (
            vec![
                ("x.qweight", "I16", &[8, 8], vec![0; 128]),
                ("x.scales", "F16", &[1, 8], vec![0; 16]),
            ],
            "AWQ (gemv_fast)",
            "export it with version gemm",
        ),
        (
            vec![
                ("x.weight", "U8", &[2, 8], vec![0; 16]),
                ("x.weight_scale", "F32", &[5, 1], vec![0; 20]),
            ],
            "unknown",
            ".weight U8 [2, 8], .weight_scale F32 [5, 1]",
        ),
    ] {
        let model = forged(&planes);
        assert_eq!(model.tensors.len(), 1, "{what}");
        assert_eq!(model.tensors[0].qtype(), what);
        let Storage::Undecodable { reason, .. } = &model.tensors[0].storage else {
            panic!("{what} is decoded")
        };
        assert!(reason.contains(word), "{reason}");
    }
}

#[test]
fn experts_meet_the_reference_layout() {
    // Two experts, three hidden, two wide: gate and up [2, 3], down [3, 2].
    let value = |kind: u64, expert: u64, row: u64, col: u64| {
        (kind * 1000 + expert * 100 + row * 10 + col) as f32
    };
    let matrix = |kind, expert, (rows, cols): (u64, u64)| -> Vec<f32> {
        (0..rows).flat_map(|row| (0..cols).map(move |col| value(kind, expert, row, col))).collect()
    };
    let turned = |kind, expert, (rows, cols): (u64, u64)| -> Vec<f32> {
        (0..cols).flat_map(|col| (0..rows).map(move |row| value(kind, expert, row, col))).collect()
    };
    let singles = |names: [&str; 3]| -> Model {
        let mut planes = Vec::new();
        for expert in 0..2 {
            for (kind, name) in names.iter().enumerate() {
                let size = if kind == 2 { (3, 2) } else { (2, 3) };
                let name = format!("m.experts.{expert}.{name}.weight");
                planes.push((name, vec![size.0, size.1], f32s(&matrix(kind as u64, expert, size))));
            }
        }
        let planes: Vec<(&str, &str, &[u64], Vec<u8>)> = planes
            .iter()
            .map(|(name, shape, data)| (&**name, "F32", &**shape, data.clone()))
            .collect();
        forged(&planes)
    };
    let stack = |rows: &dyn Fn(u64) -> Vec<f32>| f32s(&[rows(0), rows(1)].concat());
    let fused = forged(&[
        (
            "m.experts.gate_up_proj",
            "F32",
            &[2, 4, 3],
            stack(&|e| [matrix(0, e, (2, 3)), matrix(1, e, (2, 3))].concat()),
        ),
        ("m.experts.down_proj", "F32", &[2, 3, 2], stack(&|e| matrix(2, e, (3, 2)))),
    ]);
    let side_by_side = |e| -> Vec<f32> {
        let (gate, up) = (turned(0, e, (2, 3)), turned(1, e, (2, 3)));
        gate.chunks(2).zip(up.chunks(2)).flat_map(|(gate, up)| [gate, up].concat()).collect()
    };
    let fused_turned = forged(&[
        ("m.experts.gate_up_proj", "F32", &[2, 3, 4], stack(&side_by_side)),
        ("m.experts.down_proj", "F32", &[2, 2, 3], stack(&|e| turned(2, e, (3, 2)))),
    ]);
    let interleave = |e| -> Vec<f32> {
        let (gate, up) = (turned(0, e, (2, 3)), turned(1, e, (2, 3)));
        gate.iter().zip(&up).flat_map(|(gate, up)| [*gate, *up]).collect()
    };
    let gpt_oss = forged(&[
        ("m.experts.gate_up_proj", "F32", &[2, 3, 4], stack(&interleave)),
        ("m.experts.gate_up_proj_bias", "F32", &[2, 4], f32s(&[0.0; 8])),
        ("m.experts.down_proj", "F32", &[2, 2, 3], stack(&|e| turned(2, e, (3, 2)))),
    ]);
    let mlx = forged(&[
        ("m.switch_mlp.gate_proj.weight", "F32", &[2, 2, 3], stack(&|e| matrix(0, e, (2, 3)))),
        ("m.switch_mlp.up_proj.weight", "F32", &[2, 2, 3], stack(&|e| matrix(1, e, (2, 3)))),
        ("m.switch_mlp.down_proj.weight", "F32", &[2, 3, 2], stack(&|e| matrix(2, e, (3, 2)))),
    ]);
    let models = [
        ("single", singles(["gate_proj", "up_proj", "down_proj"])),
        ("mixtral", singles(["w1", "w3", "w2"])),
        ("fused", fused),
        ("turned", fused_turned),
        ("gpt-oss", gpt_oss),
        ("mlx", mlx),
    ];
    for (reference_name, reference) in &models {
        for (name, quantized) in &models {
            if *reference_name == "gpt-oss" || name == reference_name {
                continue;
            }
            if (*reference_name, *name) == ("turned", "gpt-oss") {
                continue; // The same names and shapes: nothing says that they differ.
            }
            let bytes: Vec<Tensor> = quantized.tensors.clone();
            let mut aligned = forged(&[]);
            aligned.tensors = bytes;
            aligned.files = vec![reopen(quantized)];
            let notes = scheme::align(reference, &mut aligned);
            let case = format!("{reference_name} from {name}");
            assert_eq!(notes.len(), 1, "{case}");
            for tensor in &reference.tensors {
                let index = aligned.by_name()[tensor.name.as_str()];
                let (own, other) = (tensor, &aligned.tensors[index]);
                assert_eq!(own.shape, other.shape, "{case}: {}", own.name);
                let expected = decode(reference, own, 0..own.numel(), &mut Scratch::default());
                let mut scratch = Scratch::default();
                assert_eq!(
                    decode(&aligned, other, 0..own.numel(), &mut scratch),
                    expected,
                    "{case}"
                );
                let tail = 5..own.numel();
                let part = decode(&aligned, other, tail, &mut scratch);
                assert_eq!(part, expected[5..], "{case}");
            }
        }
    }
}

/// The file of a forged model once more.
fn reopen(model: &Model) -> qualm::model::SourceFile {
    let mut bytes = vec![0; model.files[0].len as usize];
    model.files[0].read_at(0, &mut bytes).unwrap();
    qualm::model::SourceFile::from_bytes(Path::new("forged"), bytes)
}

#[test]
fn folded_scales_are_found_and_taken_out() {
    // Weights with a quantization error of one percent, so that a fold does not make them exact.
    let (rows, cols) = (12u64, 16u64);
    let mut random = Random(3);
    let mut noise = |len: u64| -> Vec<f32> {
        (0..len).map(|_| random.below(2001) as f32 / 1000.0 - 1.0).collect()
    };
    let matrices: Vec<Vec<f32>> = (0..4).map(|_| noise(rows * cols)).collect();
    let errors: Vec<Vec<f32>> = (0..4).map(|_| noise(rows * cols)).collect();
    let norm: Vec<f32> = noise(cols).iter().map(|value| value.abs() + 0.5).collect();
    let by_column: Vec<f32> = noise(cols).iter().map(|value| (value * 1.2).exp()).collect();
    let by_row: Vec<f32> = noise(rows).iter().map(|value| (value * 1.2).exp()).collect();
    let names = ["q_proj", "k_proj", "o_proj", "gate_proj"];
    let build = |plus_one: f32, fold: bool| -> Model {
        let s = |i: usize| if fold { by_column[i % cols as usize] } else { 1.0 };
        let error = if fold { 0.01 } else { 0.0 };
        let norm: Vec<f32> = norm
            .iter()
            .enumerate()
            .map(|(i, value)| (value + plus_one) / s(i) - plus_one)
            .collect();
        let mut planes = vec![
            ("l.0.input_layernorm.weight".to_owned(), vec![cols], f32s(&norm)),
            ("l.0.post_attention_layernorm.weight".to_owned(), vec![cols], f32s(&noise_free(cols))),
        ];
        for (i, name) in names.iter().enumerate() {
            let folded = i < 2;
            let values: Vec<f32> = matrices[i]
                .iter()
                .zip(&errors[i])
                .enumerate()
                .map(|(at, (value, e))| (value + e * error) * if folded { s(at) } else { 1.0 })
                .collect();
            let part = if *name == "gate_proj" { "mlp" } else { "self_attn" };
            planes.push((format!("l.0.{part}.{name}.weight"), vec![rows, cols], f32s(&values)));
        }
        let r = |row: usize| if fold { by_row[row] } else { 1.0 };
        let up: Vec<f32> =
            (0..rows * cols).map(|i| matrices[1][i as usize] / r((i / cols) as usize)).collect();
        let down: Vec<f32> =
            (0..rows * cols).map(|i| matrices[2][i as usize] * r((i % rows) as usize)).collect();
        planes.push(("l.0.mlp.up_proj.weight".to_owned(), vec![rows, cols], f32s(&up)));
        planes.push(("l.0.mlp.down_proj.weight".to_owned(), vec![cols, rows], f32s(&down)));
        let planes: Vec<(&str, &str, &[u64], Vec<u8>)> = planes
            .iter()
            .map(|(name, shape, data)| (&**name, "F32", &**shape, data.clone()))
            .collect();
        forged(&planes)
    };
    for plus_one in [0.0, 1.0] {
        let reference = build(plus_one, false);
        let mut quantized = build(plus_one, true);
        assert!(
            scheme::folds(&reference, &reference, &str::to_owned).unwrap().is_empty(),
            "nothing is folded"
        );
        let folds = scheme::folds(&reference, &quantized, &str::to_owned).unwrap();
        let found: Vec<(&str, Vec<&str>)> = folds
            .iter()
            .map(|fold| (&*fold.producer, fold.consumers.iter().map(|name| &**name).collect()))
            .collect();
        let expected = [
            (
                "l.0.input_layernorm.weight",
                vec!["l.0.self_attn.k_proj.weight", "l.0.self_attn.q_proj.weight"],
            ),
            ("l.0.mlp.up_proj.weight", vec!["l.0.mlp.down_proj.weight"]),
        ];
        assert_eq!(found, expected, "{plus_one}");
        scheme::unfold(&mut quantized, &folds, &str::to_owned);
        for (own, other) in reference.tensors.iter().zip(&quantized.tensors) {
            let mut scratch = Scratch::default();
            let a = decode(&reference, own, 0..own.numel(), &mut scratch);
            let b = decode(&quantized, other, 0..own.numel(), &mut scratch);
            let off = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off <= 0.0101, "{}: {off}", own.name);
        }
    }
}

fn noise_free(len: u64) -> Vec<f32> {
    (0..len).map(|i| 1.0 + i as f32 / 8.0).collect()
}

#[test]
fn the_configuration_settles_what_planes_leave_open() {
    let quark = |dtype: &str, qscheme: &str| {
        serde_json::json!({"quantization_config": {
            "quant_method": "quark",
            "export": {"pack_method": "reorder"},
            "global_quant_config": {"weight": {"dtype": dtype, "qscheme": qscheme}},
        }})
    };
    let gptq = |format: &str| {
        serde_json::json!({"quantization_config": {
            "quant_method": "gptq", "bits": 4, "checkpoint_format": format,
        }})
    };
    let gemv = serde_json::json!({"quantization_config": {
        "quant_method": "awq", "bits": 4, "version": "gemv", "group_size": 8,
    }});
    let zero_words = |word: i32| {
        vec![
            ("x.qweight", "I32", &[1u64, 8][..], i32s(&[0x7654_3210; 8])),
            ("x.qzeros", "I32", &[1, 1], i32s(&[word])),
            ("x.scales", "F32", &[1, 8], f32s(&[1.0; 8])),
        ]
    };
    for (config, planes, qtype, shape, values, why) in [
        (
            quark("int4", "per_channel"),
            vec![
                // Columns 0 to 7 in nibbles 0, 4, 1, 5, 2, 6, 3, 7.
                ("x.weight", "I32", &[8u64, 1][..], i32s(&[0x7531_6420; 8])),
                ("x.weight_scale", "F32", &[8], f32s(&[1., 2., 1., 1., 1., 1., 1., 1.])),
                ("x.weight_zero_point", "I32", &[1], i32s(&[0x0001_0000])),
            ],
            "INT4",
            [8u64, 8],
            vec![0., 1., 2., 3., 4., 5., 6., 7., -2., 0., 2., 4.],
            "Quark: packed along the inputs, zero points along the outputs, both in AWQ's order",
        ),
        (
            quark("int8", "per_group"),
            vec![
                ("x.weight", "I8", &[4, 2], vec![1, 2, 3, 4, 5, 6, 7, 8]),
                ("x.weight_scale", "F32", &[2, 2], f32s(&[1., 10., 100., 1000.])),
            ],
            "INT8",
            [2, 4],
            vec![1., 3., 500., 700., 20., 40., 6000., 8000.],
            "Quark: bytes in groups are transposed",
        ),
        (
            gptq("gptq"),
            zero_words(0x7777_7777),
            "GPTQ4",
            [8, 8],
            vec![-8., -7., -6., -5., -4., -3., -2., -1.],
            "the first format stores zero points less one",
        ),
        (
            gptq("gptq_v2"),
            zero_words(0x7777_7777),
            "GPTQ4",
            [8, 8],
            vec![-7., -6., -5., -4., -3., -2., -1., 0.],
            "the second as they are",
        ),
        (
            gemv,
            vec![
                ("x.qweight", "I32", &[2, 2], i32s(&[0x7654_3210, 0x7654_3210, 0, 0])),
                ("x.qzeros", "I32", &[2, 1], i32s(&[0x21, 0])),
                ("x.scales", "F32", &[2, 8], f32s(&[1., 10., 0., 0., 0., 0., 0., 0.].repeat(2))),
            ],
            "AWQ4",
            [2, 16],
            vec![-1., 0., 1., 2., 3., 4., 5., 6., -20., -10., 0., 10., 20., 30., 40., 50.],
            "gemv: along the inputs, padded groups",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let tensors: Vec<Stored> = planes
            .iter()
            .map(|(name, dtype, shape, data)| Stored {
                name: (*name).to_owned(),
                dtype: (*dtype).to_owned(),
                shape: shape.to_vec(),
                data: data.clone(),
            })
            .collect();
        std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        std::fs::write(directory.path().join("model.safetensors"), write(&tensors)).unwrap();
        let model = model::open(directory.path()).unwrap();
        assert_eq!(model.findings, [], "{why}");
        assert_eq!(model.tensors.len(), 1, "{why}");
        let tensor = &model.tensors[0];
        assert_eq!((tensor.qtype(), &tensor.shape[..]), (qtype, &shape[..]), "{why}");
        let whole = decode(&model, tensor, 0..tensor.numel(), &mut Scratch::default());
        assert_eq!(whole[..values.len()], values, "{why}");
    }
}

/// The tables of the documentation are those of the program; `UPDATE_DOCS=1` writes them anew.
#[test]
fn the_documented_formats_are_those_of_the_tables() {
    let types = ("types", qualm::codec::types::markdown_table(), qualm::codec::TYPES.len(), 7);
    let schemes = ("schemes", scheme::markdown_table(), scheme::SCHEMES.len(), 3);
    let rows = scheme::loose_table().lines().count() - 2;
    let loose = ("loose", scheme::loose_table(), rows, 3);
    for (file, tables) in
        [("docs/formats.md", &[types, schemes.clone(), loose][..]), ("README.md", &[schemes][..])]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut expected = text.clone();
        for (name, table, rows, columns) in tables {
            assert_eq!(table.lines().count(), rows + 2, "{name}");
            for line in table.lines() {
                assert_eq!(line.matches('|').count(), columns + 1, "{line}");
            }
            let begin = format!("<!-- {name}: begin -->\n");
            let end = format!("<!-- {name}: end -->");
            let (before, rest) =
                expected.split_once(&begin).expect("a mark where the table begins");
            let (_, after) = rest.split_once(&end).expect("a mark where the table ends");
            expected = format!("{before}{begin}{table}{end}{after}");
        }
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &expected).unwrap();
        } else {
            assert_eq!(text, expected, "UPDATE_DOCS=1 cargo test --test schemes writes it anew");
        }
    }
}
