/*!
Bit widths, groups, shapes and orders beyond those of the published checkpoints: codes are packed here
by the formats' descriptions, and must decode to the very values that they were made of.
*/

use crate::program::*;

/// Appends codes of `bits` bits to a little-endian stream of 32-bit words, the first in the lowest bits.
fn dense(codes: &[u32], bits: u32) -> Vec<u32> {
    let mut words = vec![0u32; (codes.len() * bits as usize).div_ceil(32)];
    for (i, &code) in codes.iter().enumerate() {
        for bit in 0..bits as usize {
            let at = i * bits as usize + bit;
            words[at / 32] |= (code >> bit & 1) << (at % 32);
        }
    }
    words
}

/// As many whole codes as fit into each word.
fn loose(codes: &[u32], bits: u32) -> Vec<u32> {
    let each = codes.chunks((32 / bits) as usize);
    each.map(|codes| codes.iter().rev().fold(0, |word, code| word << bits | code)).collect()
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A matrix of codes, the zero points and scales of its groups, and the group of each column.
struct Made {
    rows: usize,
    cols: usize,
    bits: u32,
    group_of: Vec<usize>,
    groups: usize,
    codes: Vec<u32>,
    zeros: Vec<u32>,
    scales: Vec<f32>,
}

impl Made {
    /// Scales are powers of two, so that every value is exact; every code and zero point occurs.
    fn new(rows: usize, cols: usize, bits: u32, group: usize, asymmetric: bool) -> Self {
        let mut random = Random(u64::from(bits) * 1000 + rows as u64);
        let groups = cols.div_ceil(group);
        let most = 1u64 << bits;
        let codes = (0..rows * cols).map(|_| random.below(most) as u32).collect();
        // Zero points of GPTQ's first format are stored less one: none is 0.
        let zero = |random: &mut Random| {
            if asymmetric { 1 + random.below(most - 1) as u32 } else { 1 << (bits - 1) }
        };
        let zeros = (0..rows * groups).map(|_| zero(&mut random)).collect();
        let scales = (0..rows * groups).map(|_| 0.5f32.powi(random.below(6) as i32)).collect();
        let group_of = (0..cols).map(|column| column / group).collect();
        Self { rows, cols, bits, group_of, groups, codes, zeros, scales }
    }

    /// Columns in another order of groups, as activation order leaves them.
    fn shuffled(mut self) -> Self {
        let mut random = Random(99);
        for i in (1..self.cols).rev() {
            self.group_of.swap(i, random.below(i as u64 + 1) as usize);
        }
        self
    }

    fn values(&self) -> Vec<f32> {
        let value = |i: usize| {
            let at = i / self.cols * self.groups + self.group_of[i % self.cols];
            (self.codes[i] as f32 - self.zeros[at] as f32) * self.scales[at]
        };
        (0..self.rows * self.cols).map(value).collect()
    }

    fn column(&self, column: usize) -> Vec<u32> {
        (0..self.rows).map(|row| self.codes[row * self.cols + column]).collect()
    }

    fn rows(&self, pack: fn(&[u32], u32) -> Vec<u32>) -> Vec<u32> {
        self.codes.chunks(self.cols).flat_map(|row| pack(row, self.bits)).collect()
    }
}

/// The entry of a matrix at the mirrored place.
fn transposed<T: Copy>(values: &[T], rows: usize, cols: usize) -> Vec<T> {
    (0..rows * cols).map(|i| values[i % rows * cols + i / rows]).collect()
}

/// The checkpoint decodes to exactly these values.
fn exact(what: &str, made: &Made, config: &str, planes: &[Stored]) {
    let suite = Suite::new();
    let shape: &[u64] = &[made.rows as u64, made.cols as u64];
    suite.write("r.safetensors", safetensors(&[("l.weight", "F32", shape, f32s(&made.values()))]));
    suite.write("q/model.safetensors", safetensors(planes));
    suite.write("q/config.json", config);
    let ran = suite.qualm(&["diff", "r.safetensors", "q", "--json"]);
    assert_eq!(ran.code, 0, "{what}: {ran}");
    let row = &ran.json()["tensors"][0];
    assert_eq!(row["max_abs"], 0.0, "{what}: {ran}");
    // Every plane counts.
    let stored: usize = planes.iter().map(|(.., bytes)| bytes.len()).sum();
    assert!(row["stored_bytes"].as_u64().unwrap() <= stored as u64, "{what}");
    assert!(row["bits_per_weight"].as_f64().unwrap() >= f64::from(made.bits), "{what}");
}

#[test]
fn compressed_tensors_of_every_width_in_both_packings() {
    for bits in 2..=8 {
        for (version, pack) in [("0.17.0", dense as fn(&[u32], u32) -> Vec<u32>), ("0.10.0", loose)]
        {
            for asymmetric in [false, true] {
                for (rows, cols, group) in [(8, 128, 32), (12, 96, 96)] {
                    let made = Made::new(rows, cols, bits, group, asymmetric);
                    let words = made.rows(pack);
                    let size = [rows as u64, (words.len() / rows) as u64];
                    let scale = [rows as u64, made.groups as u64];
                    let shape: Vec<u8> =
                        [rows as u64, cols as u64].iter().flat_map(|n| n.to_le_bytes()).collect();
                    let mut planes: Vec<Stored> = vec![
                        ("l.weight_packed", "I32", &size, bytes(&words)),
                        ("l.weight_scale", "F32", &scale, f32s(&made.scales)),
                        ("l.weight_shape", "I64", &[2], shape),
                    ];
                    // Zero points are packed down the columns.
                    let down: Vec<u32> = transposed(&made.zeros, rows, made.groups)
                        .chunks(rows)
                        .flat_map(|column| pack(column, bits))
                        .collect();
                    let zero_rows = down.len() / made.groups;
                    let down = transposed(&down, made.groups, zero_rows);
                    let zero_size = [zero_rows as u64, made.groups as u64];
                    if asymmetric {
                        let name = "l.weight_zero_point";
                        planes.push((name, "I32", &zero_size, bytes(&down)));
                    }
                    let config = format!(
                        r#"{{"quantization_config": {{"quant_method": "compressed-tensors", "format": "pack-quantized", "version": "{version}", "quantization_status": "compressed", "config_groups": {{"group_0": {{"targets": ["Linear"], "weights": {{"num_bits": {bits}, "type": "int", "symmetric": {}, "strategy": "group", "group_size": {group}}}}}}}}}}}"#,
                        !asymmetric
                    );
                    let what =
                        format!("{bits} bits, {version}, asymmetric {asymmetric}, groups {group}");
                    exact(&what, &made, &config, &planes);
                }
            }
        }
    }
}

#[test]
fn gptq_of_every_width_and_order() {
    for bits in [2, 3, 4, 8] {
        for (format, less) in [("gptq", 1), ("gptq_v2", 0)] {
            for ordered in [true, false] {
                let made = Made::new(64, 128, bits, 32, true);
                let made = if ordered { made } else { made.shuffled() };
                let (outs, ins) = (made.rows, made.cols);
                // A stream of codes down each column of the transposed weight.
                let columns: Vec<u32> =
                    made.codes.chunks(ins).flat_map(|row| dense(row, bits)).collect();
                let words = columns.len() / outs;
                let qweight = transposed(&columns, outs, words);
                let zeros: Vec<u32> = transposed(&made.zeros, outs, made.groups)
                    .chunks(outs)
                    .flat_map(|group| {
                        dense(&group.iter().map(|zero| zero - less).collect::<Vec<_>>(), bits)
                    })
                    .collect();
                let scales = transposed(&made.scales, outs, made.groups);
                let index: Vec<i32> = made.group_of.iter().map(|&group| group as i32).collect();
                let config = format!(
                    r#"{{"quantization_config": {{"quant_method": "gptq", "bits": {bits}, "group_size": 32, "desc_act": {}, "sym": false, "checkpoint_format": "{format}"}}}}"#,
                    !ordered
                );
                let planes: Vec<Stored> = vec![
                    ("l.qweight", "I32", &[0; 2], bytes(&qweight)),
                    ("l.qzeros", "I32", &[0; 2], bytes(&zeros)),
                    ("l.scales", "F32", &[0; 2], f32s(&scales)),
                    ("l.g_idx", "I32", &[0; 1], i32s(&index)),
                ];
                let shapes: [Vec<u64>; 4] = [
                    vec![words as u64, outs as u64],
                    vec![made.groups as u64, (zeros.len() / made.groups) as u64],
                    vec![made.groups as u64, outs as u64],
                    vec![ins as u64],
                ];
                let planes: Vec<Stored> = planes
                    .into_iter()
                    .zip(&shapes)
                    .map(|((name, dtype, _, bytes), shape)| (name, dtype, &shape[..], bytes))
                    .collect();
                let what = format!("{bits} bits, {format}, in order {ordered}");
                exact(&what, &made, &config, &planes);
            }
        }
    }
}

#[test]
fn mlx_of_every_width_and_group() {
    for bits in [2, 3, 4, 5, 6, 8] {
        for group in [32, 64, 128] {
            let made = Made::new(6, 256, bits, group, true);
            let words = made.rows(dense);
            // W = scale · q + bias.
            let biases: Vec<f32> =
                made.scales.iter().zip(&made.zeros).map(|(s, z)| -s * *z as f32).collect();
            let size = [6, (words.len() / 6) as u64];
            let groups = [6, made.groups as u64];
            let config =
                format!(r#"{{"quantization": {{"group_size": {group}, "bits": {bits}}}}}"#);
            let planes: [Stored; 3] = [
                ("l.weight", "U32", &size, bytes(&words)),
                ("l.scales", "F32", &groups, f32s(&made.scales)),
                ("l.biases", "F32", &groups, f32s(&biases)),
            ];
            exact(&format!("{bits} bits, groups of {group}"), &made, &config, &planes);
        }
    }
}

#[test]
fn awq_in_the_order_of_its_kernels() {
    const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];
    for group in [32, 128] {
        let made = Made::new(64, 128, 4, group, true);
        let (outs, ins) = (made.rows, made.cols);
        let pack = |codes: &[u32]| -> Vec<u32> {
            let word = |codes: &[u32]| {
                (0..8).fold(0, |word, place| word | codes[ORDER[place]] << (4 * place))
            };
            codes.chunks(8).map(word).collect()
        };
        let qweight: Vec<u32> = (0..ins).flat_map(|column| pack(&made.column(column))).collect();
        let zeros = transposed(&made.zeros, outs, made.groups);
        let qzeros: Vec<u32> = zeros.chunks(outs).flat_map(pack).collect();
        let scales = transposed(&made.scales, outs, made.groups);
        let words = outs as u64 / 8;
        let config = format!(
            r#"{{"quantization_config": {{"quant_method": "awq", "bits": 4, "group_size": {group}, "zero_point": true, "version": "gemm"}}}}"#
        );
        let groups = made.groups as u64;
        let planes: [Stored; 3] = [
            ("l.qweight", "I32", &[ins as u64, words], bytes(&qweight)),
            ("l.qzeros", "I32", &[groups, words], bytes(&qzeros)),
            ("l.scales", "F32", &[groups, outs as u64], f32s(&scales)),
        ];
        exact(&format!("groups of {group}"), &made, &config, &planes);
    }
}

#[test]
fn eight_bits_with_rows_of_scales() {
    // LLM.int8: W = CB · SCB / 127.
    let suite = Suite::new();
    let codes: Vec<i8> = (0..128).map(|i: i32| (i * 37 % 255 - 127) as i8).collect();
    let factors = [127.0f32, 254.0, 63.5, 508.0];
    let values: Vec<f32> = codes
        .iter()
        .enumerate()
        .map(|(i, code)| f32::from(*code) * (factors[i / 32] / 127.0))
        .collect();
    let raw: Vec<u8> = codes.iter().map(|code| code.cast_unsigned()).collect();
    suite.models(
        &[("l.weight", "F32", &[4, 32], f32s(&values))],
        &[("l.weight", "I8", &[4, 32], raw), ("l.SCB", "F32", &[4], f32s(&factors))],
    );
    let json = suite.qualm(&["diff", "r.safetensors", "q.safetensors", "--json"]).exits(0).json();
    assert!(json["tensors"][0]["max_abs"].as_f64().unwrap() < 1e-4, "{json}");
    assert_eq!(json["tensors"][0]["qtype"], "INT8");
}
