/*!
The one place that formats numbers for people: metrics, counts, sizes, times.

Reports for machines (`contract.json`, `report.tsv`) print full numbers themselves.
*/

use crate::metrics::Metric;
use crate::shown::unsigned_zeros;
use crate::suite::record::{ExpertRow, GateCounts};

/// Digits after the point that a cosine, a gain or a correlation gets if nothing asks for more.
const DIGITS: usize = 6;

/// A value of the metric called `name`, with its unit; other names are shown as plain numbers.
pub fn metric(name: &str, value: f64) -> String {
    with_digits(name, value, 0)
}

/// A value and its bound, with as many digits as it takes to tell them apart.
pub fn compared(name: &str, value: f64, bound: f64) -> (String, String) {
    let mut extra = 0;
    loop {
        let shown = (with_digits(name, value, extra), with_digits(name, bound, extra));
        // 17 significant digits tell any two doubles apart.
        if shown.0 != shown.1 || value == bound || value.is_nan() || extra >= 16 {
            return shown;
        }
        extra += 1;
    }
}

/// What a check found, and its bound. How far a gate's value is beyond what is expected has no bound where no
/// error at all is: infinity, which JSON does not keep.
pub fn checked(check: &str, value: f64, bound: f64) -> (String, String) {
    let is_gate = check.starts_with("integrity.");
    let (shown, of_bound) = compared(check, value, bound);
    let shown = if is_gate && !value.is_finite() { WITHOUT_BOUND.to_owned() } else { shown };
    (shown, of_bound)
}

/// What stands for such a value.
const WITHOUT_BOUND: &str = "without bound: no error at all is expected";

fn with_digits(name: &str, value: f64, extra: usize) -> String {
    match Metric::from_name(name.rsplit('.').next().unwrap_or(name)) {
        Some(Metric::Cosine | Metric::Gain) => near_one(value, extra),
        Some(Metric::SqnrDb) => decibel(value, extra),
        Some(Metric::Rmse | Metric::RelRmse | Metric::MaxAbs) => error(value, extra),
        None => plain(value, extra),
    }
}

/// Cosine of an angle: six digits, or more if it would look like 1 and is not.
pub fn cosine(value: f64) -> String {
    near_one(value, 0)
}

/// The matrix of a stack that fares worst.
pub fn worst_expert(row: &ExpertRow) -> String {
    format!("{row}, cosine {}, SQNR {}", cosine(row.cosine.0), db(row.sqnr_db.0))
}

fn near_one(value: f64, extra: usize) -> String {
    let mut digits = DIGITS + extra;
    let looks_like_one = |digits: usize| format!("{value:.digits$}").parse() == Ok(1.0);
    while value != 1.0 && digits < 16 && looks_like_one(digits) {
        digits += 1;
    }
    finite(value, || format!("{value:.digits$}"))
}

/// Decibel, with the unit.
pub fn db(value: f64) -> String {
    decibel(value, 0)
}

fn decibel(value: f64, extra: usize) -> String {
    let digits = 2 + extra;
    finite(value, || format!("{value:.digits$} dB"))
}

/// An error in units of the weights, or relative to them: four significant digits.
pub fn magnitude(value: f64) -> String {
    error(value, 0)
}

fn error(value: f64, extra: usize) -> String {
    let digits = 3 + extra;
    finite(value, || if value == 0.0 { "0".to_owned() } else { format!("{value:.digits$e}") })
}

fn plain(value: f64, extra: usize) -> String {
    let size = value.abs();
    if value == value.trunc() && size < 1e15 {
        format!("{value}")
    } else if (1e-3..1e6).contains(&size) {
        near_one(value, extra)
    } else {
        error(value, extra)
    }
}

/// NaN and the infinities look the same everywhere.
fn finite(value: f64, shown: impl FnOnce() -> String) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "∞" } else { "-∞" }.to_owned()
    } else {
        unsigned_zeros(shown())
    }
}

/// Bits per weight.
pub fn bits(value: f64) -> String {
    finite(value, || format!("{value:.2}"))
}

/// Bits per weight that buy no accuracy; a dash where there is no error to compare with.
pub fn wasted_bits(value: f64) -> String {
    if value.is_finite() { bits(value) } else { "–".to_owned() }
}

/// A count, its thousands set apart.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `1 test`, `2 tests`.
pub fn counted(n: u64, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(n))
}

/// Shares of a whole, each with its name: `Q4_K 82 %`; no more than `named` of them, and how many more there are.
pub fn shares(parts: &[(&str, u64)], named: usize) -> Vec<String> {
    let all: u64 = parts.iter().map(|part| part.1).sum();
    let share = |(name, part): &(&str, u64)| {
        let percent = (*part as f64 / all.max(1) as f64 * 100.0).round();
        if percent < 1.0 { format!("{name} < 1 %") } else { format!("{name} {percent} %") }
    };
    let mut words: Vec<String> = parts.iter().take(named).map(share).collect();
    if parts.len() > named {
        words.push(format!("{} more", parts.len() - named));
    }
    words
}

/// A size in binary units.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut size = n as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// A duration.
pub fn seconds(value: f64) -> String {
    finite(value, || {
        if value < 60.0 {
            format!("{value:.2} s")
        } else {
            let whole = value.round() as u64;
            format!("{} min {} s", whole / 60, whole % 60)
        }
    })
}

/// What has become of the gates: `gates: 30 held, 1 violated, 2 not judged`.
pub fn gates(counts: &GateCounts) -> String {
    format!(
        "gates: {} held, {} violated, {} not judged",
        count(counts.held),
        count(counts.violated),
        count(counts.not_judged)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_for_people() {
        for (name, value, expected, why) in [
            ("cosine", 0.9876543, "0.987654", "six digits"),
            ("cosine", 1.0, "1.000000", "exactly 1"),
            ("cosine", 0.99999998, "0.99999998", "not 1 does not look like 1"),
            ("gain", 1.0000000002, "1.0000000002", "from above too"),
            ("cosine", f64::NAN, "NaN", "as in the contract's TSV"),
            ("sqnr_db", 31.4159, "31.42 dB", "with its unit"),
            ("sqnr_db", f64::INFINITY, "∞", "no error at all"),
            ("sqnr_db", -0.004, "0.00 dB", "zero has no sign"),
            ("cosine", -1e-9, "0.000000", "nor here"),
            ("rmse", 0.000123456, "1.235e-4", "four significant digits"),
            ("rmse", 0.0, "0", "nothing"),
            ("baseline.rmse", 0.000123456, "1.235e-4", "the last part is the metric"),
            ("element", 17.0, "17", "not a metric"),
            ("ratio", 0.25, "0.250000", "not a metric"),
        ] {
            assert_eq!(metric(name, value), expected, "{why}");
        }
    }

    #[test]
    fn a_value_beside_its_bound_is_told_apart() {
        for (name, value, bound, expected) in [
            ("cosine", 0.94, 0.95, ("0.940000", "0.950000")),
            ("cosine", 0.9499999, 0.95, ("0.9499999", "0.9500000")),
            ("rmse", 0.00100001, 0.001, ("1.00001e-3", "1.00000e-3")),
            ("cosine", 0.95, 0.95, ("0.950000", "0.950000")),
            ("cosine", f64::NAN, 0.95, ("NaN", "0.950000")),
        ] {
            let shown = compared(name, value, bound);
            assert_eq!((shown.0.as_str(), shown.1.as_str()), expected);
        }
        let next = f64::from_bits(0.95f64.to_bits() + 1);
        let (value, bound) = compared("cosine", next, 0.95);
        assert_ne!(value, bound, "one unit in the last place");
    }

    #[test]
    fn what_has_no_bound_is_no_number() {
        let of = |check: &str, value: f64| checked(check, value, 1.5).0;
        for value in [f64::INFINITY, f64::NAN] {
            // A record that was read back has lost the infinity.
            assert_eq!(of("integrity.sqnr_expected", value), WITHOUT_BOUND);
        }
        assert_eq!(of("integrity.sqnr_expected", 2.0), "2");
        assert_eq!(of("cosine", f64::NAN), "NaN", "a metric that NaN leaves without a value");
    }

    #[test]
    fn shares_of_a_whole() {
        let parts = [("Q4_K", 820), ("Q6_K", 177), ("F32", 3), ("BF16", 0)];
        assert_eq!(shares(&parts, 3), ["Q4_K 82 %", "Q6_K 18 %", "F32 < 1 %", "1 more"]);
        assert_eq!(shares(&[], 3), [""; 0]);
    }

    #[test]
    fn counts_and_sizes() {
        for (n, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(count(n), expected);
        }
        for (n, expected) in
            [(1023, "1023 B"), (1024, "1.0 KiB"), (3 << 30, "3.0 GiB"), (u64::MAX, "16.0 EiB")]
        {
            assert_eq!(bytes(n), expected);
        }
        assert_eq!((counted(1, "test"), counted(2, "test")), ("1 test".into(), "2 tests".into()));
        assert_eq!((seconds(0.214), seconds(75.2)), ("0.21 s".into(), "1 min 15 s".into()));
    }
}
