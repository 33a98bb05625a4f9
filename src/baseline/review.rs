/*!
What people do about pending snapshots: look at them, accept them, reject them.

Accepting checks everything before it writes anything. It moves a pending file onto its snapshot in
one step and then removes it, so that a killed process leaves the old or the new baseline, whole.
*/

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::pending::{Origin, Pending};
use super::table::{self, plain};
use super::{
    BaselineError, Comparison, Move, Snapshot, Structure, Tolerances, Trend, compare, file,
};

/// A pending snapshot, opened beside the accepted one.
#[derive(Clone, Debug)]
pub struct Reviewed {
    /// Which it is.
    pub pending: Pending,
    /// The accepted snapshot, if there is one.
    pub old: Option<Snapshot>,
    /// The pending one.
    pub new: Snapshot,
    /// How it moved, with the tolerances that were recorded with it; none without an old one.
    pub comparison: Option<Comparison>,
}

/// How to accept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// Recorded with the baseline as `accepted_reason`.
    pub reason: Option<String>,
    /// Accept what is worse although the spec says `ratchet`; needs a reason.
    pub allow_worse: bool,
    /// Check everything and write nothing.
    pub dry_run: bool,
}

impl Reviewed {
    /// Reads a pending snapshot and the one that it would replace.
    pub fn open(pending: &Pending) -> Result<Self, BaselineError> {
        let new = pending.read()?;
        let old = Snapshot::read(&pending.snapshot)?;
        let tolerances = Tolerances::from_record(new.header.info("tolerance"));
        let comparison =
            old.as_ref().map(|old| compare(&old.measurement, &new.measurement, &tolerances));
        Ok(Self { pending: pending.clone(), old, new, comparison })
    }

    /// `new`, `same`, `better` or `changed`.
    pub fn status(&self) -> &'static str {
        match self.comparison.as_ref().map(Comparison::trend) {
            None => "new",
            Some(Trend::Held) => "same",
            Some(Trend::Better) => "better",
            Some(Trend::Changed) => "changed",
        }
    }

    /// One line: name, status, and how much of what.
    pub fn summary(&self) -> String {
        let mut out = format!("{}: {}", self.pending.name, self.status());
        let Some(comparison) = &self.comparison else {
            let _ = write!(out, ", {} tensors", self.new.measurement.tensors.len());
            return out;
        };
        let moves = || comparison.all().flat_map(|t| &t.moves);
        let structure = || comparison.tensors.iter().flat_map(|t| &t.structure);
        let added = structure().filter(|s| **s == Structure::Added).count();
        let removed = structure().filter(|s| **s == Structure::Removed).count();
        for (count, what) in [
            (moves().filter(|m| m.kind == Move::Worse).count(), "worse"),
            (moves().filter(|m| m.kind == Move::Better).count(), "better"),
            (added, "added"),
            (removed, "removed"),
            (structure().count() - added - removed, "of another structure"),
        ] {
            if count > 0 {
                let _ = write!(out, ", {count} {what}");
            }
        }
        out
    }

    /// Everything that a reviewer needs: summary, provenance, table.
    pub fn describe(&self) -> String {
        let mut out = self.summary();
        let header = &self.new.header;
        let line = header.assertion_line.map_or(String::new(), |line| format!(":{line}"));
        let _ = write!(out, "\n  source: {}{line}\n", plain(&header.source));
        if let Some(description) = &header.description {
            let _ = writeln!(out, "  {}", plain(description));
        }
        for (key, value) in &header.info {
            let old = self.old.as_ref().and_then(|old| old.header.info(key));
            let now = format!("{}{}", if old.is_some() { "-> " } else { "" }, plain(value));
            if old != Some(value) {
                let was = old.map(|old| plain(old) + " ").unwrap_or_default();
                let _ = writeln!(out, "  {}: {was}{now}", plain(key));
            }
        }
        out.push_str(&match (&self.comparison, &self.old) {
            (Some(comparison), Some(old)) => table::movements(comparison, old, &self.new),
            _ => table::contents(&self.new),
        });
        out
    }

    /// The snapshot as it would be accepted, unless `ratchet` forbids it.
    fn accepted(&self, options: &Accept) -> Result<Snapshot, BaselineError> {
        let ratchet = |s: &Snapshot| s.header.info("ratchet") == Some("true");
        let ratcheted = ratchet(&self.new) || self.old.as_ref().is_some_and(ratchet);
        let regressions = self.comparison.as_ref().map(Comparison::regressions).unwrap_or_default();
        if ratcheted && !regressions.is_empty() && !options.allow_worse {
            return Err(BaselineError::Ratchet {
                path: self.pending.snapshot.clone(),
                regressions: regressions.join("; "),
            });
        }
        let mut snapshot = self.new.clone();
        snapshot.header.assertion_line = None;
        if let Some(reason) = &options.reason {
            snapshot.header.set_info("accepted_reason", reason);
        }
        Ok(snapshot)
    }
}

/// Accepts pending snapshots: all of them, or none if one of them cannot be.
///
/// Gives the names of the accepted snapshots. Two pending files for one snapshot (of two platforms,
/// say) must hold the same numbers.
pub fn accept(pending: &[Pending], options: &Accept) -> Result<Vec<String>, BaselineError> {
    if options.reason.as_ref().is_some_and(|reason| reason.trim().is_empty()) {
        return Err(BaselineError::Usage("an empty reason is no reason".to_owned()));
    }
    if options.allow_worse && options.reason.is_none() {
        let message = "`--allow-worse` needs `--reason TEXT`: it stays with the baseline";
        return Err(BaselineError::Usage(message.to_owned()));
    }
    let mut ready: Vec<(&Pending, Snapshot)> = Vec::new();
    let mut first: HashMap<&Path, usize> = HashMap::new();
    for pending in pending {
        let snapshot = Reviewed::open(pending)?.accepted(options)?;
        let index = *first.entry(&pending.snapshot).or_insert(ready.len());
        if let Some((known, other)) = ready.get(index)
            && !other.measurement.same_bits(&snapshot.measurement)
        {
            return Err(BaselineError::Usage(format!(
                "{} and {} are for the same snapshot and differ; choose one with a filter",
                known.place(),
                pending.place()
            )));
        }
        ready.push((pending, snapshot));
    }
    let written = if options.dry_run { &[][..] } else { &ready };
    for (pending, snapshot) in written {
        snapshot.write(&pending.snapshot)?;
        if let Origin::File(path) = &pending.origin {
            file::remove_if_present(path)?;
        }
    }
    let mut names: Vec<String> = ready.iter().map(|(pending, _)| pending.name.clone()).collect();
    names.dedup();
    Ok(names)
}

/// Rejects pending snapshots: removes their files, or with `dry_run` only says which. What cannot be
/// read can still be rejected.
pub fn reject(pending: &[Pending], dry_run: bool) -> Result<Vec<String>, BaselineError> {
    for pending in pending {
        match &pending.origin {
            Origin::File(_) if dry_run => {}
            Origin::File(path) => {
                file::remove_if_present(path)?;
            }
            Origin::Artefact(path, _) => {
                let path = path.display();
                let message = format!("{path} is an artefact: there is nothing here to reject");
                return Err(BaselineError::Usage(message));
            }
        }
    }
    Ok(pending.iter().map(|p| p.name.clone()).collect())
}

/// Pending snapshots, one line each; what cannot be read says why.
pub fn list_text(pending: &[Pending]) -> String {
    pending.iter().fold(String::new(), |mut out, pending| {
        let line = match Reviewed::open(pending) {
            Ok(reviewed) => reviewed.summary(),
            Err(error) => format!("{}: unreadable: {error}", pending.name),
        };
        let _ = writeln!(out, "{line}");
        out
    })
}

/// Pending snapshots as a JSON array: `snapshot`, `pending`, `source`, `status` (`new`, `same`,
/// `better`, `changed`, `unreadable`), `changes` (one line each), `moves` (`tensor`, `metric`,
/// `old`, `new`, `kind`; numbers that are not finite are `null`) and `error`.
pub fn list_json(pending: &[Pending]) -> Value {
    let row = |pending: &Pending| {
        let (name, place) = (&pending.name, pending.place());
        match Reviewed::open(pending) {
            Err(error) => json!({
                "snapshot": name, "pending": place, "source": null, "status": "unreadable",
                "changes": [], "moves": [], "error": error.to_string(),
            }),
            Ok(reviewed) => json!({
                "snapshot": name, "pending": place, "source": reviewed.new.header.source,
                "status": reviewed.status(),
                "changes": reviewed.comparison.as_ref().map(Comparison::changes).unwrap_or_default(),
                "moves": moves(&reviewed), "error": null,
            }),
        }
    };
    pending.iter().map(row).collect()
}

/// Every metric that moved beyond its tolerance.
fn moves(reviewed: &Reviewed) -> Vec<Value> {
    let all = reviewed.comparison.iter().flat_map(Comparison::all);
    all.flat_map(|t| t.moves.iter().map(move |m| (&t.name, m)))
        .filter(|(_, m)| matches!(m.kind, Move::Better | Move::Worse))
        .map(|(tensor, m)| {
            json!({
                "tensor": tensor, "metric": m.metric.name(), "old": m.old, "new": m.new,
                "kind": m.kind.name(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::sample::Checkout;

    fn accept_all(checkout: &Checkout, options: &Accept) -> Result<Vec<String>, BaselineError> {
        accept(&checkout.places().pending().unwrap(), options)
    }

    fn because(reason: &str, allow_worse: bool) -> Accept {
        Accept { reason: Some(reason.to_owned()), allow_worse, ..Accept::default() }
    }

    #[test]
    fn accepting_moves_the_pending_file() {
        let checkout = Checkout::new();
        checkout.accepted("a", 0.9, "");
        checkout.pending("a", 0.8, "");
        checkout.pending("b", 0.7, "");
        let names = accept_all(&checkout, &because("rounding: #42", false)).unwrap();
        assert_eq!(names, ["snapshots/tiny__a.snap", "snapshots/tiny__b.snap"]);
        assert_eq!(checkout.files(), names, "nothing is pending any more");
        assert_eq!(
            checkout.read("a"),
            "---\nsource: specs/tiny.toml\ndescription: tiny\ninfo:\n  schema: \"1\"\n  \
             tolerance: \"abs 0.001, rel 0.0\"\n  accepted_reason: \"rounding: #42\"\n---\n\
             [tensors]\n\"blk.0.w\" = { qtype = \"q8_0\", shape = [4, 4], numel = 16, \
             cosine = 0.8, rmse = 0.01, bits_per_weight = 8.5, nonfinite = 0 }\n"
        );
    }

    #[test]
    fn accepting_is_all_or_nothing() {
        let checkout = Checkout::new();
        checkout.pending("a", 0.9, "");
        checkout.write("snapshots/tiny__b.snap.new", "---\nsource: x\n---\n[tensors\n");
        let before = checkout.files();
        let error = accept_all(&checkout, &Accept::default()).expect_err("b is broken").to_string();
        assert!(error.contains("tiny__b.snap.new:4: "), "{error}");
        assert_eq!(checkout.files(), before, "a was not accepted either");
        checkout.pending("b", 0.9, "");
        checkout.write("snapshots/tiny__b.snap", "=======\n");
        accept_all(&checkout, &Accept::default()).expect_err("b's old snapshot is broken");
        for options in [because(" ", false), Accept { allow_worse: true, ..Accept::default() }] {
            accept_all(&checkout, &options).expect_err("no reason");
        }
    }

    #[test]
    fn a_ratchet_refuses_what_is_worse() {
        // old, new, old ratchets, new ratchets, options, accepted, why
        let plain = Accept::default();
        for (old, new, was, is, options, accepted, why) in [
            (Some(0.9), 0.95, "r", "r", plain.clone(), true, "better"),
            (Some(0.9), 0.8995, "r", "r", plain.clone(), true, "within the recorded tolerance"),
            (Some(0.9), 0.8, "r", "r", plain.clone(), false, "worse"),
            (Some(0.9), f64::NAN, "r", "r", plain.clone(), false, "NaN"),
            (Some(0.9), 0.8, "", "r", plain.clone(), false, "a ratchet from now on"),
            (Some(0.9), 0.8, "r", "", plain.clone(), false, "a ratchet until now"),
            (Some(0.9), 0.8, "", "", plain.clone(), true, "no ratchet"),
            (None, 0.8, "", "r", plain.clone(), true, "a first baseline"),
            (Some(0.9), 0.8, "r", "r", because("x", false), false, "a reason alone"),
            (Some(0.9), 0.8, "r", "r", because("x", true), true, "with leave"),
        ] {
            let checkout = Checkout::new();
            if let Some(old) = old {
                checkout.accepted("a", old, was);
            }
            checkout.pending("a", new, is);
            assert_eq!(accept_all(&checkout, &options).is_ok(), accepted, "{why}");
        }
    }

    #[test]
    fn artefacts_of_two_platforms() {
        let checkout = Checkout::new();
        checkout.pending_in("linux/pending/snapshots", "a", 0.9, "");
        checkout.pending_in("macos/pending/snapshots", "a", 0.9, "");
        let all = || {
            let places = checkout.places();
            let mut all = places.from_artefact(&checkout.path("linux")).unwrap();
            all.extend(places.from_artefact(&checkout.path("macos")).unwrap());
            all
        };
        reject(&all(), false).expect_err("artefacts are not ours to remove");
        let before = checkout.files();
        assert_eq!(accept(&all(), &Accept::default()).unwrap(), ["snapshots/tiny__a.snap"]);
        assert_eq!(checkout.files().len(), before.len() + 1, "the artefacts stay");
        checkout.pending_in("macos/pending/snapshots", "a", 0.8, "");
        let error = accept(&all(), &Accept::default()).expect_err("they differ").to_string();
        assert!(error.contains("linux") && error.contains("macos"), "{error}");
        assert!(checkout.read("a").contains("cosine = 0.9,"));
    }

    #[test]
    fn rejecting_removes_the_pending_file() {
        let checkout = Checkout::new();
        checkout.accepted("a", 0.9, "");
        checkout.pending("a", 0.8, "");
        checkout.write("snapshots/tiny__b.snap.new", "broken");
        let all = checkout.places().pending().unwrap();
        let before = checkout.files();
        assert_eq!(reject(&all, true).unwrap().len(), all.len());
        assert_eq!(checkout.files(), before, "a dry run");
        let names = reject(&all, false).unwrap();
        assert_eq!(names, ["snapshots/tiny__a.snap", "snapshots/tiny__b.snap"]);
        assert_eq!(checkout.files(), ["snapshots/tiny__a.snap"]);
    }

    #[test]
    fn what_a_reviewer_sees() {
        let checkout = Checkout::new();
        checkout.accepted("a", 0.9, "");
        let mut new = crate::baseline::sample::snapshot(0.85, "", Some(7));
        let mut entry = new.measurement.tensors["blk.0.w"].clone();
        new.measurement.tensors.insert("esc\u{1b}[31m".to_owned(), entry.clone());
        entry.qtype = "q4_0".into();
        entry.values = entry.values.with(crate::metrics::Metric::Rmse, Some(0.005));
        new.measurement.tensors.insert("blk.0.w".to_owned(), entry);
        new.header.set_info("harness", "0.2.0");
        new.write(&checkout.path("snapshots/tiny__a.snap.new")).unwrap();
        let pending = checkout.places().pending().unwrap();
        let reviewed = Reviewed::open(&pending[0]).unwrap();
        assert_eq!(
            reviewed.describe(),
            "snapshots/tiny__a.snap: changed, 1 worse, 1 better, 1 added, 1 of another structure
  source: specs/tiny.toml:7
  tiny
  harness: 0.2.0
  tensor           value   old   new          change
  blk.0.w          type    q8_0  q4_0                  retyped
  blk.0.w          cosine  0.9   0.85         -5.0e-2  worse
  blk.0.w          rmse    0.01  0.005        -5.0e-3  better
  \"esc\\u001B[31m\"          -     q8_0 [4, 4]           added
  0 values the same, 0 within the tolerance
"
        );
        let json = list_json(&pending);
        assert_eq!(json[0]["status"], "changed");
        assert_eq!(json[0]["source"], "specs/tiny.toml");
        assert_eq!(json[0]["changes"][0], "blk.0.w: type q8_0 -> q4_0");
        assert_eq!(json[0]["moves"][0]["kind"], "worse");
        assert_eq!(json[0]["moves"][0]["old"], 0.9);

        checkout.write("snapshots/tiny__b.snap.new", "broken");
        checkout.pending("c", 0.9, "");
        let pending = checkout.places().pending().unwrap();
        let text = list_text(&pending);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("tiny__b.snap: unreadable: "), "{text}");
        assert_eq!(lines[2], "snapshots/tiny__c.snap: new, 1 tensors");
        assert_eq!(list_json(&pending)[1]["status"], "unreadable");
        let new = Reviewed::open(&pending[2]).unwrap().describe();
        assert!(new.contains("\n  blk.0.w  q8_0   [4, 4]  0.9     0.01  -\n"), "{new}");
    }
}
