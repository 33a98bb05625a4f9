/*!
The table of `docs/integrity.md` is what the measurement gives today, and the default bounds leave
room for every sound encoder in it.
*/

use qualm::spec::Gate;

#[allow(dead_code, unreachable_pub)]
#[path = "../bench/expectation.rs"]
mod expectation;

fn table() -> Vec<Vec<String>> {
    let docs = include_str!("../docs/integrity.md");
    let (_, table) = docs.split_once(expectation::HEADER).expect("the table is in the document");
    table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|it| it.trim().to_owned()).collect())
        .collect()
}

/// A fast part of the table, measured again. Digits may differ a little where a mathematical library
/// rounds otherwise.
#[test]
fn the_committed_table_is_current() {
    let fast =
        ["F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q2_K", "MXFP4", "INT8 per row", "NF4 of 64"];
    let committed = table();
    let rows = expectation::rows(&|name| fast.contains(&name));
    assert_eq!(rows.len(), fast.len());
    for row in rows {
        let line = row.markdown();
        let now: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let then = committed.iter().find(|it| it[0] == row.name).expect("a row for each");
        assert_eq!(now.len(), then.len());
        for (now, then) in now.iter().zip(then).skip(1) {
            let same = match (now.parse::<f64>(), then.parse::<f64>()) {
                (Ok(now), Ok(then)) => (now - then).abs() <= 0.02 + 1e-3 * then.abs(),
                _ => now == then,
            };
            assert!(same, "{}: {now} is not {then} of\n{line}", row.name);
        }
    }
}

/// Every type that can be quantized to has its row.
#[test]
fn no_type_is_missing() {
    let committed = table();
    for info in qualm::codec::TYPES {
        // Types beyond mainline are measured by `tests/ik_encode.rs`.
        let mainline = info.ggml_id.is_some_and(|id| id < 97) && info.rows.is_none();
        let encodes = mainline && (info.encode_chunk.is_some() || info.encode_weighted.is_some());
        if encodes {
            assert!(committed.iter().any(|row| row[0] == info.name), "{}", info.name);
        }
    }
}

/// The default bounds are wider than what sound encoders of one type differ by.
#[test]
fn default_bounds_leave_room_for_every_sound_encoder() {
    for row in table() {
        for (column, gate) in
            [(9, Gate::SqnrExpected), (10, Gate::WorstRow), (11, Gate::WorstBlock)]
        {
            if let Ok(spread) = row[column].parse::<f64>() {
                // Rows of coarse types may lose what the SQNR's own bound makes of their cosine.
                let expected: f64 = row[6].parse().expect("a cosine");
                let noise = (1.0 - expected * expected) * 10f64.powf(0.15);
                let of_noise = expected - (1.0 - noise).max(0.0).sqrt();
                let bound = match gate {
                    Gate::WorstRow => gate.default_bound().max(of_noise),
                    _ => gate.default_bound(),
                };
                assert!(spread <= bound, "{}: {gate} {spread} of {bound}", row[0]);
            }
        }
    }
}
