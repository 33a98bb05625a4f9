/*!
Code books of vectors, trellises and groups of mixed widths in shapes, rates and orders beyond those of
the published checkpoints: decoded here bit by bit, by the formats' descriptions, in f64.
*/

use crate::program::*;

/// The checkpoint decodes to these values, but for roundings to f32 (relative to the largest).
pub fn near(what: &str, shape: [usize; 2], values: &[f64], config: &str, planes: &[Stored]) {
    let suite = Suite::new();
    let floats: Vec<f32> = values.iter().map(|&value| value as f32).collect();
    let size = shape.map(|extent| extent as u64);
    suite.write("r.safetensors", safetensors(&[("l.weight", "F32", &size, f32s(&floats))]));
    suite.write("q/model.safetensors", safetensors(planes));
    suite.write("q/config.json", config);
    let ran = suite.qualm(&["diff", "r.safetensors", "q", "--no-threshold", "--json"]);
    assert_eq!(ran.code, 0, "{what}: {ran}");
    let json = ran.json();
    assert_eq!(json["tensors"].as_array().map(Vec::len), Some(1), "{what}: {ran}");
    let off = json["tensors"][0]["max_abs"].as_f64().unwrap();
    let largest = floats.iter().fold(0f32, |most, value| most.max(value.abs()));
    assert!(largest > 0.0 && off <= f64::from(largest) * 4e-6, "{what}: {off} of {largest}");
}

fn f16(value: f32) -> f32 {
    half::f16::from_f32(value).to_f32()
}

fn f16s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect()
}

fn u16s(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn bytes_of(random: &mut Random, len: usize) -> Vec<u8> {
    (0..len).map(|_| random.below(256) as u8).collect()
}

/// What EXL3's code books make of a state.
fn state_value(book: &str, state: u32) -> f64 {
    let half = |bits: u32| half::f16::from_bits(bits as u16).to_f64();
    let sum = |y: u32| {
        let y = y & 0x8FFF_8FFF ^ 0x3B60_3B60;
        half::f16::from_f64(half(y & 0xFFFF) + half(y >> 16)).to_f64()
    };
    match book {
        "mcg" => sum(state.wrapping_mul(0xCBAC_1FED)),
        "mul1" => {
            let y = state.wrapping_mul(0x83DC_D12D);
            let bytes = (y & 255) + (y >> 8 & 255) + (y >> 16 & 255) + (y >> 24);
            half::f16::from_f64(f64::from(1024 + bytes) * half(0x1EEE) + half(0xC931)).to_f64()
        }
        _ => sum(state.wrapping_mul(89_226_354).wrapping_add(64_248_484)),
    }
}

/// Sylvester's Hadamard matrix: the sign of row i, column j.
fn sign(i: usize, j: usize) -> f64 {
    if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 }
}

/// The trellis [in, out] that some bytes stand for, one bit after the other.
fn trellis(bytes: &[u8], book: &str, words: usize, ins: usize, outs: usize) -> Vec<f64> {
    let mut values = vec![0.0; ins * outs];
    for (tile, bytes) in bytes.chunks_exact(2 * words).enumerate() {
        let bits: Vec<bool> = bytes
            .chunks_exact(4)
            .flat_map(|word| {
                let word = u32::from_le_bytes(word.try_into().unwrap());
                (0..32).map(move |bit| word >> (31 - bit) & 1 == 1)
            })
            .collect();
        let (row, col) = (tile / (outs / 16) * 16, tile % (outs / 16) * 16);
        // Two values take words / 8 bits, the first the smaller half.
        let pair = words / 8;
        let mut end = 0;
        for t in 0..256usize {
            end += if t.is_multiple_of(2) { pair / 2 } else { pair - pair / 2 };
            let at = |back: usize| bits[(end + bits.len() - back) % bits.len()];
            let state = (1..=16).rev().fold(0, |state, back| state << 1 | u32::from(at(back)));
            let (u, lane) = (t / 8, t % 8);
            let r = 2 * (u % 4) + [0, 1, 8, 9][lane % 4];
            let c = u / 4 + if lane < 4 { 0 } else { 8 };
            values[(row + r) * outs + col + c] = state_value(book, state);
        }
    }
    values
}

/// diag(suh) H V H diag(svh), transposed: blocks of 128.
fn rotated(v: &[f64], suh: &[f64], svh: &[f64]) -> Vec<f64> {
    let (ins, outs) = (suh.len(), svh.len());
    let mut once = vec![0.0; ins * outs];
    for i in 0..ins {
        for o in 0..outs {
            let block = i / 128 * 128;
            let sum: f64 = (0..128).map(|k| sign(i % 128, k) * v[(block + k) * outs + o]).sum();
            once[i * outs + o] = sum / 128f64.sqrt() * suh[i];
        }
    }
    let mut twice = vec![0.0; ins * outs];
    for o in 0..outs {
        for i in 0..ins {
            let block = o / 128 * 128;
            let sum: f64 = (0..128).map(|k| sign(o % 128, k) * once[i * outs + block + k]).sum();
            twice[o * ins + i] = sum / 128f64.sqrt() * svh[o];
        }
    }
    twice
}

#[test]
fn exl3_of_every_rate_book_and_padding() {
    let mut random = Random(3);
    let whole = [16, 32, 48, 64, 80, 96, 112, 128];
    let cases = ["", "mcg", "mul1"].into_iter().flat_map(|book| whole.map(|words| (book, words)));
    for (i, (book, words)) in cases.chain([24, 40, 56].map(|words| ("mul1", words))).enumerate() {
        let (ins, outs) = [(128, 128), (256, 128), (128, 256)][i % 3];
        // Some are padded: the reference is smaller than what is stored.
        let (rows, cols) = if i.is_multiple_of(2) { (outs, ins) } else { (outs - 27, ins - 100) };
        let tiles = bytes_of(&mut random, ins * outs / 256 * words * 2);
        let signs = i % 5 == 4;
        let mut factors = |len: usize| -> Vec<f32> {
            let normals = random.normals(len);
            normals.iter().map(|v| if signs { 1f32.copysign(*v) } else { f16(*v) }).collect()
        };
        let (suh, svh) = (factors(ins), factors(outs));
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        let all = rotated(&trellis(&tiles, book, words, ins, outs), &wide(&suh), &wide(&svh));
        let values: Vec<f64> =
            all.chunks(ins).take(rows).flat_map(|row| &row[..cols]).copied().collect();
        let shape = [ins as u64 / 16, outs as u64 / 16, words as u64];
        let masks = |values: &[f32]| -> Vec<u8> {
            let words = values.chunks(16).map(|run| {
                run.iter().rev().fold(0u16, |word, value| word << 1 | u16::from(*value < 0.0))
            });
            u16s(&words.collect::<Vec<u16>>())
        };
        let (ins, outs) = (ins as u64, outs as u64);
        let sizes = [[ins / 16], [outs / 16], [ins], [outs]];
        let mut planes: Vec<Stored> = vec![("l.trellis", "I16", &shape, tiles)];
        if signs {
            planes.push(("l.su", "I16", &sizes[0], masks(&suh)));
            planes.push(("l.sv", "I16", &sizes[1], masks(&svh)));
        } else {
            planes.push(("l.suh", "F16", &sizes[2], f16s(&suh)));
            planes.push(("l.svh", "F16", &sizes[3], f16s(&svh)));
        }
        match book {
            "mcg" => planes.push(("l.mcg", "I32", &[], 0xCBAC_1FEDu32.to_le_bytes().to_vec())),
            "mul1" => planes.push(("l.mul1", "I32", &[], 0x83DC_D12Du32.to_le_bytes().to_vec())),
            _ => {}
        }
        let what = format!("{book:?}, {words} words, {rows} x {cols}, signs {signs}");
        near(
            &what,
            [rows, cols],
            &values,
            r#"{"quantization_config": {"quant_method": "exl3"}}"#,
            &planes,
        );
    }
}

#[test]
fn exl3_embeddings_of_every_width() {
    let mut random = Random(5);
    for bits in 1..=8usize {
        let (rows, cols, groups) = [(5, 300, 2), (3, 256, 1), (4, 513, 3)][bits % 3];
        let mut stored = Vec::new();
        let mut all = vec![0.0; rows * groups * 256];
        let signs: Vec<f32> = random.normals(groups * 256).iter().map(|v| f16(*v)).collect();
        for (index, group) in all.chunks_exact_mut(256).enumerate() {
            let scale = f16(0.5 + random.below(100) as f32 / 64.0);
            let words = bytes_of(&mut random, 32 * bits);
            stored.extend(f16s(&[scale]));
            stored.extend(&words);
            let bit = |at: usize| u64::from(words[at / 8] >> (at % 8) & 1);
            let code = |i: usize| {
                let i = i % 256;
                (0..bits).map(|b| bit(i * bits + b) << b).sum::<u64>()
            };
            let values: Vec<f64> = (0..256)
                .map(|i| {
                    let state: u64 =
                        (0..16usize.div_ceil(bits)).map(|j| code(i + 256 - j) << (j * bits)).sum();
                    state_value("mul1", state as u32 & 0xFFFF) * f64::from(scale)
                })
                .collect();
            for (i, value) in group.iter_mut().enumerate() {
                let sum: f64 = values.iter().enumerate().map(|(k, v)| sign(i, k) * v).sum();
                *value = sum / 16.0 * f64::from(signs[index % groups * 256 + i]);
            }
        }
        let values: Vec<f64> =
            all.chunks(groups * 256).flat_map(|row| &row[..cols]).copied().collect();
        let trellis = [rows as u64, (groups * (1 + 16 * bits)) as u64];
        let planes: [Stored; 2] = [
            ("l.trellis", "I16", &trellis, stored),
            ("l.signs", "F16", &[groups as u64, 256], f16s(&signs)),
        ];
        near(&format!("{bits} bits, {cols} columns"), [rows, cols], &values, "{}", &planes);
    }
}

/// A permutation.
fn shuffled(random: &mut Random, len: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len as u32).collect();
    for i in (1..len).rev() {
        order.swap(i, random.below(i as u64 + 1) as usize);
    }
    order
}

/// Numbers of `bits` bits as one stream, the lowest bits first, in whole 32-bit words.
fn stream(numbers: &[u32], bits: usize) -> Vec<u32> {
    let mut words = vec![0u32; (numbers.len() * bits).div_ceil(32)];
    for (i, number) in numbers.iter().enumerate() {
        for bit in 0..bits {
            words[(i * bits + bit) / 32] |= (number >> bit & 1) << ((i * bits + bit) % 32);
        }
    }
    words
}

fn u32s(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn exl2_of_mixed_widths_orders_and_padding() {
    let mut random = Random(7);
    for (groups, outs, padded, inverse) in [
        (&[(8, 32), (6, 64), (5, 32), (4, 96), (3, 64), (2, 32)][..], 40usize, 64usize, true),
        (&[(4, 128), (4, 64)], 32, 32, false),
        (&[(5, 64), (3, 40)], 33, 64, true),
        (&[(8, 32), (2, 7)], 8, 32, true),
        (&[(6, 17)], 64, 64, false),
    ] {
        let ins: usize = groups.iter().map(|(_, rows)| rows).sum();
        let order = shuffled(&mut random, ins);
        let mut stored: Vec<Vec<u32>> = Vec::new();
        let (mut table, mut scales, mut largest) = (Vec::new(), Vec::new(), Vec::new());
        let mut w = Vec::new();
        for &(bits, rows) in groups {
            table.extend([bits as u16, stored.len() as u16]);
            let most = f16(0.01 + random.below(1000) as f32 / 3000.0);
            let nibbles: Vec<u32> = (0..padded).map(|_| random.below(16) as u32).collect();
            let codes: Vec<u32> =
                (0..rows * padded).map(|_| random.below(1 << bits) as u32).collect();
            let scale = |n: usize| f64::from((nibbles[n] + 1).pow(2)) * f64::from(most) / 256.0;
            for row in codes.chunks(padded) {
                let value = |n: usize| (f64::from(row[n]) - f64::from(1 << (bits - 1))) * scale(n);
                w.push((0..padded).map(value).collect::<Vec<f64>>());
            }
            let columns: Vec<Vec<u32>> = (0..padded)
                .map(|n| {
                    stream(&codes.iter().skip(n).step_by(padded).copied().collect::<Vec<_>>(), bits)
                })
                .collect();
            for word in 0..columns[0].len() {
                stored.push(columns.iter().map(|column| column[word]).collect());
            }
            scales.extend(stream(&nibbles, 4));
            largest.push(most);
        }
        // Input c is stored row order[c].
        let values: Vec<f64> = (0..outs)
            .flat_map(|n| order.iter().map(|&k| w[k as usize][n]).collect::<Vec<f64>>())
            .collect();
        let mut back = vec![0; ins];
        for (input, &row) in order.iter().enumerate() {
            back[row as usize] = input as u32;
        }
        let count = groups.len() as u64;
        let (words, padded) = (stored.len() as u64, padded as u64);
        let permutation = if inverse { ("l.q_invperm", &order) } else { ("l.q_perm", &back) };
        let planes: [Stored; 5] = [
            ("l.q_weight", "I32", &[words, padded], u32s(&stored.concat())),
            ("l.q_groups", "I16", &[2 * count], u16s(&table)),
            ("l.q_scale", "I32", &[count, padded / 8], u32s(&scales)),
            ("l.q_scale_max", "F16", &[count], f16s(&largest)),
            (permutation.0, "I32", &[ins as u64], u32s(permutation.1)),
        ];
        near(&format!("{groups:?}, {outs} outputs"), [outs, ins], &values, "{}", &planes);
    }
}

#[test]
fn aqlm_of_any_group_book_and_scale() {
    let mut random = Random(11);
    for (rows, cols, books, bits, height, width, grouped) in [
        (6usize, 8usize, 1usize, 16usize, 1usize, 8usize, false),
        (4, 12, 3, 5, 2, 4, false),
        (5, 7, 8, 8, 1, 8, true),
        (2, 3, 2, 9, 4, 16, true),
        (70, 40, 1, 15, 1, 8, false),
    ] {
        let entries = 1usize << bits;
        let table: Vec<f32> =
            random.normals(books * entries * height * width).iter().map(|v| f16(*v)).collect();
        let codes: Vec<u32> =
            (0..rows * cols * books).map(|_| random.below(entries as u64) as u32).collect();
        let scales: Vec<f32> = random
            .normals(if grouped { rows * cols } else { rows })
            .iter()
            .map(|v| f16(*v))
            .collect();
        let mut values = vec![0.0; rows * height * cols * width];
        for (i, value) in values.iter_mut().enumerate() {
            let (row, col) = (i / (cols * width), i % (cols * width));
            let (o, a, g, b) = (row / height, row % height, col / width, col % width);
            let sum: f64 = (0..books)
                .map(|c| {
                    let code = codes[(o * cols + g) * books + c] as usize;
                    f64::from(table[((c * entries + code) * height + a) * width + b])
                })
                .sum();
            *value = sum * f64::from(scales[if grouped { o * cols + g } else { o }]);
        }
        let (narrow, stored): (bool, Vec<u8>) = if bits <= 8 {
            (true, codes.iter().map(|&code| code as u8).collect())
        } else {
            (
                false,
                codes
                    .iter()
                    .flat_map(|&code| {
                        // As the tool does: codes of the upper half are negative.
                        let signed = if code as usize >= entries / 2 {
                            code as i32 - entries as i32
                        } else {
                            code as i32
                        };
                        (signed as i16).to_le_bytes()
                    })
                    .collect(),
            )
        };
        let stored = if bits < 8 {
            let signed = |code: u32| {
                if code as usize >= entries / 2 {
                    code as i32 - entries as i32
                } else {
                    code as i32
                }
            };
            codes.iter().map(|&code| (signed(code) as i8).cast_unsigned()).collect()
        } else {
            stored
        };
        let shape = [rows as u64, cols as u64, books as u64];
        let book = [books as u64, entries as u64, height as u64, width as u64];
        let scale = [rows as u64, if grouped { cols as u64 } else { 1 }, 1, 1];
        let planes: [Stored; 3] = [
            ("l.codes", if narrow { "I8" } else { "I16" }, &shape, stored),
            ("l.codebooks", "F16", &book, f16s(&table)),
            ("l.scales", "F16", &scale, f16s(&scales)),
        ];
        let what = format!("{books}x{bits}, groups of {height} x {width}");
        near(&what, [rows * height, cols * width], &values, "{}", &planes);
    }
}

/// A VPTQ module to be made.
struct Vptq {
    outs: usize,
    ins: usize,
    len: usize,
    books: [usize; 2],
    groups: usize,
    outliers: (usize, usize, usize),
    packed: bool,
    permuted: bool,
    normed: bool,
}

#[test]
fn vptq_with_and_without_everything() {
    let mut random = Random(13);
    let plain = Vptq {
        outs: 20,
        ins: 33,
        len: 4,
        books: [64, 0],
        groups: 1,
        outliers: (0, 0, 0),
        packed: true,
        permuted: false,
        normed: false,
    };
    for made in [
        Vptq { ..plain },
        Vptq { books: [4096, 256], len: 8, permuted: true, normed: true, ..plain },
        Vptq { books: [65536, 0], len: 8, outs: 9, ..plain },
        Vptq { books: [32, 16], groups: 3, outliers: (5, 2, 16), ..plain },
        Vptq { books: [100, 9], packed: false, groups: 2, normed: true, ..plain },
        Vptq { books: [100, 9], groups: 2, permuted: true, outliers: (1, 3, 7), ..plain },
        Vptq { books: [65536, 65536], len: 6, outs: 17, permuted: true, ..plain },
        Vptq { len: 16, outs: 33, ins: 70, groups: 4, normed: true, ..plain },
    ] {
        check_vptq(&made, &mut random);
    }
}

fn check_vptq(made: &Vptq, random: &mut Random) {
    let Vptq { outs, ins, len, books: [entries, residuals], groups, .. } = *made;
    let (outliers, outlier_len, outlier_entries) = made.outliers;
    let group_len = (ins - outliers).div_ceil(groups);
    let rows = outs.div_ceil(len);
    let table = |random: &mut Random, count: usize| -> Vec<f32> {
        random.normals(count).iter().map(|v| f16(*v)).collect()
    };
    let main = table(random, groups * entries * len);
    let rest = table(random, groups * residuals * len);
    let outlier = table(random, outlier_entries * outlier_len);
    let count = groups * rows * group_len;
    let index: Vec<u32> = (0..count).map(|_| random.below(entries as u64) as u32).collect();
    let residual: Vec<u32> =
        (0..count).map(|_| random.below(residuals.max(1) as u64) as u32).collect();
    let outlier_rows = outs.div_ceil(outlier_len.max(1));
    let outlier_index: Vec<u16> = (0..outlier_rows * outliers)
        .map(|_| random.below(outlier_entries.max(1) as u64) as u16)
        .collect();
    let perm = if made.permuted { shuffled(random, ins) } else { (0..ins as u32).collect() };
    let (scale, shift) = (table(random, ins), table(random, ins));
    let mut values = vec![0.0; outs * ins];
    for o in 0..outs {
        for j in 0..ins {
            let value = if j < outliers {
                let at = outlier_index[o / outlier_len * outliers + j] as usize;
                f64::from(outlier[at * outlier_len + o % outlier_len])
            } else {
                let (g, jj) = ((j - outliers) / group_len, (j - outliers) % group_len);
                let at = (g * rows + o / len) * group_len + jj;
                let of = |table: &[f32], entries: usize, index: u32| {
                    f64::from(table[(g * entries + index as usize) * len + o % len])
                };
                let more = if residuals > 0 { of(&rest, residuals, residual[at]) } else { 0.0 };
                of(&main, entries, index[at]) + more
            };
            let column = perm[j] as usize;
            let normed = value * f64::from(scale[column]) + f64::from(shift[column]);
            values[o * ins + column] = if made.normed { normed } else { value };
        }
    }
    let bits = |entries: usize| entries.next_power_of_two().trailing_zeros() as usize;
    let (low, high) = (bits(entries), if residuals > 0 { bits(residuals) } else { 0 });
    let sizes =
        [groups, rows, group_len, (group_len * (low + high)).div_ceil(32)].map(|n| n as u64);
    let [g, r, columns, words] = sizes;
    let book = [g, (entries * len) as u64];
    let rest_book = [g, (residuals * len) as u64];
    let outlier_book = [1, (outlier_entries * outlier_len) as u64];
    let outlier_shape = [1, outlier_rows as u64, outliers as u64];
    let (packed, unpacked, columns_of) = ([g, r, words], [g, r, columns], [ins as u64]);
    let narrow = |index: &[u32]| u16s(&index.iter().map(|&i| i as u16).collect::<Vec<u16>>());
    let mut planes: Vec<Stored> = vec![("l.centroids.weight", "F16", &book, f16s(&main))];
    if made.packed {
        let both: Vec<u64> = index
            .iter()
            .zip(&residual)
            .map(|(&i, &r)| u64::from(i) | u64::from(if residuals > 0 { r } else { 0 }) << low)
            .collect();
        let lines: Vec<u8> = both
            .chunks(group_len)
            .flat_map(|line| {
                let bits: Vec<u32> = line
                    .iter()
                    .flat_map(|both| (0..low + high).map(move |bit| (both >> bit & 1) as u32))
                    .collect();
                u32s(&stream(&bits, 1))
            })
            .collect();
        planes.push(("l.indices", "I32", &packed, lines));
    } else {
        planes.push(("l.indices", "F16", &unpacked, narrow(&index)));
        planes.push(("l.res_indices", "F16", &unpacked, narrow(&residual)));
    }
    if residuals > 0 {
        planes.push(("l.res_centroids.weight", "F16", &rest_book, f16s(&rest)));
    }
    if outliers > 0 {
        planes.push(("l.outlier_indices", "I16", &outlier_shape, u16s(&outlier_index)));
        planes.push(("l.outlier_centroids.weight", "F16", &outlier_book, f16s(&outlier)));
    }
    if made.permuted {
        planes.push(("l.perm", "I16", &columns_of, narrow(&perm)));
    }
    if made.normed {
        planes.push(("l.weight_scale", "F16", &columns_of, f16s(&scale)));
        planes.push(("l.weight_bias", "F16", &columns_of, f16s(&shift)));
    }
    let none = |n: usize| if n == 0 { -1 } else { n as i64 };
    let config = serde_json::json!({"quantization_config": {"quant_method": "vptq", "config_for_layers": {"l": {
        "in_features": ins, "out_features": outs, "vector_lens": [none(outlier_len), len],
        "num_centroids": [none(outlier_entries), entries], "num_res_centroids": [-1, none(residuals)],
        "group_num": groups, "group_size": group_len, "outlier_size": outliers,
        "enable_norm": made.normed, "enable_perm": made.permuted, "is_indice_packed": made.packed,
        "indices_as_float": !made.packed,
    }}}});
    let what = format!(
        "{entries} + {residuals} vectors of {len}, {groups} groups, {outliers} outliers, packed {}",
        made.packed
    );
    near(&what, [outs, ins], &values, &config.to_string(), &planes);
}
