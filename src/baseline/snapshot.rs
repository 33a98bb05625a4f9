/*!
One snapshot file: insta's frame around a TOML body.

```text
---
source: specs/tiny.toml
description: tiny / q8_0 (f32 -> q8_0)
info:
  schema: "1"
---
[global]
tensors = 1
numel = 4096
cosine = 0.99998712345
...

[tensors]
"blk.0.attn_q.weight" = { qtype = "q8_0", shape = [64, 64], numel = 4096, cosine = ... }
```

The body is TOML 1.0, one tensor a line, sorted by name, each number in the shortest form that reads
back as the same bits: small diffs, few merge conflicts, nothing rounded. The same measurement gives
the same bytes. A file that is there but cannot be read is an error with its line, never a missing
baseline.
*/

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::{BaselineError, Entry, Global, Header, Measurement, Values, file};
use crate::disk;
use crate::metrics::Metric;

/// Version of the body's format, `schema` in the header's `info`.
pub const SCHEMA: &str = "1";

/// A baseline as it stands in its file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Where it came from.
    pub header: Header,
    /// What was measured.
    pub measurement: Measurement,
}

impl Snapshot {
    /// The file's bytes.
    pub fn render(&self) -> String {
        let mut out = self.header.render();
        out.push_str(&body(&self.measurement));
        out
    }

    /// Reads a file; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, BaselineError> {
        match disk::read_text(path, disk::SNAPSHOT) {
            Ok(text) => Self::load(path, text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BaselineError::io("read", path)(error)),
        }
    }

    /// Writes a file so that it is, at any moment, either old or new and whole.
    ///
    /// What is written is read back first: a measurement that the format cannot hold is an error
    /// here and not a broken baseline later.
    pub fn write(&self, path: &Path) -> Result<(), BaselineError> {
        let text = self.render();
        let read = Self::parse(path, &text)?;
        let same = read.header == self.header && read.measurement.same_bits(&self.measurement);
        if !same || !self.measurement.counts().all(|n| i64::try_from(n).is_ok()) {
            let message = "the measurement does not read back as it was written";
            return Err(BaselineError::parse(path, 1, message));
        }
        file::write_atomically(path, text.as_bytes())
    }

    /// Reads a file's text through insta, after the checks that insta does not make.
    fn load(path: &Path, text: String) -> Result<Self, BaselineError> {
        let (frame, ours) = Frame::split(path, &text)?;
        let insta = insta::Snapshot::from_file(path)
            .map_err(|error| BaselineError::parse(path, 1, error.to_string()))?;
        let body = insta.as_text().map(ToString::to_string).unwrap_or_default();
        if insta.metadata().source() != Some(frame.header.source.as_str())
            || !ours.trim_end().lines().eq(body.lines())
        {
            let message = "insta reads another header or body in this file; write it anew";
            return Err(BaselineError::parse(path, 1, message));
        }
        // A large snapshot need not be in memory three times while it is parsed.
        drop((text, insta));
        frame.into_snapshot(path, &body)
    }

    /// Reads the text of a file.
    pub fn parse(path: &Path, text: &str) -> Result<Self, BaselineError> {
        let (frame, body) = Frame::split(path, text)?;
        frame.into_snapshot(path, body)
    }
}

/// What stands around a body.
struct Frame {
    header: Header,
    /// Lines above the body.
    above: usize,
}

impl Frame {
    /// Cuts a file into frame and body.
    fn split<'a>(path: &Path, text: &'a str) -> Result<(Self, &'a str), BaselineError> {
        conflict(path, text)?;
        let mut lines = text.split_inclusive('\n');
        let first = lines.next().unwrap_or_default();
        if first.trim_end() != "---" {
            let message = "no snapshot: the first line is not `---`";
            return Err(BaselineError::parse(path, 1, message));
        }
        let mut length = first.len();
        let mut inner = Vec::new();
        for line in lines {
            length += line.len();
            if line.trim_end() == "---" {
                let header = Header::parse(&inner)
                    .map_err(|error| BaselineError::parse(path, error.line, error.message))?;
                let body = text.get(length..).unwrap_or_default();
                return Ok((Self { header, above: inner.len() + 2 }, body));
            }
            inner.push(line);
        }
        Err(BaselineError::parse(path, 1, "the header has no closing `---`"))
    }

    fn into_snapshot(self, path: &Path, body: &str) -> Result<Snapshot, BaselineError> {
        if let Some(schema) = self.header.info("schema").filter(|schema| *schema != SCHEMA) {
            let message = format!(
                "this snapshot has format {schema}, this program reads {SCHEMA}; use the version \
                 of qualm that wrote it, or delete it and accept it anew"
            );
            return Err(BaselineError::parse(path, 1, message));
        }
        let measurement = match by_lines(body) {
            Some(measurement) => measurement,
            None => self.whole(path, body)?,
        };
        Ok(Snapshot { header: self.header, measurement })
    }

    /// Reads a body in one piece; errors get their line in the file.
    fn whole(&self, path: &Path, body: &str) -> Result<Measurement, BaselineError> {
        let read: Body = toml::from_str(body).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = body.get(..start).unwrap_or_default();
            let line = self.above + 1 + before.matches('\n').count();
            BaselineError::parse(path, line, error.message().trim_end().to_owned())
        })?;
        Ok(read.into())
    }
}

/// Reads a body whose tensors stand one a line, as they are written: the same as in one piece, in a
/// tenth of the memory. `None` for anything else, errors included.
///
/// Lines that are complete TOML documents of one new key each make up the same document together.
fn by_lines(body: &str) -> Option<Measurement> {
    let (head, tensors) = match body.strip_prefix("[tensors]\n") {
        Some(tensors) => ("", tensors),
        None => body.split_once("\n[tensors]\n")?,
    };
    let head: Head = toml::from_str(head).ok()?;
    let mut measurement =
        Measurement { global: head.global.map(Global::from), ..Measurement::default() };
    for line in tensors.lines() {
        let mut one: BTreeMap<String, TensorTable> = toml::from_str(line).ok()?;
        let (name, table) = one.pop_first()?;
        if !one.is_empty() || measurement.tensors.insert(name, table.into()).is_some() {
            return None;
        }
    }
    Some(measurement)
}

/// Markers that version control leaves behind when it cannot merge.
fn conflict(path: &Path, text: &str) -> Result<(), BaselineError> {
    let marker = |line: &str| {
        ["<<<<<<< ", ">>>>>>> ", "||||||| "].iter().any(|m| line.starts_with(m))
            || line.trim_end() == "======="
    };
    match text.lines().position(marker) {
        None => Ok(()),
        Some(i) => {
            let message = "a merge conflict: resolve it, or delete the file and accept it anew";
            Err(BaselineError::parse(path, i + 1, message))
        }
    }
}

/// The body as TOML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    global: Option<GlobalTable>,
    tensors: BTreeMap<String, TensorTable>,
}

/// What stands above the tensors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    global: Option<GlobalTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GlobalTable {
    tensors: u64,
    numel: u64,
    cosine: Option<f64>,
    sqnr_db: Option<f64>,
    rmse: Option<f64>,
    rel_rmse: Option<f64>,
    max_abs: Option<f64>,
    gain: Option<f64>,
    nonfinite: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorTable {
    qtype: String,
    shape: Vec<u64>,
    numel: u64,
    cosine: Option<f64>,
    sqnr_db: Option<f64>,
    rmse: Option<f64>,
    rel_rmse: Option<f64>,
    max_abs: Option<f64>,
    gain: Option<f64>,
    bits_per_weight: f64,
    nonfinite: u64,
}

/// The six metrics of a table that has a field for each.
macro_rules! values {
    ($table:expr) => {
        Metric::ALL.into_iter().fold(Values::default(), |values, metric| {
            let value = match metric {
                Metric::Cosine => $table.cosine,
                Metric::SqnrDb => $table.sqnr_db,
                Metric::Rmse => $table.rmse,
                Metric::RelRmse => $table.rel_rmse,
                Metric::MaxAbs => $table.max_abs,
                Metric::Gain => $table.gain,
            };
            values.with(metric, value)
        })
    };
}

impl From<GlobalTable> for Global {
    fn from(table: GlobalTable) -> Self {
        Self {
            tensors: table.tensors,
            numel: table.numel,
            values: values!(table),
            nonfinite: table.nonfinite,
        }
    }
}

impl From<TensorTable> for Entry {
    fn from(table: TensorTable) -> Self {
        Self {
            values: values!(table),
            qtype: table.qtype,
            shape: table.shape,
            numel: table.numel,
            bits_per_weight: table.bits_per_weight,
            nonfinite: table.nonfinite,
        }
    }
}

impl From<Body> for Measurement {
    fn from(body: Body) -> Self {
        let tensors = body.tensors.into_iter().map(|(name, table)| (name, table.into()));
        Self { global: body.global.map(Global::from), tensors: tensors.collect() }
    }
}

/// The body's text.
fn body(measurement: &Measurement) -> String {
    // Writing into a string cannot fail.
    let mut out = String::new();
    if let Some(global) = &measurement.global {
        let _ = writeln!(out, "[global]\ntensors = {}\nnumel = {}", global.tensors, global.numel);
        for (name, value) in named(&global.values) {
            let _ = writeln!(out, "{name} = {}", float(value));
        }
        let _ = writeln!(out, "nonfinite = {}\n", global.nonfinite);
    }
    out.push_str("[tensors]\n");
    for (name, entry) in &measurement.tensors {
        let _ = write!(
            out,
            "{} = {{ qtype = {}, shape = {:?}, numel = {}",
            quote(name),
            quote(&entry.qtype),
            entry.shape,
            entry.numel
        );
        for (name, value) in named(&entry.values) {
            let _ = write!(out, ", {name} = {}", float(value));
        }
        let bits = float(entry.bits_per_weight);
        let _ = writeln!(out, ", bits_per_weight = {bits}, nonfinite = {} }}", entry.nonfinite);
    }
    out
}

fn named(values: &Values) -> impl Iterator<Item = (&'static str, f64)> {
    Metric::ALL
        .into_iter()
        .filter_map(|metric| values.get(metric).map(|value| (metric.name(), value)))
}

/// The shortest decimal that reads back as the same bits; NaN without sign and payload.
fn float(value: f64) -> String {
    if value.is_nan() { "nan".to_owned() } else { format!("{value:?}") }
}

/// A TOML basic string.
///
/// Beyond what TOML asks for, characters that can change how a line looks (C1 controls, line
/// separators, marks of direction) are escaped as well, so that a reviewer sees what is there.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || deceptive(c) => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Characters without a face of their own, all of the basic plane.
fn deceptive(c: char) -> bool {
    matches!(
        c,
        '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}'
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            source: "specs/tiny.toml".into(),
            description: Some("tiny / q8_0".into()),
            info: vec![("schema".into(), SCHEMA.into())],
            ..Header::default()
        }
    }

    fn values(numbers: [f64; 6]) -> Values {
        Metric::ALL.into_iter().zip(numbers).fold(Values::default(), |v, (m, x)| v.with(m, Some(x)))
    }

    fn entry(numbers: [f64; 6]) -> Entry {
        Entry {
            qtype: "q8_0".into(),
            shape: vec![64, 64],
            numel: 4096,
            values: values(numbers),
            bits_per_weight: 8.5,
            nonfinite: 0,
        }
    }

    fn sample() -> Snapshot {
        let numbers = [0.99998712345, 45.5, 1.2e-3, 5e-7, 0.011, 1.0];
        let mut tensors = BTreeMap::new();
        tensors.insert("blk.0.attn_q.weight".to_owned(), entry(numbers));
        let exact = Entry { qtype: "i32".into(), shape: vec![], numel: 1, ..Entry::default() };
        tensors.insert("a \"quoted\"\nname".to_owned(), exact);
        let global =
            Some(Global { tensors: 1, numel: 4096, values: values(numbers), nonfinite: 0 });
        Snapshot { header: header(), measurement: Measurement { global, tensors } }
    }

    #[test]
    fn the_file_as_a_whole() {
        let expected = "\
---
source: specs/tiny.toml
description: tiny / q8_0
info:
  schema: \"1\"
---
[global]
tensors = 1
numel = 4096
cosine = 0.99998712345
sqnr_db = 45.5
rmse = 0.0012
rel_rmse = 5e-7
max_abs = 0.011
gain = 1.0
nonfinite = 0

[tensors]
\"a \\\"quoted\\\"\\nname\" = { qtype = \"i32\", shape = [], numel = 1, bits_per_weight = 0.0, nonfinite = 0 }
\"blk.0.attn_q.weight\" = { qtype = \"q8_0\", shape = [64, 64], numel = 4096, cosine = 0.99998712345, sqnr_db = 45.5, rmse = 0.0012, rel_rmse = 5e-7, max_abs = 0.011, gain = 1.0, bits_per_weight = 8.5, nonfinite = 0 }
";
        assert_eq!(sample().render(), expected);
    }

    #[test]
    fn insta_reads_what_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/er/tiny__q8_0.snap");
        let snapshot = sample();
        snapshot.write(&path).unwrap();
        let insta = insta::Snapshot::from_file(&path).unwrap();
        assert_eq!(insta.metadata().source(), Some("specs/tiny.toml"));
        assert_eq!(insta.metadata().description(), Some("tiny / q8_0"));
        assert_eq!((insta.module_name(), insta.snapshot_name()), ("tiny", Some("q8_0")));
        assert_eq!(insta.as_text().unwrap().to_string() + "\n", body(&snapshot.measurement));
        assert_eq!(Snapshot::read(&path).unwrap(), Some(snapshot));
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary file stays behind");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_ne!(mode & 0o044, 0, "as readable as any other file: {mode:o}");
        }
    }

    #[test]
    fn insta_saves_the_same_bytes() {
        // What `cargo insta accept` does with the library's own means.
        let directory = tempfile::tempdir().unwrap();
        let pending = directory.path().join("a__b.snap.new");
        let mut snapshot = sample();
        snapshot.header.assertion_line = Some(7);
        snapshot.header.set_info("reason", "k-quants: new rounding, see #42");
        snapshot.write(&pending).unwrap();
        let accepted = directory.path().join("a__b.snap");
        insta::Snapshot::from_file(&pending).unwrap().save(&accepted).unwrap();
        snapshot.header.assertion_line = None;
        assert_eq!(fs::read_to_string(&accepted).unwrap(), snapshot.render());
    }

    #[test]
    fn missing_is_none_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Snapshot::read(&directory.path().join("none.snap")).unwrap(), None);
        assert!(Snapshot::read(directory.path()).is_err(), "a directory");
        let head = "---\nsource: a\n---\n";
        let line = "\"t\" = { qtype = \"f32\", shape = [1], numel = 1, bits_per_weight = 32.0, \
                    nonfinite = 0 }\n";
        // content, line of the error, part of its message, why
        for (content, at, message, why) in [
            (String::new(), 1, "first line", "empty"),
            ("[tensors]\n".into(), 1, "first line", "no frame"),
            ("---\nsource: a\n".into(), 1, "no closing", "cut off in the header"),
            (head.into(), 4, "tensors", "cut off after the header"),
            (format!("{head}[tensors]\n\"t\" = {{ qtype"), 5, "", "cut off in a line"),
            (format!("{head}[tensors]\n{line}{line}"), 6, "duplicate", "the same tensor twice"),
            (
                format!("{head}[tensors]\n{}", line.replace("numel", "count")),
                5,
                "unknown field `count`",
                "a key of nobody's",
            ),
            (format!("{head}[tensors]\n[more]\n"), 5, "unknown field `more`", "a table more"),
            (format!("{head}[tensors]\n{}", line.replace("32.0", "\"x\"")), 5, "", "a wrong type"),
            (format!("{head}[tensors]\n{}", line.replace("= 1,", "= -1,")), 5, "", "below zero"),
            (
                format!("{head}[tensors]\n<<<<<<< HEAD\n{line}=======\n{line}>>>>>>> b\n"),
                5,
                "merge conflict",
                "conflict in the body",
            ),
            (format!("<<<<<<< HEAD\n{head}[tensors]\n"), 1, "merge conflict", "at the top"),
            (
                "---\nsource: a\ninfo:\n  schema: \"2\"\n---\n[tensors]\n".into(),
                1,
                "format 2",
                "newer",
            ),
            ("---\nsource: a\ninfo:\n  x: .inf\n---\n[tensors]\n".into(), 4, "quotes", "YAML"),
        ] {
            let path = directory.path().join("a__b.snap");
            fs::write(&path, content).unwrap();
            let error = Snapshot::read(&path).expect_err(why).to_string();
            assert!(error.contains(&format!("a__b.snap:{at}: ")), "{why}: {error}");
            assert!(error.contains(message), "{why}: {error}");
        }
        let path = directory.path().join("a__b.snap");
        fs::write(&path, b"---\nsource: \xff\n---\n[tensors]\n").unwrap();
        assert!(Snapshot::read(&path).is_err(), "not UTF-8");
    }

    #[test]
    fn windows_line_ends_read_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a__b.snap");
        fs::write(&path, sample().render().replace('\n', "\r\n")).unwrap();
        assert_eq!(Snapshot::read(&path).unwrap(), Some(sample()));
    }

    #[test]
    fn a_number_that_toml_cannot_hold_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a__b.snap");
        let mut snapshot = sample();
        snapshot.measurement.global = Some(Global { numel: u64::MAX, ..Global::default() });
        snapshot.write(&path).expect_err("beyond 64-bit signed");
        assert!(!path.exists());
    }

    fn names() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            r#"["'\\\]>\[{}=.#\n\r\t a]{0,8}"#,
            "[\u{0}-\u{20}\u{7f}-\u{a0}\u{2028}\u{2029}\u{fffe}\u{feff}\u{202e}]{0,6}",
            Just("]]>".to_owned()),
            Just("---".to_owned()),
            Just("blk.0.attn_q.weight".to_owned()),
            Just("\u{1b}[31mred\u{1b}[0m 🎈".to_owned()),
        ]
    }

    fn numbers() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            any::<f32>().prop_map(f64::from),
            -1.0..2.0
        ]
    }

    proptest! {
        #[test]
        fn any_measurement_survives(
            tensors in proptest::collection::btree_map(
                names(),
                (names(), proptest::collection::vec(0..=i64::MAX as u64, 0..5),
                 proptest::array::uniform6(proptest::option::of(numbers())), numbers()),
                0..6,
            ),
            global in proptest::option::of(proptest::array::uniform6(numbers())),
        ) {
            let tensors: BTreeMap<_, _> = tensors.into_iter().map(|(name, (qtype, shape, v, bits))| {
                let values = Metric::ALL.into_iter().zip(v).fold(Values::default(), |a, (m, x)| a.with(m, x));
                (name, Entry { qtype, shape, values, bits_per_weight: bits, ..Entry::default() })
            }).collect();
            let global = global.map(|v| Global { values: values(v), ..Global::default() });
            let snapshot = Snapshot { header: header(), measurement: Measurement { global, tensors } };
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a__b.snap");
            snapshot.write(&path).unwrap();
            let insta = insta::Snapshot::from_file(&path).unwrap();
            let text = body(&snapshot.measurement);
            prop_assert_eq!(insta.as_text().unwrap().to_string(), text.trim_end());
            prop_assert_eq!(text.lines().filter(|l| l.starts_with('"')).count(),
                snapshot.measurement.tensors.len(), "one line a tensor");
            let read = Snapshot::read(&path).unwrap().unwrap();
            // Bit for bit, NaN aside: `==` takes 0.0 and -0.0 for the same.
            let bits = |s: &Snapshot| -> Vec<Vec<Option<u64>>> {
                let of = |v: &Values| Metric::ALL.map(|m| v.get(m).map(canonical)).to_vec();
                s.measurement.tensors.values().map(|e| {
                    let mut all = of(&e.values);
                    all.push(Some(canonical(e.bits_per_weight)));
                    all
                }).chain(s.measurement.global.iter().map(|g| of(&g.values))).collect()
            };
            prop_assert_eq!(bits(&read), bits(&snapshot));
            prop_assert!(read.measurement.tensors.keys().eq(snapshot.measurement.tensors.keys()));
            prop_assert_eq!(read.render(), snapshot.render(), "the same bytes again");
        }

        #[test]
        fn insta_reads_any_header(source in names(), description in names(), key in names(), value in names()) {
            let header = Header {
                source: source.clone(),
                description: Some(description.clone()),
                info: vec![(key, value)],
                ..Header::default()
            };
            let snapshot = Snapshot { header, measurement: Measurement::default() };
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a__b.snap");
            fs::write(&path, snapshot.render()).unwrap();
            let insta = insta::Snapshot::from_file(&path).unwrap();
            prop_assert_eq!(insta.metadata().source(), Some(source.as_str()));
            prop_assert_eq!(insta.metadata().description().unwrap_or_default(), description);
            // Accepting may change nothing, whatever stands in the header.
            let accepted = directory.path().join("b__b.snap");
            insta.save(&accepted).unwrap();
            let again = Snapshot::read(&accepted).unwrap().unwrap();
            prop_assert_eq!(again.header, snapshot.header);
        }
    }

    fn canonical(value: f64) -> u64 {
        if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }
    }
}
