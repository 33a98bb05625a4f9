/*!
Two of four weights kept, as bit masks and for the tensor cores, and the marlin order: packed here as
their tools pack, and decoded to the very values.
*/

use crate::program::*;
use crate::vectors::near;

/// Which two of each four are kept.
fn pairs(random: &mut Random) -> [usize; 2] {
    [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]][random.below(6) as usize]
}

fn f16s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect()
}

#[test]
fn bit_masks_over_every_kind_of_values() {
    let mut random = Random(17);
    // E4M3 codes of 0.5, 1, 1.5, 2, and their negatives.
    let codes =
        [(0x30u8, 0.5f32), (0x38, 1.0), (0x3C, 1.5), (0x40, 2.0), (0xB8, -1.0), (0xC0, -2.0)];
    for (dtype, rows, cols, scaled) in [
        ("F32", 3usize, 20usize, false),
        ("F16", 5, 12, false),
        ("BF16", 2, 132, false),
        ("F8_E4M3", 4, 36, true),
        ("I8", 7, 16, true),
        ("F8_E4M3", 1, 4, true),
    ] {
        for per_tensor in [false, true] {
            let scales: Vec<f32> =
                (0..if per_tensor { 1 } else { rows }).map(|i| 0.5 + i as f32).collect();
            let (mut values, mut kept, mut mask) = (Vec::new(), Vec::new(), Vec::new());
            for row in 0..rows {
                let mut bits = vec![0u8; cols.div_ceil(8)];
                for quad in 0..cols / 4 {
                    let pair = pairs(&mut random);
                    for place in 0..4 {
                        if !pair.contains(&place) {
                            values.push(0.0);
                            continue;
                        }
                        let col = quad * 4 + place;
                        bits[col / 8] |= 1 << (col % 8);
                        let (code, number) = codes[random.below(6) as usize];
                        let scale =
                            if scaled { scales[if per_tensor { 0 } else { row }] } else { 1.0 };
                        let number = if dtype == "I8" { number * 2.0 } else { number };
                        values.push(f64::from(number * scale));
                        match dtype {
                            "F32" => kept.extend(number.to_le_bytes()),
                            "F16" => kept.extend(f16s(&[number])),
                            "BF16" => kept.extend(bf16s(&[number])),
                            "I8" => kept.push((number as i8).cast_unsigned()),
                            _ => kept.push(code),
                        }
                    }
                }
                mask.extend(bits);
            }
            let (r, c) = (rows as u64, cols as u64);
            let shape: Vec<u8> = [r, c].iter().flat_map(|n| n.to_le_bytes()).collect();
            let (kept_shape, mask_shape) = ([r, c / 2], [r, c.div_ceil(8)]);
            let scale_shape = [scales.len() as u64, 1];
            let mut planes: Vec<Stored> = vec![
                ("l.compressed", dtype, &kept_shape, kept),
                ("l.bitmask", "U8", &mask_shape, mask),
                ("l.shape", "I64", &[2, 1], shape),
            ];
            if scaled {
                planes.push(("l.weight_scale", "F32", &scale_shape, f32s(&scales)));
            }
            let what = format!("{dtype}, {rows} x {cols}, per tensor {per_tensor}");
            near(&what, [rows, cols], &values, "{}", &planes);
        }
    }
}

/// The order in which marlin's `Layer.pack` takes the codes of a chunk.
fn dense_order() -> Vec<usize> {
    let mut order = Vec::new();
    for i in 0..32 {
        let mut first = Vec::new();
        for block in [0, 1] {
            for row in [2 * (i % 4), 2 * (i % 4) + 1, 2 * (i % 4 + 4), 2 * (i % 4 + 4) + 1] {
                first.push(16 * row + i / 4 + 8 * block);
            }
        }
        for j in 0..4 {
            order.extend(first.iter().map(|p| p + 256 * j));
        }
    }
    interleaved(&order, &[0, 2, 4, 6, 1, 3, 5, 7])
}

/// The same of the sparse kernels.
fn sparse_order(bits: u32) -> Vec<usize> {
    let mut order = Vec::new();
    for i in 0..32 {
        let mut first = Vec::new();
        let col = i / 4;
        for block in [0, 1] {
            for row in [2 * (i % 4), 2 * (i % 4) + 1, 2 * (i % 4 + 4), 2 * (i % 4 + 4) + 1] {
                first.push(16 * row + col / 2 * 256 + 8 * (col % 2) + 4 * block);
            }
        }
        for j in 0..4 {
            order.extend(first.iter().map(|p| p + j));
        }
    }
    let interleave: &[usize] = if bits == 4 { &[0, 2, 4, 6, 1, 3, 5, 7] } else { &[0, 2, 1, 3] };
    interleaved(&order, interleave)
}

fn interleaved(order: &[usize], interleave: &[usize]) -> Vec<usize> {
    order.chunks(interleave.len()).flat_map(|run| interleave.iter().map(|&i| run[i])).collect()
}

/// Packs codes [inputs, outputs] as the tools do: tiles of 16 x 16 side by side, then chunks of 1024.
fn pack(codes: &[u32], ins: usize, outs: usize, bits: u32, order: &[usize]) -> Vec<u8> {
    let mut tiled = Vec::with_capacity(ins * outs);
    for row in 0..ins / 16 {
        for col in 0..outs / 16 {
            for r in 0..16 {
                for c in 0..16 {
                    tiled.push(codes[(row * 16 + r) * outs + col * 16 + c]);
                }
            }
        }
    }
    let ordered: Vec<u32> =
        tiled.chunks(1024).flat_map(|chunk| order.iter().map(|&p| chunk[p])).collect();
    let each = (32 / bits) as usize;
    let word =
        |codes: &[u32]| codes.iter().rev().fold(0u32, |word, code| word << (bits % 32) | code);
    ordered.chunks(each).flat_map(|codes| word(codes).to_le_bytes()).collect()
}

/// Scales [groups, outputs] in the order that the tools store.
fn pack_scales(scales: &[f32], order: &[usize]) -> Vec<f32> {
    scales.chunks(order.len()).flat_map(|run| order.iter().map(|&i| run[i])).collect()
}

#[test]
fn gptq_in_the_order_of_marlin() {
    let mut random = Random(19);
    for (ins, outs, groups) in
        [(128, 256, 1), (256, 256, 2), (384, 512, 3), (256, 64, 4), (32, 128, 1)]
    {
        let codes: Vec<u32> = (0..ins * outs).map(|_| random.below(16) as u32).collect();
        let scales: Vec<f32> = (0..groups * outs).map(|i| 0.25 + (i % 97) as f32 / 64.0).collect();
        let values: Vec<f64> = (0..outs)
            .flat_map(|o| {
                let (codes, scales) = (&codes, &scales);
                (0..ins).map(move |i| {
                    let scale = f64::from(scales[i / (ins / groups) * outs + o]);
                    (f64::from(codes[i * outs + o]) - 8.0) * scale
                })
            })
            .collect();
        let order: Vec<usize> = if groups > 1 {
            (0..8).flat_map(|i| (0..8).map(move |j| i + 8 * j)).collect()
        } else {
            (0..4).flat_map(|i| [0, 1, 8, 9, 16, 17, 24, 25].map(|j| 2 * i + j)).collect()
        };
        let planes: [Stored; 2] = [
            (
                "l.B",
                "I32",
                &[ins as u64 / 16, 2 * outs as u64],
                pack(&codes, ins, outs, 4, &dense_order()),
            ),
            ("l.s", "F16", &[groups as u64, outs as u64], f16s(&pack_scales(&scales, &order))),
        ];
        near(&format!("{ins} x {outs}, {groups} groups"), [outs, ins], &values, "{}", &planes);
    }
}

/// Where the tools scatter the word of an output and sixteen inputs to: rows of 64 are dealt out, then
/// blocks of two by two are turned.
fn meta_offset(output: usize, word: usize, outs: usize) -> usize {
    let row = output / 64 * 64
        + output % 2 * 2
        + output % 8 / 4
        + output % 32 % 4 / 2 * 32
        + output % 64 / 8 * 4;
    let (row, col) = match (row % 2, word % 2) {
        (0, 1) => (row + 1, word - 1),
        (1, 0) => (row - 1, word + 1),
        _ => (row, word),
    };
    col / 2 * outs * 2 + row * 2 + col % 2
}

#[test]
fn sparse_marlin_of_both_widths() {
    let mut random = Random(23);
    for (bits, ins, outs, groups) in [
        (4u32, 256usize, 128usize, 2usize),
        (8, 256, 64, 1),
        (4, 512, 256, 4),
        (8, 384, 192, 3),
        (4, 64, 64, 1),
    ] {
        let half = 1 << (bits - 1);
        let mut kept = vec![0u32; ins / 2 * outs];
        let mut dense = vec![0f64; outs * ins];
        let mut words = vec![0u16; outs * ins / 16];
        let scales: Vec<f32> = (0..groups * outs).map(|i| 0.25 + (i % 89) as f32 / 64.0).collect();
        for o in 0..outs {
            for quad in 0..ins / 4 {
                let pair = pairs(&mut random);
                let nibble = (pair[0] | pair[1] << 2) as u16;
                words[o * (ins / 16) + quad / 4] |= nibble << (quad % 4 * 4);
                for (k, place) in pair.into_iter().enumerate() {
                    let code = random.below(1 << bits) as u32;
                    kept[(quad * 2 + k) * outs + o] = code;
                    let input = quad * 4 + place;
                    let scale = f64::from(scales[input / (ins / groups) * outs + o]);
                    dense[o * ins + input] = (f64::from(code) - f64::from(half)) * scale;
                }
            }
        }
        let mut meta = vec![0u16; words.len()];
        for o in 0..outs {
            for c in 0..ins / 16 {
                meta[meta_offset(o, c, outs)] = words[o * (ins / 16) + c];
            }
        }
        let grouped = ins / groups < ins / 2;
        let order: Vec<usize> = if grouped {
            // Output of each stored scale.
            vec![0, 4, 1, 5, 2, 6, 3, 7]
        } else {
            (0..8).collect()
        };
        let planes: [Stored; 3] = [
            (
                "l.weight_packed",
                "I32",
                &[ins as u64 / 32, outs as u64 * u64::from(bits) / 2],
                pack(&kept, ins / 2, outs, bits, &sparse_order(bits)),
            ),
            (
                "l.scale_packed",
                "F16",
                &[groups as u64, outs as u64],
                f16s(&pack_scales(&scales, &order)),
            ),
            (
                "l.meta",
                "I16",
                &[ins as u64 / 32, 2 * outs as u64],
                meta.iter().flat_map(|word| word.to_le_bytes()).collect(),
            ),
        ];
        near(
            &format!("{bits} bits, {ins} x {outs}, {groups} groups"),
            [outs, ins],
            &dense,
            "{}",
            &planes,
        );
    }
}
