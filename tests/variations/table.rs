/*! Runs of one kind: models, the exit code that is right, what must and what must not be said. */

use crate::program::{Ran, Suite};

/// Files by their names.
pub type Files = Vec<(String, Vec<u8>)>;

/// One file called `model.safetensors`.
pub fn model(bytes: Vec<u8>) -> Files {
    files([("model.safetensors", bytes)])
}

/// Files by their names.
pub fn files<const N: usize>(files: [(&str, Vec<u8>); N]) -> Files {
    files.map(|(name, bytes)| (name.to_owned(), bytes)).into()
}

/// The runs of a kind; all of those that end wrong are told together.
pub struct Table {
    kind: &'static str,
    wrong: Vec<String>,
    sound: usize,
    damaged: usize,
}

impl Table {
    /// `kind` is its number and name.
    pub fn of(kind: &'static str) -> Self {
        Self { kind, wrong: Vec::new(), sound: 0, damaged: 0 }
    }

    /// A pair that is healthy.
    pub fn healthy(&mut self, what: &str, reference: &Files, quantized: &Files) {
        self.sound += 1;
        self.check(what, reference, quantized, &[0], &[], &[]);
    }

    /// A pair that is healthy, of which something must be said.
    pub fn noted(&mut self, what: &str, reference: &Files, quantized: &Files, says: &[&str]) {
        self.sound += 1;
        self.check(what, reference, quantized, &[0], says, &[]);
    }

    /// A pair that fails, by the names in `says`.
    pub fn damaged(&mut self, what: &str, reference: &Files, quantized: &Files, says: &[&str]) {
        self.damaged += 1;
        self.check(what, reference, quantized, &[5], says, &["nothing was quantized"]);
    }

    /// Counts runs whose models are no two directories.
    pub fn count(&mut self, sound: usize, damaged: usize) {
        self.sound += sound;
        self.damaged += damaged;
    }

    /// Judges a pair: `reference` and `quantized` are directories.
    pub fn check(
        &mut self,
        what: &str,
        reference: &Files,
        quantized: &Files,
        codes: &[i32],
        says: &[&str],
        never: &[&str],
    ) {
        let suite = Suite::new();
        for (directory, files) in [("r", reference), ("q", quantized)] {
            for (name, bytes) in files {
                suite.write(&format!("{directory}/{name}"), bytes);
            }
        }
        self.expect(what, &suite.qualm(&["check", "r", "q"]), codes, says, never);
    }

    /// Holds what came of a run against what is right.
    pub fn expect(&mut self, what: &str, ran: &Ran, codes: &[i32], says: &[&str], never: &[&str]) {
        let said = |words: &&&str| ran.out.contains(**words) || ran.err.contains(**words);
        let silent: Vec<_> = says.iter().filter(|words| !said(words)).collect();
        let untrue: Vec<_> = never.iter().filter(said).collect();
        if !codes.contains(&ran.code) || !silent.is_empty() || !untrue.is_empty() {
            let head = format!("{what}: right is {codes:?}, missing {silent:?}, wrong {untrue:?}");
            self.wrong.push(format!("--- {head}\n{ran}"));
        }
    }
}

impl Drop for Table {
    /// A kind has at least three runs that are right and one that is damaged, and all of them end right.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let Self { kind, wrong, sound, damaged } = self;
        assert!(wrong.is_empty(), "{kind}: {} runs end wrong\n{}", wrong.len(), wrong.join("\n"));
        assert!(*sound >= 3 && *damaged >= 1, "{kind}: {sound} sound, {damaged} damaged");
    }
}
