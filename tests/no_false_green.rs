/*!
No false green: damage of kinds that once passed, each beside a sound control that must not alarm. A table
of pairs, made on the spot, judged by `qualm check`.
*/

use std::fs;
use std::path::Path;
use std::process::Command;

use half::{bf16, f16};
use qualm::codec::TensorType;
use qualm::spec::{self, LoadOptions};
use qualm::suite::plan::{self, Choice};
use qualm::suite::{Listener, Options, run};
use safetensors::tensor::{Dtype, TensorView};

mod forge;

/// A tensor to be stored.
type Stored = (&'static str, Dtype, Vec<usize>, Vec<u8>);

/// What is wrong with a pair.
enum Verdict {
    Sound,
    /// Damaged, and this tensor is named.
    Damaged(&'static str),
    /// There is nothing to judge, or it cannot be read: any failure.
    Failed,
}
use Verdict::{Damaged, Failed, Sound};

/// Gaussian values from a fixed seed.
fn normals(seed: u64, len: usize, mean: f32, deviation: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut unit = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ z >> 31) >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..len).map(|_| mean + deviation * ((0..12).map(|_| unit()).sum::<f32>() - 6.0)).collect()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn f64s(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn f16s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
}

fn bf16s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()
}

/// bfloat16 by cutting bits off.
fn truncated(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()).collect()
}

/// The values with a change to some of them.
fn changed(values: &[f32], range: std::ops::Range<usize>, factor: f32) -> Vec<f32> {
    let mut values = values.to_vec();
    values[range].iter_mut().for_each(|value| *value *= factor);
    values
}

/// Rounded to symmetric integers, so many values to a scale.
fn rounded(values: &[f32], bits: u32, group: usize) -> Vec<f32> {
    let top = ((1 << (bits - 1)) - 1) as f32;
    let grid = |group: &[f32]| -> Vec<f32> {
        let step = group.iter().fold(0f32, |most, value| most.max(value.abs())) / top;
        group.iter().map(|value| (value / step).round() * step).collect()
    };
    values.chunks(group).flat_map(grid).collect()
}

fn write(path: &Path, tensors: &[Stored]) {
    let views: Vec<(&str, TensorView)> = tensors
        .iter()
        .map(|(name, ty, shape, data)| {
            (*name, TensorView::new(*ty, shape.clone(), data).expect("data of the shape"))
        })
        .collect();
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn check(directory: &Path, reference: &str, quantized: &str) -> (i32, String) {
    let mut check = Command::new(env!("CARGO_BIN_EXE_qualm"));
    check.arg("check").current_dir(directory).args([reference, quantized]);
    let output = check.output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn judge(wrong: &mut Vec<String>, why: &str, verdict: &Verdict, (code, text): (i32, String)) {
    let right = match verdict {
        Sound => code == 0,
        Damaged(name) => code == 5 && text.contains(name),
        Failed => [5, 6].contains(&code) && !text.starts_with("healthy"),
    };
    if !right {
        wrong.push(format!("{why}: exit {code}\n{text}"));
    }
}

/// Pairs of safetensors files: why, the tensor of either side, the verdict. A sound matrix is beside it.
#[allow(clippy::too_many_lines, reason = "a table")]
fn pairs() -> Vec<(&'static str, Stored, Stored, Verdict)> {
    use Dtype::{BF16, F16, F32, F64, I32};
    const W: &str = "layers.3.odd.weight";
    let (norm, matrix) = (normals(1, 1024, 1.0, 0.2), normals(2, 64 * 512, 0.0, 0.02));
    let narrow = normals(3, 8192, 0.0, 1.0);
    let long = normals(4, 2 * 70_000, 0.0, 1.0);
    let tight = normals(5, 1024, 1.0, 0.0005);
    let coin = |at: usize| if at.wrapping_mul(0x9E37_79B1) & 64 == 0 { 0.9 } else { 1.1 };
    let coins: Vec<f32> = (0..1024).map(coin).collect();
    let tiny: Vec<f64> = normals(6, 512, 0.0, 1.0).iter().map(|v| f64::from(*v) * 1e-60).collect();
    let negated: Vec<f64> = tiny.iter().map(|value| -value).collect();
    let int4 = rounded(&matrix, 4, 512);
    let int8 = rounded(&matrix, 8, 512);
    let groups = rounded(&matrix, 4, 32);
    let (m, n): (Vec<usize>, Vec<usize>) = (vec![64, 512], vec![1024]);
    let row = 9 * 512..10 * 512;
    let middle = 32 * 512 + 128..32 * 512 + 256;
    let vector = |ty, data| (W, ty, n.clone(), data);
    let of = |ty, data| (W, ty, m.clone(), data);
    let shaped = |shape: &[usize], ty, data| (W, ty, shape.to_vec(), data);
    let mut swapped = int4.clone();
    for at in row.clone() {
        swapped.swap(at, at + 512);
    }
    vec![
        ("a norm of ones", vector(F32, f32s(&norm)), vector(F32, f32s(&[1.0; 1024])), Damaged(W)),
        ("ones in F16", vector(F16, f16s(&norm)), vector(F16, f16s(&[1.0; 1024])), Damaged(W)),
        ("two values", vector(F32, f32s(&norm)), vector(BF16, bf16s(&coins)), Damaged(W)),
        ("no nearer value", vector(F32, f32s(&tight)), vector(BF16, bf16s(&[1.0; 1024])), Sound),
        ("ones are ones", vector(F32, f32s(&[1.0; 1024])), vector(F16, f16s(&[1.0; 1024])), Sound),
        ("INT4 a row", of(F32, f32s(&matrix)), of(F32, f32s(&int4)), Sound),
        ("INT8 a row in BF16", of(BF16, bf16s(&matrix)), of(BF16, bf16s(&int8)), Sound),
        ("INT4 of 32 in F16", of(F32, f32s(&matrix)), of(F16, f16s(&groups)), Sound),
        (
            "a row of a grid negated",
            of(F32, f32s(&matrix)),
            of(F32, f32s(&changed(&int4, row.clone(), -1.0))),
            Damaged(W),
        ),
        ("two rows of a grid swapped", of(F32, f32s(&matrix)), of(F32, f32s(&swapped)), Damaged(W)),
        (
            "a row of a grid doubled",
            of(F32, f32s(&matrix)),
            of(BF16, bf16s(&changed(&int8, row.clone(), 2.0))),
            Damaged(W),
        ),
        (
            "a row of a grid zeroed",
            of(F32, f32s(&matrix)),
            of(F32, f32s(&changed(&groups, row.clone(), 0.0))),
            Damaged(W),
        ),
        (
            "half a row of the middle",
            of(F32, f32s(&matrix)),
            of(BF16, bf16s(&changed(&matrix, middle, -1.0))),
            Damaged(W),
        ),
        ("one value", of(F32, f32s(&matrix)), of(F16, f16s(&changed(&matrix, 777..778, -1.0))), {
            Damaged(W)
        }),
        ("truncated", of(F32, f32s(&matrix)), of(BF16, truncated(&matrix)), Sound),
        (
            "truncated, one row louder",
            of(F32, f32s(&matrix)),
            of(BF16, truncated(&changed(&matrix, row, 1.6))),
            Damaged(W),
        ),
        (
            "a narrow tensor",
            shaped(&[2048, 1, 4], F32, f32s(&narrow)),
            shaped(&[2048, 1, 4], BF16, bf16s(&narrow)),
            Sound,
        ),
        (
            "twelve values of a narrow tensor",
            shaped(&[2048, 1, 4], F32, f32s(&narrow)),
            shaped(&[2048, 1, 4], BF16, bf16s(&changed(&narrow, 100..112, -1.0))),
            Damaged(W),
        ),
        (
            "the end of a long row",
            shaped(&[2, 70_000], F32, f32s(&long)),
            shaped(&[2, 70_000], F16, f16s(&changed(&long, 69_900..69_950, -1.0))),
            Damaged(W),
        ),
        (
            "saturated",
            vector(F32, f32s(&changed(&norm, 5..6, 1e6))),
            vector(F16, f16s(&changed(&norm, 5..6, 65_504.0 / norm[5]))),
            Damaged(W),
        ),
        (
            "tiny doubles lost",
            shaped(&[512], F64, f64s(&tiny)),
            { shaped(&[512], F64, f64s(&[0.0; 512])) },
            Damaged(W),
        ),
        (
            "tiny doubles negated",
            shaped(&[512], F64, f64s(&tiny)),
            { shaped(&[512], F64, f64s(&negated)) },
            Damaged(W),
        ),
        ("tiny doubles", shaped(&[512], F64, f64s(&tiny)), shaped(&[512], F64, f64s(&tiny)), Sound),
        ("integers", shaped(&[4], I32, vec![7; 16]), shaped(&[4], I32, vec![7; 16]), Sound),
    ]
}

#[test]
fn damaged_floats_fail_and_sound_ones_pass() {
    let directory = tempfile::tempdir().unwrap();
    let body = normals(9, 16 * 256, 0.0, 0.02);
    let beside = |ty, data| ("body.weight", ty, vec![16, 256], data);
    let mut wrong = Vec::new();
    for (why, r, q, verdict) in pairs() {
        write(&directory.path().join("r"), &[beside(Dtype::F32, f32s(&body)), r]);
        write(&directory.path().join("q"), &[beside(Dtype::BF16, bf16s(&body)), q]);
        judge(&mut wrong, why, &verdict, check(directory.path(), "r", "q"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_to_compare_fails() {
    let directory = tempfile::tempdir().unwrap();
    let integers: Stored = ("ids", Dtype::I32, vec![8], vec![3; 32]);
    let empty: Stored = ("w", Dtype::F32, vec![0, 8], Vec::new());
    let mut wrong = Vec::new();
    for (why, tensors) in [
        ("integers alone", vec![integers.clone()]),
        ("no element", vec![empty.clone()]),
        ("neither", vec![integers, empty]),
    ] {
        write(&directory.path().join("m"), &tensors);
        judge(&mut wrong, why, &Failed, check(directory.path(), "m", "m"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A GGUF file of one matrix in a block type.
fn blocks(path: &Path, ty: TensorType, rows: usize, values: &[f32]) {
    const NAME: &str = "blk.0.ffn_gate.weight";
    let mut data = vec![0; ty.bytes_for(values.len() as u64).unwrap() as usize];
    if ty == TensorType::F32 {
        data = f32s(values);
    } else {
        ty.quantize(values, None, &mut data).unwrap();
    }
    let id = ty.info().ggml_id.unwrap();
    let shape = [rows as u64, (values.len() / rows) as u64];
    fs::write(path, forge::gguf::Gguf::new().tensor(NAME, &shape, id, data).bytes()).unwrap();
}

#[test]
fn lost_columns_and_ends_of_long_rows_are_found_in_quantized_tensors() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let columns = |values: &[f32], len: usize, factor: f32| -> Vec<f32> {
        let dead = |at: usize| if at % len == 341 { factor } else { 1.0 };
        values.iter().enumerate().map(|(at, value)| value * dead(at)).collect()
    };
    let x = normals(20, 96 * 512, 0.0, 0.02);
    let long = normals(21, 3 * 70_656, 0.0, 0.02);
    let mut wrong = Vec::new();
    for ty in [TensorType::Q4_0, TensorType::Q8_0, TensorType::Q6_K, TensorType::Q3_K] {
        let dead = columns(&x, 512, 0.0);
        let faint = columns(&x, 512, 1e-4);
        let negated = columns(&x, 512, -1.0);
        let mut exchanged = x.clone();
        exchanged.chunks_exact_mut(512).for_each(|row| row.swap(100, 341));
        let end = changed(&long, 3 * 70_656 - 256..3 * 70_656, -1.0);
        for (why, rows, r, q, verdict) in [
            ("a dead column", 96, &x, &dead, Damaged("integrity.column")),
            ("a negated column", 96, &x, &negated, Damaged("integrity.column")),
            ("two columns exchanged", 96, &x, &exchanged, Damaged("integrity.column")),
            ("dead in both", 96, &dead, &dead, Sound),
            ("too faint for the type", 96, &faint, &faint, Sound),
            ("none", 96, &x, &x, Sound),
            ("the end of a long row", 3, &long, &end, Damaged("ffn_gate")),
            ("a long row", 3, &long, &long, Sound),
        ] {
            blocks(&path("r.gguf"), TensorType::F32, rows, r);
            blocks(&path("q.gguf"), ty, rows, q);
            let why = format!("{ty}: {why}");
            judge(&mut wrong, &why, &verdict, check(directory.path(), "r.gguf", "q.gguf"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn columns_at_which_nothing_arrives_may_hold_anything() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let x = normals(24, 64 * 256, 0.0, 0.02);
    let dead: Vec<f32> =
        x.iter().enumerate().map(|(at, x)| if at % 256 == 7 { 0.0 } else { *x }).collect();
    let write = |name: &str, gain: f32, ty: TensorType, values: &[f32]| {
        let mut norm = vec![1.0; 256];
        norm[7] = gain;
        let mut data = vec![0; ty.bytes_for(values.len() as u64).unwrap() as usize];
        match ty {
            TensorType::F32 => data = f32s(values),
            _ => ty.quantize(values, None, &mut data).unwrap(),
        }
        let gguf = forge::gguf::Gguf::new()
            .tensor(
                "blk.0.attn_norm.weight",
                &[256],
                TensorType::F32.info().ggml_id.unwrap(),
                f32s(&norm),
            )
            .tensor("blk.0.attn_q.weight", &[64, 256], ty.info().ggml_id.unwrap(), data);
        fs::write(path(name), gguf.bytes()).unwrap();
    };
    let mut wrong = Vec::new();
    for (why, gain, verdict) in [
        ("the norm lets nothing through", 1e-30, Sound),
        ("it lets little through", 1e-4, Damaged("integrity.column")),
    ] {
        write("r.gguf", gain, TensorType::F32, &x);
        write("q.gguf", gain, TensorType::Q8_0, &dead);
        judge(&mut wrong, why, &verdict, check(directory.path(), "r.gguf", "q.gguf"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Eight bits in MLX's layout, groups of 64: codes are chosen with scales and biases that are rounded to BF16
/// afterwards; the biases of the first row are raised by so many steps.
fn eight_bits(path: &Path, values: &[f32], raised: f32) {
    let (mut codes, mut scales, mut biases) = (Vec::new(), Vec::new(), Vec::new());
    for (at, group) in values.chunks(64).enumerate() {
        let (low, high) =
            group.iter().fold((0f32, 0f32), |(low, high), x| (low.min(*x), high.max(*x)));
        let scale = (high - low) / 255.0;
        codes.extend(group.iter().map(|x| ((x - low) / scale).round() as u8));
        scales.push(scale);
        biases.push(if at < 4 { low + raised * scale } else { low });
    }
    let (rows, groups) = (values.len() / 256, 4);
    write(
        path,
        &[
            ("a.weight", Dtype::U32, vec![rows, 64], codes),
            ("a.scales", Dtype::BF16, vec![rows, groups], bf16s(&scales)),
            ("a.biases", Dtype::BF16, vec![rows, groups], bf16s(&biases)),
        ],
    );
}

#[test]
fn scales_may_be_rounded_after_the_codes_were_chosen() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let x = normals(23, 64 * 256, 0.0, 0.02);
    write(&path("r"), &[("a.weight", Dtype::F32, vec![64, 256], f32s(&x))]);
    fs::write(path("config.json"), r#"{"quantization": {"group_size": 64, "bits": 8}}"#).unwrap();
    let mut wrong = Vec::new();
    for (why, raised, verdict) in
        [("as MLX writes it", 0.0, Sound), ("offsets of a row are off", 4.0, Damaged("a.weight"))]
    {
        eight_bits(&path("q"), &x, raised);
        judge(&mut wrong, why, &verdict, check(directory.path(), "r", "q"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Two bits in MLX's layout, groups of 32, with one scale for all and zero between the two middle levels; the codes are
/// those of a scale of 0.02.
fn two_bits(path: &Path, values: &[f32], scale: f32) {
    let code = |value: &f32| (value / 0.02 + 1.5).round().clamp(0.0, 3.0) as u32;
    let words = values.chunks(16).flat_map(|codes| {
        codes.iter().rev().fold(0u32, |word, value| word << 2 | code(value)).to_le_bytes()
    });
    let (rows, groups) = (values.len() / 256, values.len() / 32);
    write(
        path,
        &[
            ("a.weight", Dtype::U32, vec![rows, 16], words.collect()),
            ("a.scales", Dtype::F32, vec![rows, 8], f32s(&vec![scale; groups])),
            ("a.biases", Dtype::F32, vec![rows, 8], f32s(&vec![-1.5 * scale; groups])),
        ],
    );
}

#[test]
fn what_is_worse_than_zeros_fails_however_poor_its_scales() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let x = normals(22, 64 * 256, 0.0, 0.02);
    write(&path("r"), &[("a.weight", Dtype::F32, vec![64, 256], f32s(&x))]);
    fs::write(path("config.json"), r#"{"quantization": {"group_size": 32, "bits": 2}}"#).unwrap();
    let mut wrong = Vec::new();
    for (why, scale, verdict) in
        [("sound", 0.02, Sound), ("the scales are lost", 1.0, Damaged("a.weight"))]
    {
        two_bits(&path("q"), &x, scale);
        judge(&mut wrong, why, &verdict, check(directory.path(), "r", "q"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

struct Silent;

impl Listener for Silent {}

/// What is there when the tests are listed is what is run, or the run is an error.
#[test]
fn a_plan_that_the_models_no_longer_fit_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let (r, q) = (directory.path().join("r.safetensors"), directory.path().join("q.safetensors"));
    let values = normals(30, 512, 0.0, 1.0);
    let tensor = |name, data: Vec<u8>, ty| -> Stored { (name, ty, vec![8, 64], data) };
    let [a, b] = ["a", "b"].map(|name| tensor(name, f32s(&values), Dtype::F32));
    let quantized = ["a", "b"].map(|name| tensor(name, bf16s(&values), Dtype::BF16));
    let (one, two) = (vec![a.clone()], vec![a, b]);
    let literal = |path: &Path| format!("'{}'", path.display());
    let text = format!(
        "schema = 1\n[[pair]]\nname = \"p\"\nreference = {}\nquantized = {}\n",
        literal(&r),
        literal(&q)
    );
    let options = LoadOptions::default();
    let spec = spec::parse(text.as_bytes(), Path::new("s.toml"), Path::new(""), &options).unwrap();
    let specs = [spec];
    let choice = Choice::of_tensors();
    for (before, after, exit, why) in [
        (Some(&two), Some(&two), 0, "as it was"),
        (Some(&one), Some(&two), 6, "a tensor came"),
        (Some(&two), Some(&one), 6, "a tensor went"),
        (None, Some(&two), 6, "it was not there when the tests were listed"),
        (Some(&two), None, 6, "it is gone"),
    ] {
        let put = |tensors: Option<&Vec<Stored>>| match tensors {
            Some(tensors) => write(&r, tensors),
            None => fs::remove_file(&r).unwrap_or_default(),
        };
        write(&q, &quantized);
        put(before);
        let plan = plan::plan(&specs, &choice).unwrap();
        put(after);
        if after.is_some_and(|after| after.len() == 1) {
            write(&q, &quantized[..1]);
        }
        let options = Options {
            threads: 1,
            baselines: None,
            max_fail: None,
            warnings_fail: false,
            nothing_passes: false,
            settle: false,
        };
        let contract = run(&plan, &options, None, &mut Silent);
        assert_eq!(contract.exit_code, exit, "{why}");
    }
}
