/*!
A checkout with a few baselines, for the tests of this room.
*/

use std::fs;
use std::path::{Path, PathBuf};

use super::{Entry, Header, Measurement, Places, Snapshot, Values, file_stem};
use crate::metrics::Metric;

/// A directory with `snapshots/`.
pub struct Checkout(tempfile::TempDir);

impl Checkout {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Snapshots in `snapshots`, pending files also in `out/pending`.
    pub fn places(&self) -> Places {
        Places {
            workspace: self.path(""),
            snapshots: vec![self.path("snapshots")],
            pending: vec![self.path("out/pending")],
        }
    }

    /// Writes an accepted snapshot of one tensor; `ratchet` marks it as one that may only improve.
    pub fn accepted(&self, pair: &str, cosine: f64, ratchet: &str) {
        let stem = file_stem("tiny", pair);
        snapshot(cosine, ratchet, None)
            .write(&self.path(&format!("snapshots/{stem}.snap")))
            .unwrap();
    }

    /// Writes a pending snapshot beside where it belongs.
    pub fn pending(&self, pair: &str, cosine: f64, ratchet: &str) {
        self.pending_in("snapshots", pair, cosine, ratchet);
    }

    /// Writes a pending snapshot into a directory.
    pub fn pending_in(&self, directory: &str, pair: &str, cosine: f64, ratchet: &str) {
        let stem = file_stem("tiny", pair);
        snapshot(cosine, ratchet, Some(7))
            .write(&self.path(&format!("{directory}/{stem}.snap.new")))
            .unwrap();
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The text of an accepted snapshot.
    pub fn read(&self, pair: &str) -> String {
        fs::read_to_string(self.path(&format!("snapshots/{}.snap", file_stem("tiny", pair))))
            .unwrap()
    }

    /// All files, sorted.
    pub fn files(&self) -> Vec<String> {
        fn walk(directory: &Path, root: &Path, out: &mut Vec<String>) {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, root, out);
                } else {
                    out.push(path.strip_prefix(root).unwrap().display().to_string());
                }
            }
        }
        let mut out = Vec::new();
        walk(self.0.path(), self.0.path(), &mut out);
        out.sort();
        out
    }
}

/// A snapshot of one tensor with this cosine and an rmse of 0.01.
pub fn snapshot(cosine: f64, ratchet: &str, line: Option<u32>) -> Snapshot {
    let values =
        Values::default().with(Metric::Cosine, Some(cosine)).with(Metric::Rmse, Some(0.01));
    let entry = Entry {
        qtype: "q8_0".into(),
        shape: vec![4, 4],
        numel: 16,
        values,
        bits_per_weight: 8.5,
        nonfinite: 0,
    };
    let mut header = Header {
        source: "specs/tiny.toml".into(),
        assertion_line: line,
        description: Some("tiny".into()),
        info: vec![
            ("schema".into(), "1".into()),
            ("tolerance".into(), "abs 0.001, rel 0.0".into()),
        ],
        ..Header::default()
    };
    if !ratchet.is_empty() {
        header.set_info("ratchet", "true");
    }
    let measurement = Measurement { global: None, tensors: [("blk.0.w".to_owned(), entry)].into() };
    Snapshot { header, measurement }
}
