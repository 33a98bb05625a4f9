/*!
A spec drafted from what a pair measures: bounds with headroom, types, size, and comments that say
what was measured.

The draft holds for the very pair it was made from; [`draft`] judges it before it hands it out. A pair
that is damaged gets none, for its damage would become the norm.
*/

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::numbers;
use crate::gate::{CheckOutcome, Level, value_of};
use crate::metrics::Metrics;
use crate::metrics::functions;
use crate::spec::{self, LoadOptions};
use crate::suite::record::{GlobalRow, PairRecord, TensorRow, TestOutcome};

/// SQNR that a tensor may lose before it fails, and before it is warned of, in dB.
const FAIL_MARGIN: f64 = 1.0;
const WARN_MARGIN: f64 = 0.3;
/// How much larger the angle to the reference may become, as a factor on 1 − cosine.
const COSINE_MARGIN: f64 = 1.25;
/// The same for the distance of the gain from 1, and the least bound that is worth writing.
const GAIN_MARGIN: f64 = 2.0;
const LEAST_GAIN: f64 = 0.001;

/// What the spec calls things.
#[derive(Clone, Debug)]
pub struct Words<'a> {
    /// Name of the pair.
    pub name: &'a str,
    /// Path of the reference, relative to the spec's directory.
    pub reference: &'a str,
    /// Path of the quantized model, relative to the spec's directory.
    pub quantized: &'a str,
}

/// Why there is no draft.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// No spec should hold for this pair.
    #[error(
        "the pair {pair} does not pass as it is, and bounds would make that the norm:\n  {}",
        .damage.join("\n  ")
    )]
    Damaged {
        /// Its name.
        pair: String,
        /// What does not hold.
        damage: Vec<String>,
    },
    /// A tensor that no spec can speak of.
    #[error(
        "a tensor has an empty name, which no glob of a spec can name; `qualm check` judges the pair"
    )]
    Nameless,
    /// A bug.
    #[error("the drafted spec does not hold for the pair it was made from: {0}")]
    DoesNotHold(String),
}

/// Drafts a spec from the records of a run over pairs without bounds.
pub fn draft(pairs: &[(&PairRecord, Words)]) -> Result<String, DraftError> {
    let mut text = HEAD.to_owned();
    for (pair, words) in pairs {
        text += &draft_pair(pair, words)?;
    }
    Ok(text)
}

/// Drafts one pair's part of a spec.
fn draft_pair(pair: &PairRecord, words: &Words) -> Result<String, DraftError> {
    let damage = damage(pair);
    if !damage.is_empty() {
        let pair = words.name.to_owned();
        return Err(DraftError::Damaged { pair, damage });
    }
    if pair.tensors.iter().any(|row| row.tensor.is_empty()) {
        return Err(DraftError::Nameless);
    }
    let text = text(pair, words);
    match holds(&(HEAD.to_owned() + &text), pair) {
        Ok(()) => Ok(text),
        Err(problem) => Err(DraftError::DoesNotHold(problem)),
    }
}

/// What fails although nothing is bounded. Tensors that one side lacks do not count: the draft
/// allows them by name.
fn damage(pair: &PairRecord) -> Vec<String> {
    let mut damage: Vec<String> = Vec::new();
    for test in &pair.tests {
        if test.outcome == TestOutcome::Error {
            damage.extend(test.reason.clone());
        }
        let bad = test.checks.iter().filter(|check| {
            check.level == Level::Fail
                && check.outcome == CheckOutcome::Violated
                && !matches!(check.check.as_str(), "missing" | "extra")
        });
        damage.extend(bad.map(|check| check.message.clone()));
    }
    damage.dedup();
    damage
}

/// Judges the draft with the measured values.
fn holds(text: &str, pair: &PairRecord) -> Result<(), String> {
    let options = LoadOptions { env: &|_| Some(".".to_owned()), ..LoadOptions::default() };
    let spec = spec::parse(text.as_bytes(), Path::new("draft.toml"), Path::new(""), &options)
        .map_err(|errors| errors.to_string())?;
    let drafted = spec.pairs.first().ok_or("it has no pair")?;
    let resolver = spec.resolver(drafted).map_err(|errors| errors.to_string())?;
    for row in &pair.tensors {
        let tensor = resolver.tensor(&row.tensor);
        if let Some((_, rule)) = tensor
            .qtypes()
            .find(|(_, rule)| !rule.is.iter().any(|ty| ty.eq_ignore_ascii_case(&row.qtype)))
        {
            return Err(format!("{} is {}, not {}", row.tensor, row.qtype, rule.is.join(" or ")));
        }
        let Some(metrics) = row.metrics() else { continue };
        for effective in tensor.bounds() {
            let value = value_of(&metrics, effective.metric);
            for bound in [effective.bound.fail, effective.bound.warn].into_iter().flatten() {
                if !effective.metric.holds(value, bound) {
                    return Err(format!(
                        "{}: {} {value} against {bound}",
                        row.tensor, effective.metric
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Tensors whose names differ in numbers alone.
struct Family<'a> {
    glob: String,
    rows: Vec<&'a TensorRow>,
}

impl Family<'_> {
    /// Values that can be measured, and all of them equal to the reference's.
    fn is_exact(&self) -> bool {
        self.rows.iter().all(|row| row.metrics().is_some_and(|it| it.sqnr_db == f64::INFINITY))
    }

    fn is_measured(&self) -> bool {
        self.rows.iter().all(|row| row.metrics().is_some())
    }

    fn types(&self) -> BTreeSet<&str> {
        self.rows.iter().map(|row| row.qtype.as_str()).collect()
    }
}

fn families(rows: &[TensorRow]) -> Vec<Family<'_>> {
    let mut families: BTreeMap<String, Vec<&TensorRow>> = BTreeMap::new();
    for row in rows {
        families.entry(glob(&row.tensor)).or_default().push(row);
    }
    families.into_iter().map(|(glob, rows)| Family { glob, rows }).collect()
}

/// A glob for a tensor and its like in other layers: parts that are numbers become `*`.
fn glob(name: &str) -> String {
    let part = |part: &str| {
        if part.len() <= 6 && part.parse::<u32>().is_ok() { "*".to_owned() } else { literal(part) }
    };
    let parts: Vec<String> = name.split('.').map(part).collect();
    parts.join(".")
}

/// Text that a glob takes as it is.
fn literal(text: &str) -> String {
    let mut glob = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '\\') {
            glob.push('\\');
        }
        glob.push(c);
    }
    glob
}

/// What a drafted spec begins with.
const HEAD: &str = "\
    # Drafted by `qualm init` from what it measured. Every bound has some headroom; tighten or\n\
    # loosen it, say why, and commit this file. `qualm run` runs it, `qualm explain ID` shows what\n\
    # applies to a tensor.\n\
    # With `qualm schema > schema.json` and a first line `#:schema PATH-TO/schema.json`, editors\n\
    # complete and check the keys.\n\
    schema = 1\n";

fn text(pair: &PairRecord, words: &Words) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\n[[pair]]\nname = {}\nreference = {}\nquantized = {}",
        quoted(&template(words.name)),
        quoted(&template(words.reference)),
        quoted(&template(words.quantized)),
    );
    size(&mut text, pair);
    one_sided(&mut text, pair);
    whole(&mut text, pair);
    let families = families(&pair.tensors);
    tensors(&mut text, &families);
    types(&mut text, &families);
    text
}

/// How large the model may be.
fn size(text: &mut String, pair: &PairRecord) {
    let Some(bits) = pair.quantized.as_ref().map(|model| model.bits_per_weight.0) else { return };
    if bits.is_finite() {
        let most = (bits * 100.0).ceil() / 100.0;
        let _ = writeln!(
            text,
            "\n# Of the whole model as stored, scales included: it may not grow.\n\
             bits_per_weight = {most:.2}",
        );
    }
}

/// Tensors that only one model has, each by its whole name: a glob would allow more than was seen.
fn one_sided(text: &mut String, pair: &PairRecord) {
    for (kind, key, words) in [
        ("missing", "allow_missing", "The quantized model lacks these tensors. Is that meant?"),
        ("extra", "allow_extra", "Only the quantized model has these tensors. Is that meant?"),
    ] {
        let names = pair.findings.iter().filter(|finding| finding.kind == kind);
        let globs: BTreeSet<String> = names.map(|finding| literal(&finding.tensor)).collect();
        if !globs.is_empty() {
            let globs: Vec<&str> = globs.iter().map(String::as_str).collect();
            let _ = writeln!(text, "\n# {words}\n{key} = {}", list(&globs));
        }
    }
}

/// Bounds on all float tensors as one vector.
fn whole(text: &mut String, pair: &PairRecord) {
    let Some(metrics) = pair.global.as_ref().and_then(GlobalRow::metrics) else { return };
    let _ = writeln!(
        text,
        "\n# All float tensors as one vector. Measured: {}, cosine {}, gain {}.",
        numbers::db(metrics.sqnr_db),
        numbers::cosine(metrics.cosine),
        numbers::metric("gain", metrics.gain),
    );
    if metrics.sqnr_db == f64::INFINITY {
        text.push_str("thresholds.global.max_abs = 0\n");
        return;
    }
    let _ = writeln!(
        text,
        "thresholds.global.sqnr_db = {}\nthresholds.global.cosine = {}\nthresholds.global.gain = {}",
        decibels(metrics.sqnr_db),
        cosine(metrics.cosine),
        gain(metrics.gain),
    );
}

/// Bounds on each tensor: exact ones, then a rule for each set of types.
fn tensors(text: &mut String, families: &[Family]) {
    let (exact, noisy): (Vec<&Family>, Vec<&Family>) =
        families.iter().filter(|it| it.is_measured()).partition(|it| it.is_exact());
    let all: Vec<&TensorRow> = noisy.iter().flat_map(|it| it.rows.iter().copied()).collect();
    if let Some(worst) = Worst::of(&all) {
        let _ = writeln!(
            text,
            "\n# Each tensor, unless a rule below says otherwise. The worst measured:\n\
             # {}, cosine {} ({}).\n\
             thresholds.tensor.sqnr_db = {}\nthresholds.tensor.cosine = {}",
            numbers::db(worst.sqnr_db),
            numbers::cosine(worst.cosine),
            comment(worst.tensor),
            decibels(worst.sqnr_db),
            cosine(worst.cosine),
        );
    }
    if !exact.is_empty() {
        let globs: Vec<&str> = exact.iter().map(|it| it.glob.as_str()).collect();
        let _ = writeln!(
            text,
            "\n[[pair.rule]]\ntensors = {}\nmax_abs = 0\n\
             reason = \"stored without loss\"",
            list(&globs)
        );
    }
    let mut groups: BTreeMap<Vec<&str>, Vec<&Family>> = BTreeMap::new();
    for family in &noisy {
        groups.entry(family.types().into_iter().collect()).or_default().push(family);
    }
    if groups.len() < 2 {
        return;
    }
    for (types, families) in groups {
        let rows: Vec<&TensorRow> =
            families.iter().flat_map(|it| it.rows.iter().copied()).collect();
        let Some(worst) = Worst::of(&rows) else { continue };
        let globs: Vec<&str> = families.iter().map(|it| it.glob.as_str()).collect();
        let _ = writeln!(
            text,
            "\n# Stored as {}. The worst measured: {}, cosine {} ({}).\n\
             [[pair.rule]]\ntensors = {}\nsqnr_db = {}\ncosine = {}",
            comment(&types.join(", ")),
            numbers::db(worst.sqnr_db),
            numbers::cosine(worst.cosine),
            comment(worst.tensor),
            list(&globs),
            decibels(worst.sqnr_db),
            cosine(worst.cosine),
        );
    }
}

/// The worst of some tensors.
struct Worst<'a> {
    sqnr_db: f64,
    cosine: f64,
    tensor: &'a str,
}

impl<'a> Worst<'a> {
    fn of(rows: &[&'a TensorRow]) -> Option<Self> {
        let measured: Vec<(Metrics, &str)> =
            rows.iter().filter_map(|row| Some((row.metrics()?, row.tensor.as_str()))).collect();
        let (worst, tensor) = measured.iter().min_by(|a, b| a.0.sqnr_db.total_cmp(&b.0.sqnr_db))?;
        let cosine = measured.iter().map(|(metrics, _)| metrics.cosine).fold(1.0, f64::min);
        Some(Self { sqnr_db: worst.sqnr_db, cosine, tensor })
    }
}

/// The types that tensors are stored in now.
fn types(text: &mut String, families: &[Family]) {
    let mut groups: BTreeMap<Vec<&str>, Vec<&str>> = BTreeMap::new();
    for family in families {
        groups.entry(family.types().into_iter().collect()).or_default().push(&family.glob);
    }
    if !groups.is_empty() {
        text.push_str("\n# What tensors are stored as: a silent fallback to another type fails.\n");
    }
    for (types, globs) in groups {
        let _ =
            writeln!(text, "[[pair.qtype]]\ntensors = {}\nis = {}\n", list(&globs), list(&types));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
}

/// `{ fail, warn }` below an SQNR.
fn decibels(measured: f64) -> String {
    let below = |margin: f64| ((measured - margin) * 10.0).floor() / 10.0;
    format!("{{ fail = {:.1}, warn = {:.1} }}", below(FAIL_MARGIN), below(WARN_MARGIN))
}

/// A bound below a cosine, with two digits of its distance from 1.
fn cosine(measured: f64) -> String {
    let distance = (1.0 - measured) * COSINE_MARGIN;
    if distance < 1e-9 {
        return "0.999999999".to_owned();
    }
    let digits = (1.0 - functions::log10(distance).floor()).max(2.0);
    let unit = functions::pow(10.0, digits);
    let bound = (1.0 - (distance * unit).ceil() / unit).max(-1.0);
    format!("{bound:.*}", digits as usize)
}

/// A bound above the distance of a gain from 1, with one digit.
fn gain(measured: f64) -> String {
    let distance = ((measured - 1.0).abs() * GAIN_MARGIN).max(LEAST_GAIN);
    let digits = (-functions::log10(distance).floor()).max(0.0);
    let unit = functions::pow(10.0, digits);
    format!("{:.*}", digits as usize, (distance * unit).ceil() / unit)
}

/// A list, on one line if it is short; TOML 1.0.
fn list(items: &[&str]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    match items.as_slice() {
        [one] => one.clone(),
        _ if items.iter().map(String::len).sum::<usize>() < 72 => format!("[{}]", items.join(", ")),
        _ => format!("[\n    {},\n]", items.join(",\n    ")),
    }
}

/// Text in which a spec sees no placeholders.
pub fn template(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// A string of TOML, on one line.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Foreign text for a comment: it may not end its line.
fn comment(text: &str) -> String {
    super::text::one_line(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{self, HOSTILE};

    fn pair(rows: Vec<TensorRow>) -> PairRecord {
        sample::pair("s", "p", rows, Vec::new())
    }

    const WORDS: Words =
        Words { name: "q{4}", reference: "../a \"b\"/${X}.gguf", quantized: "../q.gguf" };

    #[test]
    fn bounds_are_below_what_was_measured() {
        for (measured, expected) in [
            (0.996329, "0.9954"),
            (0.9999849, "0.999981"),
            (0.95, "0.937"),
            (0.5, "0.37"),
            (1.0, "0.999999999"),
            (-0.9, "-1.00"),
        ] {
            let bound = cosine(measured);
            assert_eq!(bound, expected);
            assert!(bound.parse::<f64>().unwrap() <= measured);
        }
        assert_eq!(decibels(21.33), "{ fail = 20.3, warn = 21.0 }");
        assert_eq!(decibels(-3.0), "{ fail = -4.0, warn = -3.3 }");
        assert_eq!(
            (gain(0.9993), gain(1.2), gain(1.0)),
            ("0.002".into(), "0.4".into(), "0.001".into())
        );
    }

    #[test]
    fn names_that_differ_in_numbers_share_a_glob() {
        for (name, expected) in [
            ("blk.12.attn_q.weight", "blk.*.attn_q.weight"),
            ("a.7.experts.3.w1", "a.*.experts.*.w1"),
            ("odd[0].{x}?", r"odd\[0\].\{x\}\?"),
        ] {
            assert_eq!(glob(name), expected);
        }
    }

    #[test]
    fn a_draft_holds_whatever_the_names_are_and_says_what_it_allows() {
        let mut rows: Vec<TensorRow> =
            HOSTILE.iter().map(|name| sample::row(name, "Q4_0", 64, 0.05)).collect();
        rows.extend(
            (0..4).map(|n| sample::row(&format!("blk.{n}.attn_q.weight"), "Q8_0", 64, 0.004)),
        );
        rows.extend((0..4).map(|n| sample::row(&format!("blk.{n}.norm.weight"), "F32", 8, 0.0)));
        let mut pair = pair(rows);
        pair.findings =
            vec![sample::finding("missing", "blk.3.gone", "only in the reference", false)];
        let text = draft(&[(&pair, WORDS)]).unwrap();
        for part in [
            "name = \"q{{4}}\"",
            "reference = \"../a \\\"b\\\"/${{X}}.gguf\"",
            "allow_missing = \"blk.3.gone\"",
            "tensors = \"blk.*.norm.weight\"\nmax_abs = 0\n",
            "tensors = \"blk.*.attn_q.weight\"\nis = \"Q8_0\"",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn a_damaged_pair_gets_no_draft() {
        let mut pair = pair(vec![sample::nan_row("t")]);
        let bad = sample::fact("finite", CheckOutcome::Violated, "1 NaN (t, Q4_0)");
        pair.tests = vec![sample::judged("s::p::t", vec![bad])];
        let error = draft(&[(&pair, WORDS)]).unwrap_err().to_string();
        assert!(error.contains("1 NaN (t, Q4_0)"), "{error}");
    }
}
