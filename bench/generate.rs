/*!
Writes pairs of model files of any size for benchmarks: weights like those of a transformer, Gaussian
with a few outliers, from a fixed seed. Streams, so that memory does not grow with the size.
*/

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use half::{bf16, f16};
use qualm::codec::TensorType;

const USAGE: &str = "\
usage: generate [--params N] [--tensors N] [--seed N] TYPE=PATH...
  TYPE      F32, F16, BF16 (safetensors)
  --params  elements in all (default 135e6); --tensors cuts them into that many equal tensors
            instead of the layers of a transformer
  --seed    the same seed gives the same values in every type (default 1)
";

/// What to write, and where.
struct Order {
    params: f64,
    tensors: Option<u64>,
    seed: u64,
    files: Vec<(TensorType, PathBuf)>,
}

fn main() -> ExitCode {
    let Some(order) = parse(std::env::args().skip(1)) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    let shapes = match order.tensors {
        Some(count) => equal_tensors(count, order.params),
        None => transformer(order.params),
    };
    for (ty, path) in &order.files {
        if let Err(error) = write_safetensors(path, *ty, &shapes, order.seed) {
            eprintln!("cannot write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
        let elements: u64 = shapes.iter().map(Shape::numel).sum();
        println!("{}: {} tensors, {elements} elements of {ty}", path.display(), shapes.len());
    }
    ExitCode::SUCCESS
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Order> {
    let mut order = Order { params: 135e6, tensors: None, seed: 1, files: Vec::new() };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--params" => order.params = arguments.next()?.parse().ok()?,
            "--tensors" => order.tensors = Some(arguments.next()?.parse().ok()?),
            "--seed" => order.seed = arguments.next()?.parse().ok()?,
            file => {
                let (ty, path) = file.split_once('=')?;
                order.files.push((TensorType::from_name(ty)?, path.into()));
            }
        }
    }
    (!order.files.is_empty()).then_some(order)
}

/// A tensor's name and extents, outermost first.
struct Shape {
    name: String,
    extents: Vec<u64>,
}

impl Shape {
    fn new(name: impl Into<String>, extents: &[u64]) -> Self {
        Self { name: name.into(), extents: extents.to_vec() }
    }

    fn numel(&self) -> u64 {
        self.extents.iter().product()
    }
}

/// Layers of a Llama-like model with about `params` elements.
fn transformer(params: f64) -> Vec<Shape> {
    // 30 layers of 2 d² (query, output) + 2 d²/3 (key, value) + 8 d² (feed-forward), and 49152 d
    // of vocabulary: 135 million at d = 576.
    let mut d = 192;
    let count = |d: f64| 30.0 * (10.0 + 2.0 / 3.0) * d * d + 49152.0 * d;
    while count((d + 96) as f64) <= params {
        d += 96;
    }
    let mut shapes = vec![Shape::new("model.embed_tokens.weight", &[49152, d])];
    for layer in 0..30 {
        let mut add = |name: &str, extents: &[u64]| {
            shapes.push(Shape::new(format!("model.layers.{layer}.{name}.weight"), extents));
        };
        add("input_layernorm", &[d]);
        add("mlp.down_proj", &[d, d * 8 / 3]);
        add("mlp.gate_proj", &[d * 8 / 3, d]);
        add("mlp.up_proj", &[d * 8 / 3, d]);
        add("post_attention_layernorm", &[d]);
        add("self_attn.k_proj", &[d / 3, d]);
        add("self_attn.o_proj", &[d, d]);
        add("self_attn.q_proj", &[d, d]);
        add("self_attn.v_proj", &[d / 3, d]);
    }
    shapes.push(Shape::new("model.norm.weight", &[d]));
    shapes
}

fn equal_tensors(count: u64, params: f64) -> Vec<Shape> {
    let each = (params / count as f64).max(1.0) as u64;
    let extents = if each >= 1024 { vec![each / 256, 256] } else { vec![each] };
    (0..count).map(|index| Shape::new(format!("tensor.{index:06}.weight"), &extents)).collect()
}

fn write_safetensors(
    path: &Path,
    ty: TensorType,
    shapes: &[Shape],
    seed: u64,
) -> std::io::Result<()> {
    let mut header = String::from("{");
    let mut at = 0;
    for shape in shapes {
        let end = at + ty.bytes_for(shape.numel()).unwrap_or(0);
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(
            header,
            "{comma}\"{}\":{{\"dtype\":\"{ty}\",\"shape\":{:?},\"data_offsets\":[{at},{end}]}}",
            shape.name, shape.extents
        );
        at = end;
    }
    header.push('}');
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let mut bytes = Vec::new();
    for (index, shape) in shapes.iter().enumerate() {
        let mut weights = Weights::new(seed ^ (index as u64) << 32);
        let mut left = shape.numel();
        while left > 0 {
            let n = left.min(65536);
            bytes.clear();
            for _ in 0..n {
                let value = weights.next();
                match ty {
                    TensorType::F32 => bytes.extend(value.to_le_bytes()),
                    TensorType::F16 => bytes.extend(f16::from_f32(value).to_le_bytes()),
                    TensorType::BF16 => bytes.extend(bf16::from_f32(value).to_le_bytes()),
                    _ => return Err(std::io::Error::other(format!("{ty} cannot be written yet"))),
                }
            }
            file.write_all(&bytes)?;
            left -= n;
        }
    }
    file.flush()
}

/// Gaussian weights of standard deviation 0.02; one in a thousand is ten times as large.
struct Weights {
    state: u64,
}

impl Weights {
    fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// `SplitMix64`.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// The sum of four uniform numbers stands in for a Gaussian: near enough, and fast.
    fn next(&mut self) -> f32 {
        let bits = self.random();
        let sum: u64 = (0..4).map(|k| bits >> (16 * k) & 0xFFFF).sum();
        let gaussian = (sum as f32 / 65536.0 - 2.0) * 1.732_050_8;
        let outlier = (bits.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32).trailing_zeros() >= 10;
        gaussian * if outlier { 0.2 } else { 0.02 }
    }
}
