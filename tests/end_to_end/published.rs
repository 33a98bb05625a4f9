/*!
Published checkpoints as they are: which files are the model, planes that belong to no weight, layouts
of many tools, and slips of the user. One table a kind, with damaged counterparts that fail.
*/

use std::fs;

use crate::program::*;

/// A stored tensor: name, dtype, shape, bytes.
type Owned = (String, String, Vec<u64>, Vec<u8>);

fn file(tensors: &[Owned]) -> Vec<u8> {
    let stored: Vec<Stored> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (&**name, &**dtype, &**shape, bytes.clone()))
        .collect();
    safetensors(&stored)
}

fn tensor(name: &str, dtype: &str, shape: &[u64], bytes: Vec<u8>) -> Owned {
    (name.to_owned(), dtype.to_owned(), shape.to_vec(), bytes)
}

fn scalar(name: &str, value: f32) -> Owned {
    tensor(name, "F32", &[], f32s(&[value]))
}

/// Files by name.
type Files<'a> = Vec<(&'a str, Vec<u8>)>;

/// A matrix of the original.
struct Matrix {
    name: String,
    shape: Vec<u64>,
    values: Vec<f32>,
}

impl Matrix {
    /// `name.weight`, of normal values.
    fn new(name: &str, shape: &[u64], seed: u64) -> Self {
        let len = shape.iter().product::<u64>() as usize;
        let values = Random(seed).normals(len).iter().map(|value| value * 0.02).collect();
        Self { name: name.to_owned(), shape: shape.to_vec(), values }
    }

    /// As the original stores it.
    fn plain(&self) -> Owned {
        tensor(&format!("{}.weight", self.name), "F32", &self.shape, f32s(&self.values))
    }

    /// One INT8 scale for each row: codes and scales.
    fn int8(&self) -> [Owned; 2] {
        let width = *self.shape.last().unwrap() as usize;
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for row in self.values.chunks(width) {
            let scale = row.iter().fold(0f32, |most, value| most.max(value.abs())) / 127.0;
            codes.extend(row.iter().map(|value| (value / scale).round() as i8 as u8));
            scales.push(scale);
        }
        let rows = [&self.shape[..self.shape.len() - 1], &[1]].concat();
        [
            tensor(&format!("{}.weight", self.name), "I8", &self.shape, codes),
            tensor(&format!("{}.weight_scale", self.name), "F32", &rows, f32s(&scales)),
        ]
    }
}

/// Two layers of attention.
fn attention() -> Vec<Matrix> {
    let mut matrices = Vec::new();
    for layer in 0..2 {
        for (at, part) in ["q_proj", "k_proj", "v_proj", "o_proj"].iter().enumerate() {
            let name = format!("model.layers.{layer}.self_attn.{part}");
            matrices.push(Matrix::new(&name, &[32, 64], layer * 7 + at as u64));
        }
    }
    matrices
}

fn plain(matrices: &[Matrix]) -> Vec<Owned> {
    matrices.iter().map(Matrix::plain).collect()
}

fn int8(matrices: &[Matrix]) -> Vec<Owned> {
    matrices.iter().flat_map(Matrix::int8).collect()
}

/// An index: which file holds which of the tensors.
fn index(parts: &[(&str, &[Owned])]) -> Vec<u8> {
    let names = parts.iter().flat_map(|(file, tensors)| {
        tensors.iter().map(move |(name, ..)| (name.clone(), (*file).into()))
    });
    let map: serde_json::Map<String, serde_json::Value> = names.collect();
    serde_json::json!({ "metadata": {}, "weight_map": map }).to_string().into_bytes()
}

#[test]
fn one_rule_says_which_files_are_the_model() {
    let matrices = attention();
    let sound = int8(&matrices);
    let (first, second) = sound.split_at(8);
    let mut bad = sound.clone();
    bad[3].3.fill(0);
    let (bad_first, _) = bad.split_at(8);
    let (one, two) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let whole_index = index(&[(one, first), (two, second)]);
    let single = "model.safetensors";
    let listed = "model.safetensors.index.json";
    // Files, exit code, what must be said.
    #[rustfmt::skip]
    let cases: Vec<(&str, Files, i32, Vec<&str>)> = vec![
        ("one file", vec![(single, file(&sound))], 0, vec![]),
        ("one file, damaged", vec![(single, file(&bad))], 5, vec!["k_proj"]),
        ("a sound file before damaged shards", vec![(single, file(&sound)), (one, file(bad_first)), (two, file(second)), (listed, whole_index.clone())], 0, vec![listed, "comes before it"]),
        ("a damaged file before sound shards", vec![(single, file(&bad)), (one, file(first)), (two, file(second)), (listed, whole_index.clone())], 5, vec![listed]),
        ("an index without shards beside a file", vec![(single, file(&sound)), (listed, whole_index.clone())], 0, vec!["none of which is there"]),
        ("an index that is no JSON beside a file", vec![(single, file(&sound)), (listed, b"{".to_vec())], 0, vec!["cannot be read"]),
        ("an index that lists the file itself", vec![(single, file(first)), ("extra.safetensors", file(second)), (listed, index(&[(single, first), ("extra.safetensors", second)]))], 0, vec![]),
        ("shards without an index", vec![(one, file(first)), (two, file(second))], 0, vec!["has no index"]),
        ("a shard of a set is not there", vec![(two, file(second))], 6, vec!["model-00001-of-00002.safetensors is missing"]),
        ("sets of two sizes", vec![(one, file(first)), (two, file(second)), ("model-00001-of-00001.safetensors", file(&sound))], 6, vec!["several models", "model-00001-of-00001.safetensors"]),
        ("other weights beside the file", vec![(single, file(&sound)), ("adapter_model.safetensors", file(first)), ("m.gguf", vec![1])], 0, vec!["left out: adapter_model.safetensors, m.gguf"]),
        ("an adapter beside a file of another name", vec![("flux.safetensors", file(&sound)), ("adapter_model.safetensors", file(first))], 0, vec!["left out: adapter_model.safetensors"]),
        ("two names, neither of them known", vec![("a.safetensors", file(&sound)), ("b.safetensors", file(&bad))], 6, vec!["a.safetensors, b.safetensors"]),
        ("shards under names of their own", vec![("x.safetensors", file(first)), ("y.safetensors", file(second)), ("z.safetensors.index.json", index(&[("x.safetensors", first), ("y.safetensors", second)]))], 0, vec![]),
        ("a shard that holds more than its own", vec![(one, file(first)), (two, file(&[second, bad_first].concat())), (listed, whole_index.clone())], 0, vec!["given to another shard", two]),
        ("a shard that holds what nobody lists", vec![(one, file(&[first, &[scalar("model.extra", 1.0)]].concat())), (two, file(second)), (listed, whole_index.clone())], 0, vec!["not in the index", "model.extra"]),
        ("a tensor that only the wrong shard holds", vec![(one, file(second)), (two, file(first)), (listed, whole_index.clone())], 6, vec!["it does not", one, two]),
        ("a file in a folder", vec![("fp8/model.safetensors", file(&sound))], 6, vec!["folders fp8"]),
    ];
    for (what, files, code, says) in cases {
        let suite = Suite::new();
        suite.write("r.safetensors", file(&plain(&matrices)));
        for (name, bytes) in files {
            suite.write(&format!("q/{name}"), bytes);
        }
        let ran = suite.qualm(&["check", "r.safetensors", "q"]);
        assert_eq!(ran.code, code, "{what}: {ran}");
        for words in says {
            assert!(ran.out.contains(words), "{what}: no {words:?} in {ran}");
        }
    }
}

#[cfg(unix)]
#[test]
fn links_of_a_cache_are_followed_or_explained() {
    use std::os::unix::fs::symlink;
    let matrices = attention();
    let suite = Suite::new();
    suite.write("r.safetensors", file(&plain(&matrices)));
    let root = "models--o--n";
    suite.write(&format!("{root}/blobs/a1"), file(&int8(&matrices)));
    suite.write(&format!("{root}/refs/main"), "abc");
    let snapshots = suite.path().join(root).join("snapshots");
    for (revision, target) in [("abc", "../../blobs/a1"), ("def", "../../blobs/b2")] {
        fs::create_dir_all(snapshots.join(revision)).unwrap();
        symlink(target, snapshots.join(revision).join("model.safetensors")).unwrap();
    }
    let check = |path: &str| suite.qualm(&["check", "r.safetensors", path]);
    check(&format!("{root}/snapshots/abc")).exits(0);
    check(root).exits(0).says("refs/main");
    check(&format!("{root}/snapshots/def")).exits(6).says("is a link to ../../blobs/b2");
    check(&format!("{root}/snapshots/def/model.safetensors")).exits(6).says("is a link to");
    suite.write(&format!("{root}/refs/main"), "gone");
    check(root).exits(6).says("below snapshots: abc, def");
    suite.write(&format!("{root}/refs/main"), "../../..");
    check(root).exits(6).says("below snapshots: abc, def");
}

#[test]
fn planes_of_no_weight_are_known_judged_and_never_compared() {
    let matrices = attention();
    let nan = f32::NAN;
    // A name below each layer, the values of both layers, exit code, what must be said.
    #[rustfmt::skip]
    let cases: &[(&str, [Option<f32>; 2], i32, &str)] = &[
        ("self_attn.k_scale", [Some(0.1), Some(0.2)], 0, "judged, but not compared: 2 like"),
        ("self_attn.kv_scale", [Some(0.1), Some(0.2)], 0, "judged"),
        ("self_attn.attn.v_scale", [Some(0.1), Some(0.2)], 0, "judged"),
        ("self_attn.k_proj.output_scale", [Some(0.1), Some(0.2)], 0, "judged"),
        ("self_attn.v_zero_point", [Some(0.0), Some(-3.0)], 0, "judged"),
        ("self_attn.q_global_scale", [Some(0.1), Some(0.2)], 0, "judged"),
        ("self_attn.prob_output_scale", [Some(0.1), Some(0.2)], 0, "judged"),
        ("self_attn.kv_cache_scaling_factor", [Some(0.1), Some(0.2)], 0, "judged"),
        ("self_attn.v_scale", [Some(0.1), Some(nan)], 5, "layers.1.self_attn.v_scale has 1 values that are not finite"),
        ("self_attn.prob_scale", [Some(f32::INFINITY), Some(0.1)], 5, "layers.0.self_attn.prob_scale"),
        ("self_attn.kv_scale", [Some(0.0), Some(0.1)], 5, "layers.0.self_attn.kv_scale is zero"),
        ("self_attn.attn.k_scale", [Some(0.1), Some(-0.5)], 5, "is -0.5: negative"),
        ("self_attn.k_scale", [Some(-1.0), Some(-1.0)], 0, "nothing was calibrated"),
        ("self_attn.k_scale", [Some(-1.0), Some(0.1)], 5, "layers.0.self_attn.k_scale is -1"),
        ("self_attn.v_zero_point", [Some(nan), Some(0.0)], 5, "layers.0.self_attn.v_zero_point"),
        ("self_attn.q_scale", [None, Some(0.1)], 5, "layers.0.self_attn.q_scale is missing"),
        ("self_attn.attn.v_scale", [Some(0.1), None], 5, "layers.1.self_attn.attn.v_scale is missing"),
        ("self_attn.v_proj.output_scale", [Some(0.1), None], 5, "layers.1.self_attn.v_proj.output_scale is missing"),
        ("self_attn.k_proj.k_scale", [Some(0.1), Some(nan)], 5, "k_proj.k_scale"),
        ("self_attn.k_proj.input_scale", [Some(0.1), Some(-2.0)], 5, "not positive"),
        ("self_attn.k_frobnication_scale", [Some(0.1), Some(0.1)], 5, "self_attn.k_frobnication_scale"),
    ];
    for (name, values, code, says) in cases {
        let mut quantized = int8(&matrices);
        for (layer, value) in values.iter().enumerate() {
            let name = format!("model.layers.{layer}.{name}");
            quantized.extend(value.map(|value| scalar(&name, value)));
        }
        let suite = Suite::new();
        suite.write("r.safetensors", file(&plain(&matrices)));
        suite.write("q.safetensors", file(&quantized));
        let ran = suite.qualm(&["check", "r.safetensors", "q.safetensors"]);
        assert_eq!(ran.code, *code, "{name} {values:?}: {ran}");
        assert!(ran.out.contains(says), "{name} {values:?}: no {says:?} in {ran}");
    }
}

/// A model may have a parameter of its own under such a name: where the reference has it, it is compared.
#[test]
fn a_parameter_that_is_called_like_a_plane_is_a_tensor() {
    let matrices = attention();
    let own = |value: f32| scalar("model.layers.0.self_attn.q_scale", value);
    for (value, code) in [(2.5, 0), (9.5, 5)] {
        let suite = Suite::new();
        suite.write("r.safetensors", file(&[plain(&matrices), vec![own(2.5)]].concat()));
        suite.write("q.safetensors", file(&[int8(&matrices), vec![own(value)]].concat()));
        let ran = suite.qualm(&["diff", "r.safetensors", "q.safetensors", "--json"]);
        let json = ran.json();
        let rows = json["tensors"].as_array().unwrap();
        let row = rows.iter().find(|row| row["tensor"] == own(0.0).0).expect("a row");
        assert_eq!(row["max_abs"].as_f64().unwrap() == 0.0, code == 0, "{ran}");
    }
}

#[test]
fn slips_of_the_user_are_said_to_be_that() {
    let matrices = attention();
    let suite = Suite::new();
    suite.write("r.safetensors", file(&plain(&matrices)));
    suite.write("q.safetensors", file(&int8(&matrices)));
    let mut bad = int8(&matrices);
    bad[3].3.fill(0);
    suite.write("bad.safetensors", file(&bad));
    #[rustfmt::skip]
    let cases: &[(&[&str], i32, &str, &str)] = &[
        (&["check", "r.safetensors", "q.safetensors"], 0, "healthy", "as given"),
        (&["check", "r.safetensors", "q.safetensors", "--qtype", "*_proj.weight=INT8"], 0, "healthy", "a type that is there"),
        (&["check", "r.safetensors", "q.safetensors", "--qtype", "*_proj.weight=NVFP4"], 5, "INT8", "another type"),
        (&["check", "r.safetensors", "q.safetensors", "--qtype", "*_proj.wieght=INT8"], 2, "*_proj.wieght", "a glob that matches nothing"),
        (&["check", "r.safetensors", "q.safetensors", "--qtype", "*_proj.weight_scale=INT8"], 2, "weight_scale", "a glob that matches planes only"),
        (&["check", "r.safetensors", "q.safetensors", "--qtype", "*_proj.weight=INT88"], 2, "INT88", "no type"),
        (&["check", "r.safetensors", "missing.safetensors", "--qtype", "*.x=INT8"], 6, "missing.safetensors", "no file"),
        (&["check", "q.safetensors", "bad.safetensors"], 5, "k_proj", "damaged, not swapped"),
    ];
    for (arguments, code, says, why) in cases {
        let ran = suite.qualm(arguments);
        assert_eq!(ran.code, *code, "{why}: {ran}");
        assert!(ran.out.contains(says) || ran.err.contains(says), "{why}: no {says:?} in {ran}");
        assert!(!ran.out.contains("swapped"), "{why}: {ran}");
    }
    let ran = suite.qualm(&["check", "q.safetensors", "r.safetensors", "--json"]).exits(5);
    let json = ran.json();
    assert_eq!(json["findings"][0]["diagnosis"]["cause"], "swapped", "{ran}");
    assert_eq!(json["findings"].as_array().unwrap().len(), 1, "{ran}");
    let ran = suite.qualm(&["check", "bad.safetensors", "r.safetensors"]).exits(5);
    assert!(!ran.out.contains("the two models are swapped"), "{ran}");
}

#[test]
fn a_metadata_array_may_lie_in_an_array() {
    // Checked by inspecting: the key, its value as JSON.
    let string = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let array = |of: u32, items: &[Vec<u8>]| {
        [&of.to_le_bytes()[..], &(items.len() as u64).to_le_bytes(), &items.concat()].concat()
    };
    let bytes = array(0, &[vec![1], vec![2]]);
    let nested = array(9, &[bytes.clone(), array(8, &[string("x")])]);
    let long = array(9, &vec![bytes; 20]);
    let deeper = array(9, &[array(9, &[array(4, &[7u32.to_le_bytes().to_vec()])])]);
    for (what, value, expected) in [
        ("two arrays", nested, serde_json::json!([[1, 2], ["x"]])),
        ("an empty array", array(9, &[]), serde_json::json!([])),
        ("three levels", deeper, serde_json::json!(null)),
        ("many arrays", long, serde_json::json!(null)),
    ] {
        let entry = [string("k.nested"), 9u32.to_le_bytes().to_vec(), value].concat();
        let info = [string("t.weight"), 1u32.to_le_bytes().to_vec(), 4u64.to_le_bytes().to_vec()];
        let info =
            [info.concat(), 0u32.to_le_bytes().to_vec(), 0u64.to_le_bytes().to_vec()].concat();
        let head = [b"GGUF".to_vec(), 3u32.to_le_bytes().to_vec()].concat();
        let counts = [1u64.to_le_bytes(), 1u64.to_le_bytes()].concat();
        let mut file = [head, counts, entry, info].concat();
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(f32s(&[1.0, 2.0, 3.0, 4.0]));
        let suite = Suite::new();
        suite.write("m.gguf", file);
        let ran = suite.qualm(&["inspect", "m.gguf", "--json"]).exits(0);
        let json = ran.json();
        let value = &json["metadata"]["k.nested"];
        assert!(!value.is_null(), "{what}: {ran}");
        if expected.is_null() {
            assert!(value.to_string().contains("array"), "{what}: {value}");
        } else {
            assert_eq!(*value, expected, "{what}");
        }
    }
}
