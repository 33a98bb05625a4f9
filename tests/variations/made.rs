/*!
Models made from seeds, quantized by the formulas of the tools, with the planes under any names. Shares
nothing with the codecs under test.
*/

use half::f16;
use serde_json::Value;

use crate::program::{Random, bf16s, f32s, i32s, safetensors};

/// A stored tensor: name, dtype, shape, bytes.
pub type Owned = (String, String, Vec<u64>, Vec<u8>);

pub fn tensor(name: impl Into<String>, dtype: &str, shape: &[u64], bytes: Vec<u8>) -> Owned {
    (name.into(), dtype.to_owned(), shape.to_vec(), bytes)
}

pub fn scalar(name: impl Into<String>, value: f32) -> Owned {
    tensor(name, "F32", &[], f32s(&[value]))
}

pub fn f16s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
}

/// A safetensors file.
pub fn file(tensors: &[Owned]) -> Vec<u8> {
    let stored: Vec<_> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (&**name, &**dtype, &**shape, bytes.clone()))
        .collect();
    safetensors(&stored)
}

/// A safetensors file with metadata in its header.
pub fn file_with(tensors: &[Owned], metadata: &Value) -> Vec<u8> {
    let plain = file(tensors);
    let len = u64::from_le_bytes(plain[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&plain[8..8 + len]).unwrap();
    header["__metadata__"] = metadata.clone();
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &plain[8 + len..]].concat()
}

/// A tensor of the original; its values are those of BF16.
#[derive(Clone)]
pub struct Matrix {
    pub name: String,
    pub shape: Vec<u64>,
    pub values: Vec<f32>,
}

/// Values rounded to BF16.
pub fn rounded(values: &[f32]) -> Vec<f32> {
    bf16s(values)
        .chunks(2)
        .map(|b| f32::from_bits(u32::from_le_bytes([0, 0, b[0], b[1]])))
        .collect()
}

impl Matrix {
    /// Normal values; the name is whole.
    pub fn new(name: impl Into<String>, shape: &[u64], seed: u64) -> Self {
        let len = shape.iter().product::<u64>() as usize;
        let mut random = Random(seed * 7919 + 1);
        let values: Vec<f32> = random.normals(len).iter().map(|value| value * 0.02).collect();
        Self { name: name.into(), shape: shape.to_vec(), values: rounded(&values) }
    }

    pub fn named(&self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self.clone() }
    }

    pub fn cols(&self) -> usize {
        *self.shape.last().unwrap() as usize
    }

    pub fn rows(&self) -> usize {
        self.values.len() / self.cols()
    }

    pub fn stored(&self, dtype: &str) -> Owned {
        let bytes = match dtype {
            "BF16" => bf16s(&self.values),
            "F16" => f16s(&self.values),
            _ => f32s(&self.values),
        };
        tensor(&self.name, dtype, &self.shape, bytes)
    }

    /// As the original stores it.
    pub fn plain(&self) -> Owned {
        self.stored("BF16")
    }

    /// The last two axes change places.
    pub fn turned(&self) -> Self {
        let mut shape = self.shape.clone();
        let n = shape.len();
        shape.swap(n - 2, n - 1);
        let (rows, cols) = (self.shape[n - 2] as usize, self.cols());
        Self { shape, values: turned(&self.values, rows, cols), ..self.clone() }
    }

    /// The planes of this tensor: `name` is the whole name of the weight or of its module, as the scheme has it.
    pub fn quantized(&self, scheme: Scheme) -> Vec<Owned> {
        let module = self.name.strip_suffix(".weight").unwrap_or(&self.name).to_owned();
        let bare = module.len() == self.name.len();
        let own = planes(self, scheme).into_iter().map(|(suffix, dtype, shape, bytes)| {
            let name = match suffix {
                ".weight" => self.name.clone(),
                suffix if bare => format!("{module}_{}", &suffix[1..]),
                suffix => format!("{module}{suffix}"),
            };
            tensor(name, dtype, &shape, bytes)
        });
        own.collect()
    }
}

/// Matrices of `rows` x `cols` with rows and columns changing places.
pub fn turned<T: Copy>(values: &[T], rows: usize, cols: usize) -> Vec<T> {
    let turn = |matrix: &[T]| -> Vec<T> {
        (0..rows * cols).map(|at| matrix[at % rows * cols + at / rows]).collect()
    };
    values.chunks(rows * cols).flat_map(turn).collect()
}

/// How a matrix is quantized.
#[derive(Clone, Copy, Debug)]
pub enum Scheme {
    Fp8,
    Fp8Rows,
    /// Blocks of this side, `weight_scale_inv`.
    Fp8Blocks(usize),
    Int8Rows,
    /// compressed-tensors: bits and group.
    Packed(u32, usize),
    /// ModelOpt's spelling.
    Nvfp4,
    Mxfp4,
    /// Group; symmetric.
    Gptq(usize),
    /// Group; the planes of `AutoAWQ`.
    Awq(usize),
    /// Bits and group.
    Mlx(u32, usize),
}

/// Suffix, dtype, shape, bytes.
type Plane = (&'static str, &'static str, Vec<u64>, Vec<u8>);

/// All values of E4M3 from 0 up.
fn e4m3_values() -> Vec<f32> {
    let value = |byte: u8| {
        let (exponent, mantissa) = (i32::from(byte >> 3), f32::from(byte & 7));
        match exponent {
            0 => mantissa / 8.0 * 2f32.powi(-6),
            _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
        }
    };
    (0..127).map(value).collect()
}

thread_local! {
    static E4M3: Vec<f32> = e4m3_values();
}

/// The value of an E4M3 byte.
pub fn e4m3(byte: u8) -> f32 {
    let value = E4M3.with(|table| table[usize::from(byte & 127)]);
    if byte & 128 == 0 { value } else { -value }
}

/// The nearest E4M3 byte.
pub fn to_e4m3(value: f32) -> u8 {
    let size = value.abs();
    let code = E4M3.with(|table| {
        let above = table.partition_point(|it| *it < size).min(126);
        let below = above.saturating_sub(1);
        if (size - table[below]).abs() <= (table[above] - size).abs() { below } else { above }
    });
    code as u8 | u8::from(value.is_sign_negative()) << 7
}

/// Values of E2M1 codes.
pub const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// The nearest E2M1 code.
pub fn to_e2m1(value: f32) -> u8 {
    let far = |code: &usize| (value.abs() - E2M1[*code]).abs();
    let code = (0..8).min_by(|a, b| far(a).total_cmp(&far(b))).unwrap();
    code as u8 | u8::from(value.is_sign_negative()) << 3
}

pub fn most(values: &[f32]) -> f32 {
    values.iter().fold(1e-12, |most: f32, value| most.max(value.abs()))
}

/// Codes of `bits` packed into words, low ones first.
pub fn words(codes: &[u32], bits: u32) -> Vec<i32> {
    let word = |codes: &[u32]| codes.iter().rev().fold(0, |word, code| word << bits | code) as i32;
    codes.chunks(32 / bits as usize).map(word).collect()
}

/// Two codes to a byte, the even one low.
pub fn nibbles(codes: &[u8]) -> Vec<u8> {
    codes.chunks(2).map(|two| two[0] | two[1] << 4).collect()
}

fn extents(matrix: &Matrix, last: &[usize]) -> Vec<u64> {
    let above = &matrix.shape[..matrix.shape.len() - 1];
    above.iter().copied().chain(last.iter().map(|it| *it as u64)).collect()
}

/// Least and greatest of a group and zero.
fn range(group: &[f32]) -> (f32, f32) {
    let least = group.iter().copied().fold(0f32, f32::min);
    (least, group.iter().copied().fold(0f32, f32::max))
}

/// E2M1 codes and scales of NVFP4, and the scale of the tensor.
pub fn nvfp4(values: &[f32]) -> (Vec<u8>, Vec<u8>, f32) {
    let whole = most(values) / (6.0 * 448.0);
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for block in values.chunks(16) {
        let scale = to_e4m3(most(block) / 6.0 / whole).max(1);
        codes.extend(block.iter().map(|value| to_e2m1(value / (e4m3(scale) * whole))));
        scales.push(scale);
    }
    (codes, scales, whole)
}

fn planes(matrix: &Matrix, scheme: Scheme) -> Vec<Plane> {
    let (rows, cols, shape) = (matrix.rows(), matrix.cols(), matrix.shape.clone());
    let values = &matrix.values;
    match scheme {
        Scheme::Fp8 => {
            let scale = most(values) / 448.0;
            let codes = values.iter().map(|value| to_e4m3(value / scale)).collect();
            vec![
                (".weight", "F8_E4M3", shape, codes),
                (".weight_scale", "F32", vec![], f32s(&[scale])),
            ]
        }
        Scheme::Fp8Rows | Scheme::Int8Rows => {
            let fp8 = matches!(scheme, Scheme::Fp8Rows);
            let scales: Vec<f32> = values
                .chunks(cols)
                .map(|row| most(row) / if fp8 { 448.0 } else { 127.0 })
                .collect();
            let code = |(at, value): (usize, &f32)| match value / scales[at / cols] {
                value if fp8 => to_e4m3(value),
                value => value.round() as i8 as u8,
            };
            let codes = values.iter().enumerate().map(code).collect();
            let dtype = if fp8 { "F8_E4M3" } else { "I8" };
            vec![
                (".weight", dtype, shape, codes),
                (".weight_scale", "F32", extents(matrix, &[1]), f32s(&scales)),
            ]
        }
        Scheme::Fp8Blocks(side) => {
            let (down, across) = (rows.div_ceil(side), cols.div_ceil(side));
            let block = |at: usize| at / cols / side * across + at % cols / side;
            let mut scales = vec![1e-12f32; down * across];
            for (at, value) in values.iter().enumerate() {
                scales[block(at)] = scales[block(at)].max(value.abs() / 448.0);
            }
            let code = |(at, value): (usize, &f32)| to_e4m3(value / scales[block(at)]);
            let codes = values.iter().enumerate().map(code).collect();
            let sides = vec![down as u64, across as u64];
            vec![
                (".weight", "F8_E4M3", shape, codes),
                (".weight_scale_inv", "F32", sides, f32s(&scales)),
            ]
        }
        Scheme::Packed(bits, size) => {
            let half = (1i32 << (bits - 1)) as f32;
            let scales: Vec<f32> =
                values.chunks(size).map(|group| most(group) / (half - 0.5)).collect();
            let scales = rounded(&scales);
            let code = |(at, value): (usize, &f32)| {
                ((value / scales[at / size]).round() + half).clamp(0.0, 2.0 * half - 1.0) as u32
            };
            let codes: Vec<u32> = values.iter().enumerate().map(code).collect();
            let sizes: Vec<u8> =
                shape[shape.len() - 2..].iter().flat_map(|n| n.to_le_bytes()).collect();
            let per = 32 / bits as usize;
            vec![
                (
                    ".weight_packed",
                    "I32",
                    extents(matrix, &[cols / per]),
                    i32s(&words(&codes, bits)),
                ),
                (".weight_scale", "BF16", extents(matrix, &[cols / size]), bf16s(&scales)),
                (".weight_shape", "I64", vec![2], sizes),
            ]
        }
        Scheme::Nvfp4 => {
            let (codes, scales, whole) = nvfp4(values);
            vec![
                (".weight", "U8", extents(matrix, &[cols / 2]), nibbles(&codes)),
                (".weight_scale", "F8_E4M3", extents(matrix, &[cols / 16]), scales),
                (".weight_scale_2", "F32", vec![], f32s(&[whole])),
                (".input_scale", "F32", vec![], f32s(&[0.01])),
            ]
        }
        Scheme::Mxfp4 => {
            let exponent = |block: &[f32]| (most(block) / 6.0).log2().ceil() as i32;
            let scales: Vec<i32> = values.chunks(32).map(exponent).collect();
            let code = |(at, value): (usize, &f32)| to_e2m1(value / 2f32.powi(scales[at / 32]));
            let codes: Vec<u8> = values.iter().enumerate().map(code).collect();
            let scales = scales.iter().map(|it| (it + 127) as u8).collect();
            vec![
                (".weight_packed", "U8", extents(matrix, &[cols / 2]), nibbles(&codes)),
                (".weight_scale", "U8", extents(matrix, &[cols / 32]), scales),
            ]
        }
        Scheme::Gptq(size) | Scheme::Awq(size) => {
            four_bits(matrix, size, matches!(scheme, Scheme::Awq(_)))
        }
        Scheme::Mlx(bits, size) => {
            let top = ((1u32 << bits) - 1) as f32;
            let of = |group: &[f32]| {
                let least = group.iter().copied().fold(f32::INFINITY, f32::min);
                let greatest = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let scale = f16::from_f32((greatest - least).max(1e-6) / top).to_f32();
                (scale, f16::from_f32(least).to_f32())
            };
            let groups: Vec<(f32, f32)> = values.chunks(size).map(of).collect();
            let code = |(at, value): (usize, &f32)| {
                let (scale, bias) = groups[at / size];
                ((value - bias) / scale).round().clamp(0.0, top) as u32
            };
            let codes: Vec<u32> = values.iter().enumerate().map(code).collect();
            let (scales, biases): (Vec<f32>, Vec<f32>) = groups.into_iter().unzip();
            let across = extents(matrix, &[cols / size]);
            let per = extents(matrix, &[cols * bits as usize / 32]);
            vec![
                (".weight", "U32", per, i32s(&dense(&codes, bits))),
                (".scales", "F16", across.clone(), f16s(&scales)),
                (".biases", "F16", across, f16s(&biases)),
            ]
        }
    }
}

/// Codes of any width as one stream of bits, low ones first.
pub fn dense(codes: &[u32], bits: u32) -> Vec<i32> {
    let mut words = vec![0u32; (codes.len() * bits as usize).div_ceil(32)];
    for (at, code) in codes.iter().enumerate() {
        let bit = at * bits as usize;
        let wide = u64::from(*code) << (bit % 32);
        words[bit / 32] |= wide as u32;
        if wide >> 32 != 0 {
            words[bit / 32 + 1] |= (wide >> 32) as u32;
        }
    }
    words.into_iter().map(|word| word as i32).collect()
}

/// GPTQ's or AWQ's planes, [in, out] both.
fn four_bits(matrix: &Matrix, size: usize, awq: bool) -> Vec<Plane> {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let of = |group: &[f32]| {
        let (least, greatest) = range(group);
        if !awq {
            return (f16::from_f32(most(group) / 7.5).to_f32(), 8.0);
        }
        let scale = f16::from_f32((greatest - least) / 15.0).to_f32();
        (scale, (-least / scale).round().clamp(0.0, 15.0))
    };
    let groups: Vec<(f32, f32)> = matrix.values.chunks(size).map(of).collect();
    let code = |(at, value): (usize, &f32)| {
        let (scale, zero) = groups[at / size];
        ((value / scale).round() + zero).clamp(0.0, 15.0) as u32
    };
    let codes: Vec<u32> = matrix.values.iter().enumerate().map(code).collect();
    let codes = turned(&codes, rows, cols);
    let (scales, zeros): (Vec<f32>, Vec<f32>) = groups.into_iter().unzip();
    let across = cols / size;
    let scales = f16s(&turned(&scales, rows, across));
    let minus = u32::from(!awq);
    let zeros: Vec<u32> =
        turned(&zeros, rows, across).iter().map(|it| *it as u32 - minus).collect();
    let [r, c, g] = [rows, cols, across].map(|it| it as u64);
    let order = if awq { [0, 2, 4, 6, 1, 3, 5, 7] } else { [0, 1, 2, 3, 4, 5, 6, 7] };
    let across = |codes: &[u32]| -> Vec<i32> {
        let word = |eight: &[u32]| words(&order.map(|at| eight[at]), 4)[0];
        codes.chunks(8).map(word).collect()
    };
    let zeros = (".qzeros", "I32", vec![g, r / 8], i32s(&across(&zeros)));
    let scales = (".scales", "F16", vec![g, r], scales);
    if awq {
        return vec![(".qweight", "I32", vec![c, r / 8], i32s(&across(&codes))), zeros, scales];
    }
    // Along the inputs.
    let along = words(&turned(&codes, cols, rows), 4);
    let along = turned(&along, rows, cols / 8);
    let index: Vec<i32> = (0..cols).map(|col| (col / size) as i32).collect();
    vec![
        (".qweight", "I32", vec![c / 8, r], i32s(&along)),
        zeros,
        scales,
        (".g_idx", "I32", vec![c], i32s(&index)),
    ]
}
