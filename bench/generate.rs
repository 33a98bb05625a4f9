/*!
Writes pairs of model files of any size for benchmarks: weights like those of a transformer, Gaussian
with a few outliers, from a fixed seed, in every type that qualm can encode. The values repeat after
[`PERIOD`] elements, so that even the slowest quantizer fills any file at the speed of the disk, in
constant memory.
*/

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Error, Result, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use qualm::codec::{TYPES, TensorType};

const USAGE: &str = "\
usage: generate [--params N] [--tensors N] [--seed N] TYPE=PATH...
       generate --types
  TYPE=PATH  a path that ends in .gguf becomes GGUF, with vectors left in F32; any other becomes
             safetensors, for F32, F16 and BF16
  --params   elements in all (default 135e6); --tensors cuts them into that many equal tensors
             instead of the layers of a transformer
  --seed     the same seed gives the same values in every type (default 1)
  --types    print the types that a GGUF file can have
";

/// Elements after which the values repeat; whole blocks of every type.
const PERIOD: usize = 1 << 18;

/// What to write, and where.
struct Order {
    params: f64,
    tensors: Option<u64>,
    seed: u64,
    files: Vec<(TensorType, PathBuf)>,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|argument| argument == "--types") {
        for row in TYPES.iter().filter(|row| row.ggml_id.is_some() && can_encode(row.ty)) {
            println!("{}", row.name);
        }
        return ExitCode::SUCCESS;
    }
    let Some(order) = parse(std::env::args().skip(1)) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    let shapes = match order.tensors {
        Some(count) => equal_tensors(count, order.params),
        None => transformer(order.params),
    };
    let values = weights(order.seed);
    for (ty, path) in &order.files {
        if let Err(error) = write_model(path, *ty, &shapes, &values) {
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
pub struct Shape {
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

/// Layers of a Llama-like model with about `params` elements; every row is whole blocks of any type.
pub fn transformer(params: f64) -> Vec<Shape> {
    // A layer is 2 d² (query, output) + 2 d²/3 (key, value) + 8 d² (feed-forward).
    let layer = |d: u64| (10.0 + 2.0 / 3.0) * (d * d) as f64;
    let mut d = 768;
    while 30.0 * layer(d + 768) <= params {
        d += 768;
    }
    let vocabulary = (params / 5.0 / d as f64).clamp(32.0, 131_072.0) as u64;
    let layers = ((params - (vocabulary * d) as f64) / layer(d)).round().max(1.0) as u64;
    let mut shapes = vec![Shape::new("model.embed_tokens.weight", &[vocabulary, d])];
    for layer in 0..layers {
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

/// Writes a model: the values over and over, each tensor from another place on.
pub fn write_model(path: &Path, ty: TensorType, shapes: &[Shape], values: &[f32]) -> Result<()> {
    let is_gguf = path.extension().is_some_and(|extension| extension == "gguf");
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let types: Vec<TensorType> = shapes
        .iter()
        .map(|shape| if is_gguf && shape.extents.len() == 1 { TensorType::F32 } else { ty })
        .collect();
    let header = if is_gguf { gguf_header(shapes, &types)? } else { json_header(shapes, &types)? };
    file.write_all(&header)?;
    let (blocks, plain) = (encode(ty, values)?, encode(TensorType::F32, values)?);
    for (index, (shape, of)) in shapes.iter().zip(&types).enumerate() {
        let stored = if *of == ty { &blocks } else { &plain };
        // Each tensor begins elsewhere, so that no two are the same.
        let start = index * 7 % (PERIOD / 256) * (stored.len() / (PERIOD / 256));
        let mut left = bytes_of(shape, *of)? as usize;
        let pad = if is_gguf { left.next_multiple_of(ALIGNMENT) - left } else { 0 };
        let mut run = &stored[start..];
        while left > 0 {
            let n = left.min(run.len());
            file.write_all(&run[..n])?;
            left -= n;
            run = stored;
        }
        file.write_all(&[0; ALIGNMENT][..pad])?;
    }
    file.flush()
}

fn bytes_of(shape: &Shape, ty: TensorType) -> Result<u64> {
    let bytes = ty.bytes_for(shape.numel());
    bytes.ok_or_else(|| Error::other(format!("{} is not whole blocks of {ty}", shape.name)))
}

fn json_header(shapes: &[Shape], types: &[TensorType]) -> Result<Vec<u8>> {
    let mut header = String::from("{");
    let mut at = 0;
    for (shape, ty) in shapes.iter().zip(types) {
        let dtype = ty.info().safetensors;
        let dtype = dtype.ok_or_else(|| Error::other(format!("{ty} needs a .gguf file")))?;
        let end = at + bytes_of(shape, *ty)?;
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(
            header,
            "{comma}\"{}\":{{\"dtype\":\"{dtype}\",\"shape\":{:?},\"data_offsets\":[{at},{end}]}}",
            shape.name, shape.extents
        );
        at = end;
    }
    header.push('}');
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    Ok([&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat())
}

/// Alignment of tensor data in a GGUF file.
const ALIGNMENT: usize = 32;

fn gguf_header(shapes: &[Shape], types: &[TensorType]) -> Result<Vec<u8>> {
    let mut header = b"GGUF".to_vec();
    header.extend(3u32.to_le_bytes());
    header.extend((shapes.len() as u64).to_le_bytes());
    header.extend(1u64.to_le_bytes());
    let string = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    header.extend(string("general.architecture"));
    header.extend(8u32.to_le_bytes());
    header.extend(string("llama"));
    let mut at = 0u64;
    for (shape, ty) in shapes.iter().zip(types) {
        let id = ty.info().ggml_id;
        let id = id.ok_or_else(|| Error::other(format!("{ty} is no type of GGUF")))?;
        header.extend(string(&shape.name));
        header.extend((shape.extents.len() as u32).to_le_bytes());
        // The fastest dimension comes first.
        header.extend(shape.extents.iter().rev().flat_map(|extent| extent.to_le_bytes()));
        header.extend(id.to_le_bytes());
        header.extend(at.to_le_bytes());
        at += bytes_of(shape, *ty)?.next_multiple_of(ALIGNMENT as u64);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
    Ok(header)
}

/// Whether a model can be written in this type.
pub fn can_encode(ty: TensorType) -> bool {
    let row = ty.info();
    ty == TensorType::F32 || row.encode_chunk.is_some() || row.encode_weighted.is_some()
}

/// The stored form of the values, an importance of 1 for all of them where one is required.
fn encode(ty: TensorType, values: &[f32]) -> Result<Vec<u8>> {
    if ty == TensorType::F32 {
        return Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect());
    }
    let weights = ty.requires_imatrix().then_some(&[1.0; 256][..]);
    let mut blocks = vec![0; ty.bytes_for(values.len() as u64).unwrap_or(0) as usize];
    ty.quantize(values, weights, &mut blocks).map_err(Error::other)?;
    Ok(blocks)
}

/// Gaussian weights of standard deviation 0.02; one in a thousand is ten times as large.
pub fn weights(seed: u64) -> Vec<f32> {
    let mut state = seed;
    // `SplitMix64`.
    let mut random = move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    };
    let mut uniform = move || ((random() >> 40) as f32 + 0.5) / (1 << 24) as f32;
    let mut weight = || {
        // Box and Muller.
        let gaussian = (-2.0 * uniform().ln()).sqrt() * (std::f32::consts::TAU * uniform()).cos();
        gaussian * if uniform() < 0.001 { 0.2 } else { 0.02 }
    };
    (0..PERIOD).map(|_| weight()).collect()
}
