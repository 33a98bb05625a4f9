/*!
Layouts of many tools, against their formulas: codes and scales are made at random, the original is what
the formula gives, and the pair must agree to the bit. A damaged counterpart must not.
*/

use serde_json::{Value, json};

use crate::program::*;

/// A stored tensor: name, dtype, shape, bytes.
type Owned = (String, String, Vec<u64>, Vec<u8>);

fn tensor(name: &str, dtype: &str, shape: &[u64], bytes: Vec<u8>) -> Owned {
    (name.to_owned(), dtype.to_owned(), shape.to_vec(), bytes)
}

/// A safetensors file with metadata in its header.
fn file(tensors: &[Owned], metadata: &Value) -> Vec<u8> {
    let stored: Vec<Stored> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (&**name, &**dtype, &**shape, bytes.clone()))
        .collect();
    let plain = safetensors(&stored);
    if metadata.is_null() {
        return plain;
    }
    let len = u64::from_le_bytes(plain[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&plain[8..8 + len]).unwrap();
    header["__metadata__"] = metadata.clone();
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &plain[8 + len..]].concat()
}

/// Values of E2M1 codes.
const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

fn e2m1(code: u8) -> f32 {
    let value = E2M1[usize::from(code & 7)];
    if code & 8 == 0 { value } else { -value }
}

/// The value of an E4M3 byte by the definition of the format.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let value = match exponent {
        0 => mantissa / 8.0 * 2f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if byte & 0x80 == 0 { value } else { -value }
}

/// Codes and scales of a matrix: `rows` x `cols` codes, a scale for each group of `size` columns.
struct Grid {
    rows: usize,
    cols: usize,
    size: usize,
    codes: Vec<u8>,
    scales: Vec<u8>,
}

impl Grid {
    fn new(rows: usize, cols: usize, size: usize, bits: u32, seed: u64) -> Self {
        let mut random = Random(seed);
        let codes = (0..rows * cols).map(|_| random.below(1 << bits) as u8).collect();
        let scales =
            (0..rows * cols.div_ceil(size)).map(|_| 0x28 + random.below(32) as u8).collect();
        Self { rows, cols, size, codes, scales }
    }

    /// The matrix in row-major order.
    fn values(&self, code: impl Fn(u8) -> f32, scale: impl Fn(u8) -> f32) -> Vec<f32> {
        let groups = self.cols.div_ceil(self.size);
        let at = |i: usize| {
            let (row, col) = (i / self.cols, i % self.cols);
            code(self.codes[i]) * scale(self.scales[row * groups + col / self.size])
        };
        (0..self.rows * self.cols).map(at).collect()
    }

    /// Scales in tiles of 128 x 4, as block-scaled matrix products take them: shape and bytes.
    fn tiled(&self, rows: usize) -> (Vec<u64>, Vec<u8>) {
        let groups = self.cols.div_ceil(self.size);
        let (down, across) = (rows.div_ceil(128), groups.div_ceil(4));
        let mut bytes = vec![0; down * across * 512];
        for row in 0..self.rows {
            for group in 0..groups {
                let tile = row / 128 * across + group / 4;
                let place = (row % 32) * 16 + (row % 128) / 32 * 4 + group % 4;
                bytes[tile * 512 + place] = self.scales[row * groups + group];
            }
        }
        (vec![down as u64 * 128, across as u64 * 4], bytes)
    }
}

/// Compares an original with what was made of it: the largest error, and the whole answer.
fn compare(
    reference: &[Owned],
    quantized: &[Owned],
    metadata: &Value,
    config: Option<Value>,
) -> Ran {
    let suite = Suite::new();
    suite.write("r.safetensors", file(reference, &Value::Null));
    suite.write("q/model.safetensors", file(quantized, metadata));
    if let Some(config) = config {
        suite.write("q/config.json", config.to_string());
    }
    suite.qualm(&["diff", "r.safetensors", "q", "--json", "--no-threshold"])
}

/// Every row has no error at all.
fn assert_exact(ran: &Ran, rows: usize, what: &str) {
    assert_eq!(ran.code, 0, "{what}: {ran}");
    let json = ran.json();
    let found = json["tensors"].as_array().unwrap();
    assert_eq!(found.len(), rows, "{what}: {ran}");
    for row in found {
        let least = row["sqnr_db"].as_f64().unwrap_or(f64::INFINITY);
        assert!(row["max_abs"] == 0.0 || least > 120.0, "{what}: {row}");
    }
}

#[test]
fn comfy_nvfp4_has_the_high_nibble_first_and_scales_in_tiles() {
    let header = |key: &str, format: &str| {
        let layers = json!({ "layers": { key: { "format": format } } });
        json!({ "_quantization_metadata": layers.to_string() })
    };
    // Rows and columns of the original, how the layout is named.
    for (rows, cols, named) in [
        (128, 64, "plane"),
        (20, 64, "plane"),
        (160, 96, "header"),
        (48, 40, "prefix"),
        (300, 272, "plane"),
    ] {
        let what = format!("{rows} x {cols} by {named}");
        let grid = Grid::new(rows, cols, 16, 4, 7);
        let factor = 0.0625f32;
        let values: Vec<f32> = grid.values(e2m1, |scale| e4m3(scale) * factor);
        let reference = tensor("a.b.weight", "F32", &[rows as u64, cols as u64], f32s(&values));
        let (padded, width) = (rows.next_multiple_of(16), cols.next_multiple_of(16));
        let mut codes = vec![0; padded * width / 2];
        for row in 0..rows {
            for col in 0..cols {
                let shift = if col % 2 == 0 { 4 } else { 0 };
                codes[row * width / 2 + col / 2] |= grid.codes[row * cols + col] << shift;
            }
        }
        let (shape, scales) = grid.tiled(padded);
        let stored = |scales: Vec<u8>| {
            vec![
                tensor("a.b.weight", "U8", &[padded as u64, width as u64 / 2], codes.clone()),
                tensor("a.b.weight_scale", "F8_E4M3", &shape, scales),
                tensor("a.b.weight_scale_2", "F32", &[], f32s(&[factor])),
                tensor("a.b.input_scale", "F32", &[], f32s(&[1.0])),
            ]
        };
        let mut quantized = stored(scales.clone());
        let metadata = match named {
            "header" => header("a.b", "nvfp4"),
            "prefix" => header("model.a.b", "nvfp4"),
            _ => {
                let text = br#"{"format": "nvfp4"}"#.to_vec();
                quantized.push(tensor("a.b.comfy_quant", "U8", &[text.len() as u64], text));
                Value::Null
            }
        };
        assert_exact(
            &compare(std::slice::from_ref(&reference), &quantized, &metadata, None),
            1,
            &what,
        );
        // Row order instead of tiles is another matrix.
        let mut wrong = scales;
        wrong.rotate_left(16);
        let mut damaged = stored(wrong);
        damaged.extend(quantized.into_iter().skip(4));
        let ran = compare(std::slice::from_ref(&reference), &damaged, &metadata, None);
        assert_ne!(ran.json()["tensors"][0]["max_abs"], 0.0, "{what}: {ran}");
    }
}

#[test]
fn comfy_layouts_that_are_not_decoded_are_refused_by_name() {
    let reference = tensor("a.b.weight", "F32", &[32, 64], f32s(&vec![0.5; 2048]));
    for (settings, says) in [
        (r#"{"format": "svdq_w4a4"}"#, "svdq_w4a4"),
        (r#"{"format": "int8_tensorwise", "convrot": true}"#, "convrot"),
        (r#"{"format": "nvfp4_2", "group_size": 16}"#, "nvfp4_2"),
        ("no json", "comfy_quant"),
    ] {
        let quantized = [
            tensor("a.b.weight", "I8", &[32, 64], vec![1; 2048]),
            tensor("a.b.weight_scale", "F32", &[], f32s(&[0.5])),
            tensor("a.b.comfy_quant", "U8", &[settings.len() as u64], settings.into()),
        ];
        let ran = compare(std::slice::from_ref(&reference), &quantized, &Value::Null, None);
        assert!(ran.code == 6 || ran.code == 5, "{settings}: {ran}");
        assert!(ran.err.contains(says), "{settings}: {ran}");
        assert!(!ran.err.contains("model alone"), "{settings}: {ran}");
    }
}

#[test]
fn one_scale_serves_all_pieces_of_a_table() {
    let mut random = Random(3);
    let pieces = 3;
    let codes: Vec<Vec<u8>> =
        (0..pieces).map(|_| (0..8 * 16).map(|_| 0x20 + random.below(64) as u8).collect()).collect();
    // The name of a piece, dtype of the codes, the scales' shape, one scale a piece or row.
    for (name, dtype, shape) in [
        ("t.shards", "F8_E4M3", vec![1]),
        ("t.parts", "F8_E4M3", vec![]),
        ("t", "F8_E4M3", vec![3]),
        ("t.chunks", "I8", vec![1]),
        ("t.shards", "I8", vec![24, 1]),
    ] {
        let what = format!("{name} {dtype} {shape:?}");
        let count = shape.iter().product::<u64>() as usize;
        let scales: Vec<f32> = (0..count).map(|i| 0.5 + i as f32).collect();
        let scale = |piece: usize, row: usize| match count {
            1 => scales[0],
            3 => scales[piece],
            _ => scales[piece * 8 + row],
        };
        let code = |byte: u8| if dtype == "I8" { f32::from(byte as i8) } else { e4m3(byte) };
        let (mut reference, mut quantized) = (Vec::new(), Vec::new());
        for (piece, codes) in codes.iter().enumerate() {
            let name = format!("{name}.{piece}.weight");
            let values =
                codes.iter().enumerate().map(|(i, byte)| code(*byte) * scale(piece, i / 16));
            reference.push(tensor(&name, "F32", &[8, 16], f32s(&values.collect::<Vec<_>>())));
            quantized.push(tensor(&name, dtype, &[8, 16], codes.clone()));
        }
        quantized.push(tensor("t.weight_scale", "F32", &shape, f32s(&scales)));
        assert_exact(&compare(&reference, &quantized, &Value::Null, None), 3, &what);
        quantized.pop();
        let config = json!({ "quantization_config": { "quant_method": "fp8" } });
        let ran = compare(&reference, &quantized, &Value::Null, Some(config));
        assert_eq!(ran.code, 5, "{what} without its scale: {ran}");
    }
}

#[test]
fn experts_may_be_packed_along_their_inputs() {
    let (experts, inputs, outputs) = (2usize, 32usize, 24usize);
    for (scheme, size, scale_dtype) in [("nvfp4", 16, "F8_E4M3"), ("mxfp4", 32, "U8")] {
        let grids: Vec<Grid> =
            (0..experts).map(|e| Grid::new(outputs, inputs, size, 4, e as u64 + 1)).collect();
        let scale = |byte: u8| match scheme {
            "nvfp4" => e4m3(byte) * 0.5,
            _ => 2f32.powi(i32::from(byte) - 127),
        };
        let (mut values, mut codes, mut scales) = (Vec::new(), Vec::new(), Vec::new());
        for grid in &grids {
            let own = grid.values(e2m1, scale);
            for input in 0..inputs {
                values.extend((0..outputs).map(|out| own[out * inputs + input]));
            }
            for half in 0..inputs / 2 {
                let code = |out: usize, input: usize| grid.codes[out * inputs + input];
                codes.extend((0..outputs).map(|o| code(o, 2 * half) | code(o, 2 * half + 1) << 4));
            }
            for group in 0..inputs / size {
                scales.extend((0..outputs).map(|out| grid.scales[out * (inputs / size) + group]));
            }
        }
        let (e, i, o) = (experts as u64, inputs as u64, outputs as u64);
        let name = "l.experts.down_proj";
        let reference = [tensor(name, "F32", &[e, i, o], f32s(&values))];
        let mut quantized = vec![
            tensor(name, "U8", &[e, i / 2, o], codes),
            tensor(&format!("{name}_weight_scale"), scale_dtype, &[e, i / size as u64, o], scales),
        ];
        if scheme == "nvfp4" {
            quantized.push(tensor(&format!("{name}_weight_scale_2"), "F32", &[], f32s(&[0.5])));
        }
        assert_exact(&compare(&reference, &quantized, &Value::Null, None), 1, scheme);
        let codes = &mut quantized[0].3;
        codes[5] ^= 0x77;
        let ran = compare(&reference, &quantized, &Value::Null, None);
        assert_ne!(ran.json()["tensors"][0]["max_abs"], 0.0, "{scheme}: {ran}");
    }
}

#[test]
fn scales_of_a_stack_may_run_along_its_last_axis() {
    // Shapes of a stack and of its sibling, which axis the scales of each run along, what is said.
    for (shape, sibling, columns, says) in [
        ([2u64, 8, 12], None, true, ""),
        ([2, 12, 8], None, false, ""),
        ([2, 8, 8], Some(([2u64, 8, 16], true)), true, ""),
        ([2, 8, 8], Some(([2, 16, 8], false)), false, ""),
        ([2, 8, 8], None, false, "ambiguous"),
    ] {
        let what = format!("{shape:?} beside {sibling:?}");
        let (mut reference, mut quantized) = (Vec::new(), Vec::new());
        let mut add = |name: &str, [experts, rows, cols]: [u64; 3], columns: bool| {
            let mut random = Random(experts + rows + 31 * cols);
            let len = (experts * rows * cols) as usize;
            let codes: Vec<u8> = (0..len).map(|_| 0x20 + random.below(64) as u8).collect();
            let per = if columns { cols } else { rows };
            let scales: Vec<f32> = (0..experts * per).map(|i| 1.0 + i as f32).collect();
            let values = codes.iter().enumerate().map(|(at, code)| {
                let at = at as u64;
                let (expert, row, col) = (at / (rows * cols), at / cols % rows, at % cols);
                let place = if columns { col } else { row };
                e4m3(*code) * scales[(expert * per + place) as usize]
            });
            let values: Vec<f32> = values.collect();
            reference.push(tensor(name, "F32", &[experts, rows, cols], f32s(&values)));
            quantized.push(tensor(name, "F8_E4M3", &[experts, rows, cols], codes));
            let name = format!("{name}_weight_scale");
            quantized.push(tensor(&name, "F32", &[experts, per], f32s(&scales)));
        };
        let mut rows = 1;
        add("l.experts.down_proj", shape, columns);
        if let Some((shape, columns)) = sibling {
            add("l.experts.gate_up_proj", shape, columns);
            rows += 1;
        }
        assert_exact(&compare(&reference, &quantized, &Value::Null, None), rows, &what);
        let suite = Suite::new();
        suite.write("q.safetensors", file(&quantized, &Value::Null));
        suite.qualm(&["inspect", "q.safetensors"]).exits(0).says(says);
    }
}

#[test]
fn stacks_of_packed_codes_have_bare_names() {
    for (bits, endings, zero) in [
        (4u32, ["_packed", "_scale", "_shape"], false),
        (4, ["_weight_packed", "_weight_scale", "_weight_shape"], false),
        (8, ["_packed", "_scale", "_shape"], false),
    ] {
        let what = format!("{bits} bits, {endings:?}, {zero}");
        let (experts, rows, cols, size) = (2usize, 6usize, 32usize, 16usize);
        let mut random = Random(u64::from(bits));
        let codes: Vec<u32> =
            (0..experts * rows * cols).map(|_| random.below(1 << bits) as u32).collect();
        let scales: Vec<f32> =
            (0..experts * rows * cols / size).map(|_| 0.5 + random.below(8) as f32).collect();
        let half = 1i32 << (bits - 1);
        let values = codes
            .iter()
            .enumerate()
            .map(|(at, code)| (*code as i32 - half) as f32 * scales[at / size]);
        let values: Vec<f32> = values.collect();
        let per_word = (32 / bits) as usize;
        let words: Vec<i32> = codes
            .chunks(per_word)
            .map(|codes| codes.iter().rev().fold(0u32, |word, code| word << bits | code) as i32)
            .collect();
        let name = "l.experts.down_proj";
        let (e, r, c) = (experts as u64, rows as u64, cols as u64);
        let plane = |ending: &str, dtype: &str, shape: &[u64], bytes: Vec<u8>| {
            tensor(&format!("{name}{ending}"), dtype, shape, bytes)
        };
        let reference = [tensor(name, "F32", &[e, r, c], f32s(&values))];
        let sizes: Vec<u8> =
            [rows as i64, cols as i64].iter().flat_map(|n| n.to_le_bytes()).collect();
        let mut quantized = vec![
            plane(endings[0], "I32", &[e, r, c / per_word as u64], i32s(&words)),
            plane(endings[1], "F32", &[e, r, c / size as u64], f32s(&scales)),
            plane(endings[2], "I64", &[2], sizes),
        ];
        assert_exact(&compare(&reference, &quantized, &Value::Null, None), 1, &what);
        quantized.remove(1);
        let ran = compare(&reference, &quantized, &Value::Null, None);
        assert_ne!(ran.code, 0, "{what} without scales: {ran}");
        assert!(ran.err.contains(&format!("{name}_")), "{what}: {ran}");
    }
}

#[test]
fn the_reference_says_how_wide_mlx_codes_are() {
    // Bits and group size of two modules in words of one shape, what the configuration says.
    for (bits, size, config) in [
        (8u32, 32usize, None),
        (4, 64, None),
        (2, 128, None),
        (
            8,
            32,
            Some(
                json!({ "group_size": 64, "bits": 4, "other.prefix.a.fc": { "bits": 8, "group_size": 32 } }),
            ),
        ),
    ] {
        let what = format!("{bits} bits in groups of {size}, {config:?}");
        let (rows, words) = (4usize, 32usize);
        let cols = words * 32 / bits as usize;
        let mut random = Random(u64::from(bits));
        let codes: Vec<u32> = (0..rows * cols).map(|_| random.below(1 << bits) as u32).collect();
        let groups = cols / size;
        let scales: Vec<f32> = (0..rows * groups).map(|_| 0.5 + random.below(4) as f32).collect();
        let biases: Vec<f32> = (0..rows * groups).map(|_| random.below(9) as f32 - 4.0).collect();
        let values = codes
            .iter()
            .enumerate()
            .map(|(i, code)| *code as f32 * scales[i / size] + biases[i / size]);
        let values: Vec<f32> = values.collect();
        let packed: Vec<i32> = codes
            .chunks(32 / bits as usize)
            .map(|codes| codes.iter().rev().fold(0u32, |word, code| word << bits | code) as i32)
            .collect();
        let (r, c, g) = (rows as u64, cols as u64, groups as u64);
        let reference = [tensor("a.fc.weight", "F32", &[r, c], f32s(&values))];
        let quantized = [
            tensor("a.fc.weight", "U32", &[r, words as u64], i32s(&packed)),
            tensor("a.fc.scales", "F32", &[r, g], f32s(&scales)),
            tensor("a.fc.biases", "F32", &[r, g], f32s(&biases)),
        ];
        let config = config.map(|quantization| json!({ "quantization": quantization }));
        assert_exact(&compare(&reference, &quantized, &Value::Null, config.clone()), 1, &what);
        // What no reading of the planes has is another shape.
        let wider = [tensor("a.fc.weight", "F32", &[r, c * 3], f32s(&vec![0.5; rows * cols * 3]))];
        let ran = compare(&wider, &quantized, &Value::Null, config);
        assert_eq!(ran.code, 5, "{what}: {ran}");
        assert!(ran.err.contains("its shape is"), "{what}: {ran}");
    }
    // Alone, the guess is said.
}

#[test]
fn factors_in_the_activation_are_taken_out_of_the_matrix_behind_it() {
    let (inputs, outputs, size) = (32usize, 16usize, 16usize);
    let mut random = Random(9);
    let codes: Vec<u32> = (0..inputs * outputs).map(|_| random.below(16) as u32).collect();
    let scales: Vec<f32> =
        (0..inputs / size * outputs).map(|_| 0.25 + random.below(4) as f32).collect();
    let factors: Vec<f32> = (0..inputs).map(|i| 2f32.powi(i as i32 % 5 - 2)).collect();
    let word = |codes: &[u32]| {
        // Nibble n of a word holds the code of this column.
        let order = [0, 2, 4, 6, 1, 3, 5, 7];
        order.iter().enumerate().fold(0u32, |word, (n, col)| word | codes[*col] << (4 * n)) as i32
    };
    let value = |out: usize, input: usize| {
        let scale = scales[input / size * outputs + out];
        (codes[input * outputs + out] as f32 - 8.0) * scale / factors[input]
    };
    let values: Vec<f32> = (0..outputs)
        .flat_map(|out| (0..inputs).map(move |input| (out, input)))
        .map(|(o, i)| value(o, i))
        .collect();
    let (i, o) = (inputs as u64, outputs as u64);
    for (matrix, activation) in [
        ("h.0.mlp.dense_4h_to_h", "h.0.mlp.act"),
        ("b.ffn.down_proj", "b.ffn.act"),
        ("h.1.mlp.dense_4h_to_h", "h.1.mlp.gelu_impl"),
    ] {
        let reference = [tensor(&format!("{matrix}.weight"), "F32", &[o, i], f32s(&values))];
        let zeros = vec![0x8888_8888u32 as i32; inputs / size * outputs / 8];
        let quantized = |factors: &[f32]| {
            let words: Vec<i32> = codes.chunks(8).map(word).collect();
            vec![
                tensor(&format!("{matrix}.qweight"), "I32", &[i, o / 8], i32s(&words)),
                tensor(&format!("{matrix}.qzeros"), "I32", &[i / size as u64, o / 8], i32s(&zeros)),
                tensor(&format!("{matrix}.scales"), "F32", &[i / size as u64, o], f32s(&scales)),
                tensor(&format!("{activation}.scales"), "F32", &[i], f32s(factors)),
            ]
        };
        let sound = quantized(&factors);
        assert_exact(&compare(&reference, &sound, &Value::Null, None), 1, matrix);
        let mut turned = factors.clone();
        turned.reverse();
        let ran = compare(&reference, &quantized(&turned), &Value::Null, None);
        assert_ne!(ran.json()["tensors"][0]["max_abs"], 0.0, "{matrix}: {ran}");
    }
}

#[test]
fn torchao_applies_the_factor_of_the_activation() {
    let (rows, cols) = (8usize, 32usize);
    let mut random = Random(4);
    let codes: Vec<u8> = (0..rows * cols).map(|_| random.below(255) as u8).collect();
    let scales: Vec<f32> = (0..rows).map(|_| 0.5 + random.below(4) as f32).collect();
    let factors: Vec<f32> = (0..cols).map(|i| 2f32.powi(i as i32 % 4 - 1)).collect();
    let values = codes
        .iter()
        .enumerate()
        .map(|(i, code)| f32::from(*code as i8) * scales[i / cols] * factors[i % cols]);
    let values: Vec<f32> = values.collect();
    let (r, c) = (rows as u64, cols as u64);
    let reference = [tensor("m.weight", "F32", &[r, c], f32s(&values))];
    let metadata = json!({ "m.weight": json!({ "_type": "Int8Tensor", "_data": { "block_size": [1, cols] } }).to_string() });
    for (shape, factors, exact) in [
        (vec![c], factors.clone(), true),
        (vec![1, c], factors.clone(), true),
        (vec![c], factors.iter().rev().copied().collect(), false),
    ] {
        let quantized = [
            tensor("m._weight_qdata", "I8", &[r, c], codes.clone()),
            tensor("m._weight_scale", "F32", &[r, 1], f32s(&scales)),
            tensor("m._weight_act_pre_scale", "F32", &shape, f32s(&factors)),
        ];
        let ran = compare(&reference, &quantized, &metadata, None);
        if exact {
            assert_exact(&ran, 1, &format!("{shape:?}"));
        } else {
            assert_ne!(ran.json()["tensors"][0]["max_abs"], 0.0, "{ran}");
        }
    }
}
