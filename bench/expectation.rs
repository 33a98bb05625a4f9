/*!
What each type and scheme does to weights: the numbers behind the integrity gates.

`cargo run --release --example bench-expectation` prints the table of `docs/integrity.md`; names of
types after `--` select rows. Everything is computed from fixed seeds and the embedded suite's weights.
*/

use std::fmt::Write as _;
use std::path::Path;

use qualm::codec::{Class, TYPES, TensorType, float};
use qualm::measure::Grid;
use qualm::metrics::rate_distortion_gap;
use qualm::model::{self, Scratch};

/// Elements of a row of every source: whole blocks of every type.
const ROW: usize = 1536;

/// Elements of a block for the worst one, as the worst-block gate has it.
const PIECE: usize = 256;

/// Rows of the drawn sources.
const ROWS: usize = 192;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    print!("{HEADER}");
    for row in rows(&|name| wanted.is_empty() || wanted.iter().any(|it| it == name)) {
        println!("{}", row.markdown());
    }
}

/// The table's first two lines.
pub const HEADER: &str = "\
| type | bits/weight | SQNR dB, Gauss | Student-t | MiniLM | cosine | worst row | worst block dB | RD gap dB | other encoders: SQNR | row | block |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";

/// One line of the table.
pub struct Row {
    /// Type or scheme.
    pub name: String,
    /// Stored bits of an element, scales included.
    pub bits: f64,
    /// Of the three sources.
    pub sqnr: [f64; 3],
    /// Of the real weights.
    pub cosine: f64,
    /// Lowest cosine of a row of the real weights.
    pub worst_cosine: f64,
    /// Largest error of a block of the real weights against the mean block's, in dB.
    pub worst_block: f64,
    /// Over the real weights and all other sound encoders of the type: how far SQNR falls, the
    /// largest drop of a row's cosine, the largest growth of a block's error. None without others.
    pub spread: Option<[f64; 3]>,
}

impl Row {
    /// As the documentation has it.
    pub fn markdown(&self) -> String {
        let [gauss, student, real] = self.sqnr;
        let gap = rate_distortion_gap(self.bits, gauss);
        let mut line = format!(
            "| {} | {:.4} | {gauss:.2} | {student:.2} | {real:.2} | {:.6} | {:.4} | {:.1} | {gap:.2} |",
            self.name, self.bits, self.cosine, self.worst_cosine, self.worst_block
        );
        let _ = match self.spread {
            Some([sqnr, row, block]) => write!(line, " {sqnr:.2} | {row:.4} | {block:.2} |"),
            None => write!(line, " | | |"),
        };
        line
    }
}

/// A way to quantize a row and back.
type Rounding = Box<dyn Fn(&[f32]) -> Option<Vec<f32>>>;

/// Measures every type and scheme that is wanted.
pub fn rows(wanted: &dyn Fn(&str) -> bool) -> Vec<Row> {
    let sources = [gauss(), student(), real()];
    let mut rows = Vec::new();
    for info in TYPES.iter().filter(|info| info.decode.is_some() && wanted(info.name)) {
        let grid = match info.class {
            Class::Float if !matches!(info.ty, TensorType::F32 | TensorType::F64) => {
                Grid::Float(info.ty)
            }
            Class::Quantized => Grid::Blocks(info.ty),
            _ => continue,
        };
        let others = other_encoders(info.ty);
        rows.extend(row(info.name, info.ty.bits_per_weight(), &grid, &others, &sources));
    }
    for (name, bits, grid) in schemes() {
        if wanted(name) {
            rows.extend(row(name, bits, &grid, &[], &sources));
        }
    }
    rows
}

fn row(
    name: &str,
    bits: f64,
    grid: &Grid,
    others: &[Rounding],
    sources: &[Vec<f32>; 3],
) -> Option<Row> {
    let twin: Rounding = {
        let grid = grid.clone();
        Box::new(move |values| grid.quantize(values))
    };
    let [gauss, student, real] = [0, 1, 2].map(|source| measure(&sources[source], &twin));
    let (gauss, student, real) = (gauss?, student?, real?);
    if gauss.ee == 0.0 {
        return None; // A type of scales or codes, not of weights: nothing is rounded to it.
    }
    let mut spread: Option<[f64; 3]> = None;
    for other in others {
        for (source, twin) in [(&sources[2], &real), (&sources[0], &gauss)] {
            let Some(other) = measure(source, other) else { continue };
            let [sqnr, row, block] = spread.unwrap_or([f64::NEG_INFINITY; 3]);
            let worst_piece = twin.pieces.iter().copied().fold(0.0, f64::max);
            let drops = twin.rows.iter().zip(&other.rows).map(|(twin, other)| twin - other);
            let growths = other.pieces.iter().map(|piece| (piece / worst_piece).sqrt());
            spread = Some([
                sqnr.max(twin.sqnr() - other.sqnr()),
                drops.fold(row, f64::max),
                growths.fold(block, f64::max),
            ]);
        }
    }
    let worst = real.pieces.iter().copied().fold(0.0, f64::max);
    let mean = real.pieces.iter().sum::<f64>() / real.pieces.len() as f64;
    Some(Row {
        name: name.to_owned(),
        bits,
        sqnr: [gauss.sqnr(), student.sqnr(), real.sqnr()],
        cosine: real.cosine(),
        worst_cosine: real.rows.iter().copied().fold(1.0, f64::min),
        worst_block: 10.0 * (worst / mean).log10(),
        spread,
    })
}

/// What a rounding does to a source.
#[derive(Default)]
struct Measured {
    rr: f64,
    xx: f64,
    ee: f64,
    rx: f64,
    /// Cosine of each row.
    rows: Vec<f64>,
    /// Mean square error of each block.
    pieces: Vec<f64>,
}

impl Measured {
    fn sqnr(&self) -> f64 {
        10.0 * (self.rr / self.ee).log10()
    }

    fn cosine(&self) -> f64 {
        self.rx / (self.rr * self.xx).sqrt()
    }
}

fn measure(source: &[f32], rounding: &Rounding) -> Option<Measured> {
    let mut all = Measured::default();
    for values in source.chunks_exact(ROW) {
        let rounded = rounding(values)?;
        let mut row = Measured::default();
        for (values, rounded) in values.chunks(PIECE).zip(rounded.chunks(PIECE)) {
            let before = row.ee;
            for (&r, &x) in values.iter().zip(rounded) {
                let (r, x) = (f64::from(r), f64::from(x));
                row.rr += r * r;
                row.xx += x * x;
                row.ee += (x - r) * (x - r);
                row.rx += r * x;
            }
            all.pieces.push((row.ee - before) / values.len() as f64);
        }
        all.rr += row.rr;
        all.xx += row.xx;
        all.ee += row.ee;
        all.rx += row.rx;
        all.rows.push(row.cosine());
    }
    Some(all)
}

/// Sound encoders of a type beside the one that the gates take: ggml's reference quantizer, and
/// importance matrices: a mild one (columns differ by a factor of 4), and a steep one (of 64).
fn other_encoders(ty: TensorType) -> Vec<Rounding> {
    let info = ty.info();
    let (Some(decode), len, bytes) = (info.decode, info.block_len, info.block_bytes) else {
        return Vec::new();
    };
    let mut others: Vec<Rounding> = Vec::new();
    if info.class != Class::Quantized {
        return others;
    }
    let back = move |blocks: &[u8], count: usize| {
        let mut values = vec![0.0; count];
        decode(blocks, &mut values);
        values
    };
    if let Some(encode) = info.encode {
        others.push(Box::new(move |values| {
            let mut blocks = vec![0; values.len() / len * bytes];
            encode(values, &mut blocks);
            Some(back(&blocks, values.len()))
        }));
    }
    if let Some(encode) = info.encode_weighted {
        for steepness in [4f32, 64.0] {
            let mut random = Random(7);
            let weights: Vec<f32> =
                (0..ROW).map(|_| steepness.powf(random.uniform() as f32 - 0.5)).collect();
            others.push(Box::new(move |values| {
                let mut blocks = vec![0; values.len() / len * bytes];
                encode(values, &weights, &mut blocks);
                Some(back(&blocks, values.len()))
            }));
        }
    }
    others
}

/// Schemes of safetensors, as the gates round to them; bits with scales of 16 bits unless the scheme
/// says otherwise.
fn schemes() -> Vec<(&'static str, f64, Grid)> {
    let integers = |group, bits, symmetric| Grid::Integers { group, bits, symmetric, tuned: true };
    let codes = |group, table: &[f32]| {
        let mut table: Vec<f32> = table.iter().copied().filter(|v| v.is_finite()).collect();
        table.sort_by(f32::total_cmp);
        table.dedup();
        Grid::Codes { group, table }
    };
    let row = ROW as f64;
    vec![
        ("INT8 per row", 8.0 + 32.0 / row, integers(ROW, 8, true)),
        ("INT8 per row, zero points", 8.0 + 40.0 / row, integers(ROW, 8, false)),
        ("INT4 of 128", 4.0 + 16.0 / 128.0, integers(128, 4, true)),
        ("INT4 of 128, zero points (AWQ)", 4.0 + 20.0 / 128.0, integers(128, 4, false)),
        ("GPTQ4 of 128", 4.0 + 20.0 / 128.0, integers(128, 4, true)),
        ("GPTQ3 of 128", 3.0 + 19.0 / 128.0, integers(128, 3, true)),
        ("MLX4 of 64", 4.0 + 32.0 / 64.0, integers(64, 4, false)),
        ("HQQ2 of 16", 2.0 + 32.0 / 16.0, integers(16, 2, false)),
        ("FP8 per row", 8.0 + 32.0 / row, codes(ROW, &float::E4M3)),
        ("FP8 of 128", 8.0 + 32.0 / 128.0, codes(128, &float::E4M3)),
        ("NVFP4 of 16, scales not rounded", 4.5, codes(16, &float::E2M1)),
        ("NF4 of 64", 4.0 + 32.0 / 64.0, codes(64, &Grid::NF4)),
    ]
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// In (0, 1).
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Box and Muller.
    fn gauss(&mut self) -> f64 {
        let (a, b) = (self.uniform(), self.uniform());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

fn gauss() -> Vec<f32> {
    let mut random = Random(1);
    (0..ROWS * ROW).map(|_| (0.02 * random.gauss()) as f32).collect()
}

/// Student's t with five degrees of freedom: heavier tails than most weights have.
fn student() -> Vec<f32> {
    let mut random = Random(2);
    let mut draw = || {
        let square: f64 = (0..5).map(|_| random.gauss().powi(2)).sum();
        (0.02 * random.gauss() / (square / 5.0).sqrt()) as f32
    };
    (0..ROWS * ROW).map(|_| draw()).collect()
}

/// The matrices of the embedded suite's F32 reference, cut into rows of the same length.
fn real() -> Vec<f32> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/models/minilm-attn0-f32.safetensors");
    let model = model::open(&path).expect("the embedded suite is there");
    let mut all = Vec::new();
    for tensor in model.tensors.iter().filter(|tensor| tensor.shape.len() == 2) {
        let mut values = vec![0.0; tensor.numel() as usize];
        tensor
            .decode(&model.files, 0..tensor.numel(), &mut Scratch::default(), &mut values)
            .expect("the embedded suite is readable");
        all.extend(values);
    }
    all
}
