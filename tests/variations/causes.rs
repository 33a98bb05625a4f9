/*! What is wrong with rows, groups and columns is named, and named certain only where nothing else explains it. */

use serde_json::Value;

use crate::made::*;
use crate::program::{Random, Suite, bf16s, f32s};

const ROWS: usize = 96;
const COLS: usize = 256;
/// Elements that share a scale, where not all of a row do.
const GROUP: usize = 32;

/// The planes of a matrix: codes, scales.
type Damage = fn(&mut [Owned]);

fn scale_row(planes: &mut [Owned], row: usize, change: impl Fn(f32) -> f32) {
    let bytes = &mut planes[1].3[row * 4..][..4];
    let scale = f32::from_le_bytes((&*bytes).try_into().unwrap());
    bytes.copy_from_slice(&f32s(&[change(scale)]));
}

/// One in BF16, group by group.
fn scale_group(planes: &mut [Owned], row: usize, group: usize, change: impl Fn(f32) -> f32) {
    let bytes = &mut planes[1].3[(row * COLS / GROUP + group) * 2..][..2];
    let scale = f32::from_bits(u32::from_le_bytes([0, 0, bytes[0], bytes[1]]));
    bytes.copy_from_slice(&bf16s(&[change(scale)]));
}

/// Codes of a byte each.
fn codes(planes: &mut [Owned], row: usize) -> &mut [u8] {
    &mut planes[0].3[row * COLS..][..COLS]
}

fn negated(code: u8) -> u8 {
    (code as i8).wrapping_neg() as u8
}

/// Causes with their certainty, first of the findings.
fn causes(matrix: &Matrix, planes: &[Owned]) -> (i32, Option<(String, String)>, String) {
    let suite = Suite::new();
    suite.write("r.safetensors", file(&[matrix.plain()]));
    suite.write("q.safetensors", file(planes));
    let ran = suite.qualm(&["check", "r.safetensors", "q.safetensors", "--json"]);
    let report: Value = serde_json::from_str(&ran.out).unwrap_or_default();
    let said = |it: &Value| {
        let diagnosis = &it["diagnosis"];
        Some((diagnosis["cause"].as_str()?.to_owned(), diagnosis["certainty"].as_str()?.to_owned()))
    };
    let found = report["findings"].as_array().and_then(|all| all.iter().find_map(said));
    (ran.code, found, ran.out)
}

#[test]
fn what_is_wrong_with_rows_groups_and_columns_is_named() {
    let matrix = Matrix::new("model.layers.0.mlp.up_proj.weight", &[ROWS as u64, COLS as u64], 3);
    let (rows, groups) = (Scheme::Int8Rows, Scheme::Packed(4, GROUP));
    for (scheme, damage, expected, why) in [
        (rows, (|_| {}) as Damage, None, "sound"),
        (groups, |_| {}, None, "sound"),
        (rows, |it| scale_row(it, 7, |_| 1.0), Some(("scale-lost", "certain")), "one row"),
        (
            rows,
            |it| (5..9).for_each(|row| scale_row(it, row, |_| 1.0)),
            Some(("scale-lost", "certain")),
            "four rows",
        ),
        (
            rows,
            |it| (0..ROWS).for_each(|row| scale_row(it, row, |_| 1.0)),
            Some(("scale-lost", "certain")),
            "all rows",
        ),
        (
            rows,
            |it| it[1].3.copy_within(40..44, 36),
            Some(("scales-moved", "certain")),
            "the scale of the next row",
        ),
        (
            rows,
            |it| scale_row(it, 7, |it| it * 2.0),
            Some(("scale-bit-flip", "likely")),
            "one scale doubled",
        ),
        (
            rows,
            |it| scale_row(it, 7, |it| it * 1.3),
            Some(("scale-factor", "likely")),
            "one scale is another",
        ),
        (
            rows,
            |it| [3, 7, 50].iter().for_each(|row| scale_row(it, *row, |it| it * 1.3)),
            Some(("scale-factor", "certain")),
            "three scales by one factor",
        ),
        (
            rows,
            |it| codes(it, 7).iter_mut().for_each(|it| *it = negated(*it)),
            Some(("sign-flipped", "certain")),
            "a row negated",
        ),
        (
            rows,
            |it| codes(it, 7).iter_mut().for_each(|it| *it = (*it as i8).saturating_add(1) as u8),
            Some(("zero-point-off-by-one", "certain")),
            "a row off by a step",
        ),
        (
            rows,
            |it| (0..ROWS).for_each(|row| codes(it, row)[9] = negated(codes(it, row)[9])),
            Some(("column-negated", "certain")),
            "a column negated",
        ),
        (
            rows,
            |it| (0..ROWS).for_each(|row| codes(it, row).swap(9, 200)),
            Some(("columns-swapped", "certain")),
            "columns exchanged",
        ),
        (
            rows,
            |it| (0..ROWS).for_each(|row| codes(it, row)[9] = 0),
            Some(("column-zeroed", "certain")),
            "a column of zeros",
        ),
        (
            rows,
            |it| {
                let (one, other) = (codes(it, 7).to_vec(), codes(it, 60).to_vec());
                codes(it, 7).copy_from_slice(&other);
                codes(it, 60).copy_from_slice(&one);
                let scales = it[1].3[7 * 4..8 * 4].to_vec();
                it[1].3.copy_within(60 * 4..61 * 4, 7 * 4);
                it[1].3[60 * 4..61 * 4].copy_from_slice(&scales);
            },
            Some(("swapped", "certain")),
            "rows exchanged, which no factor and no sign explains",
        ),
        (groups, |it| scale_group(it, 7, 3, |_| 1.0), Some(("scale-lost", "certain")), "one group"),
        (
            groups,
            |it| (0..8).for_each(|group| scale_group(it, 7, group, |_| 1.0)),
            Some(("scale-lost", "certain")),
            "all groups of a row",
        ),
        (
            groups,
            |it| it[1].3.copy_within(8 * 16..9 * 16, 7 * 16),
            Some(("scales-moved", "certain")),
            "the scales of the next row",
        ),
        (
            groups,
            |it| scale_group(it, 7, 3, |_| 0.0),
            Some(("zero-scale", "certain")),
            "a scale of zero",
        ),
        (
            groups,
            |it| scale_group(it, 7, 3, |it| -it),
            Some(("sign-flipped", "certain")),
            "a scale of the other sign",
        ),
    ] {
        let mut planes = matrix.quantized(scheme);
        damage(&mut planes);
        let (code, found, out) = causes(&matrix, &planes);
        let found = found.as_ref().map(|(cause, sure)| (cause.as_str(), sure.as_str()));
        assert_eq!(code, if expected.is_some() { 5 } else { 0 }, "{why}, {scheme:?}: {out}");
        assert_eq!(found, expected, "{why}, {scheme:?}: {out}");
    }
}

#[test]
fn what_nothing_undoes_and_what_more_than_one_fault_is_behind_is_not_certain() {
    let matrix = Matrix::new("model.layers.0.mlp.up_proj.weight", &[ROWS as u64, COLS as u64], 4);
    for (damage, why) in [
        (
            (|it| {
                let mut random = Random(5);
                for code in codes(it, 7) {
                    *code = random.below(256) as u8;
                }
            }) as Damage,
            "a row of random codes",
        ),
        (
            |it| {
                scale_row(it, 7, |_| 1.0);
                for code in codes(it, 50) {
                    *code = negated(*code);
                }
            },
            "a row without its scale, and another one negated",
        ),
        (
            |it| {
                (0..ROWS).for_each(|row| codes(it, row)[9] = negated(codes(it, row)[9]));
                (0..ROWS).for_each(|row| codes(it, row)[40] = codes(it, row)[41]);
            },
            "a column negated, and another one a copy",
        ),
    ] {
        let mut planes = matrix.quantized(Scheme::Int8Rows);
        damage(&mut planes);
        let (code, found, out) = causes(&matrix, &planes);
        assert_eq!(code, 5, "{why}: {out}");
        assert!(found.is_none_or(|(_, sure)| sure == "likely"), "{why}: {out}");
    }
}
