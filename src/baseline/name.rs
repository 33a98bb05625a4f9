/*!
From a spec and a pair to the stem of a snapshot's file name.

The map is injective and gives the same name everywhere: no two pairs share a file, and the name is
legal on every common file system. insta splits a stem at its last `__`, so that the pair is what
insta calls the snapshot's name and the spec what it calls the module.
*/

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// Longest stem that is written in full; with `.snap.new` it stays far below the 255 bytes that
/// file systems allow.
const LONGEST: usize = 180;

/// The stem of the snapshot file of a pair.
///
/// `spec` is the spec's path below the suite root without `.toml`, separated by `/`, which becomes
/// `__`. Letters, digits, `-`, `.` and single `_` stand for themselves; every other byte is written
/// `%XX`, and so is a `_` that could be taken for part of a `__` and a `.` that would hide the file or
/// make it a device (`nul.x`).
/// A stem that would be too long is cut and carries a hash after a `~`.
///
/// ```
/// # use qualm::baseline::file_stem;
/// assert_eq!(file_stem("gguf/minilm", "q4_0"), "gguf__minilm__q4_0");
/// assert_eq!(file_stem("gguf", "minilm__q4_0"), "gguf__minilm_%5Fq4_0");
/// ```
pub fn file_stem(spec: &str, pair: &str) -> String {
    let spec_part: Vec<String> = spec.split('/').map(encode).collect();
    let (spec_part, pair_part) = (spec_part.join("__"), encode(pair));
    let stem = format!("{spec_part}__{pair_part}");
    if stem.len() <= LONGEST {
        return stem;
    }
    let mut hash = Sha256::new();
    hash.update((spec.len() as u64).to_le_bytes());
    hash.update(spec);
    hash.update(pair);
    let mut digest = String::new();
    for byte in hash.finalize().iter().take(16) {
        // Writing into a string cannot fail.
        let _ = write!(digest, "{byte:02x}");
    }
    // The encoding is ASCII, so that any place is good to cut.
    let cut = |part: &str, most: usize| part.chars().take(most).collect::<String>();
    format!("{}~{digest}__{}", cut(&spec_part, 80), cut(&pair_part, 48))
}

/// Is this, before a dot, the name of a device on Windows?
fn is_device(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let numbered = ["com", "lpt"].iter().any(|port| {
        name.strip_prefix(port).is_some_and(|number| matches!(number.as_bytes(), [b'0'..=b'9']))
    });
    numbered || matches!(name.as_str(), "con" | "prn" | "aux" | "nul")
}

/// One component: no `__`, no `_` at its ends, nothing that needs care.
fn encode(component: &str) -> String {
    let mut out = String::with_capacity(component.len());
    let bytes = component.as_bytes();
    for (i, &byte) in bytes.iter().enumerate() {
        let first = i == 0;
        let last = i + 1 == bytes.len();
        let plain = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => true,
            b'.' => !first && !is_device(&out),
            b'_' => !first && !last && !out.ends_with('_'),
            _ => false,
        };
        if plain {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stems() {
        // spec, pair, stem, why
        for (spec, pair, stem, why) in [
            ("tiny", "q8_0", "tiny__q8_0", "the plain case"),
            ("a/b/c", "q8_0", "a__b__c__q8_0", "directories"),
            ("a", "b__c", "a__b_%5Fc", "the last `__` divides spec and pair"),
            ("a_", "_b", "a%5F__%5Fb", "a `_` at an end would lean on the divider"),
            ("a", "b/c", "a__b%2Fc", "a pair has no directories"),
            ("../up", "p", "%2E.__up__p", "no hidden file, no parent"),
            (".hidden", "p", "%2Ehidden__p", "cargo-insta skips hidden files"),
            ("v1.5", "Q4_K_M", "v1.5__Q4_K_M", "dots and capitals stay"),
            ("C:\\x", "a*?\"<>|", "C%3A%5Cx__a%2A%3F%22%3C%3E%7C", "illegal on Windows"),
            ("é", "a b\n\0~%", "%C3%A9__a%20b%0A%00%7E%25", "everything else by its bytes"),
            ("", "", "__", "even nothing"),
        ] {
            assert_eq!(file_stem(spec, pair), stem, "{why}");
        }
    }

    #[test]
    fn long_stems_are_cut_and_stay_apart() {
        let long = "x".repeat(300);
        let a = file_stem(&long, "p");
        let b = file_stem(&format!("{long}y"), "p");
        assert!(a.len() < 200 && b.len() < 200);
        assert_ne!(a, b);
        assert_ne!(file_stem(&long, "pq"), file_stem(&format!("{long}p"), "q"));
        assert!(a.ends_with("__p"), "the pair stays what insta calls the name: {a}");
    }

    /// Names made of what could be confused.
    fn tricky() -> impl Strategy<Value = String> {
        prop_oneof![r"[_/%~.a5F]{0,6}", any::<String>()]
    }

    proptest! {
        #[test]
        fn injective(a in tricky(), b in tricky(), c in tricky(), d in tricky()) {
            prop_assert_eq!(file_stem(&a, &b) == file_stem(&c, &d), (&a, &b) == (&c, &d));
        }

        #[test]
        fn legal_everywhere(spec in tricky(), pair in tricky()) {
            let stem = file_stem(&spec, &pair);
            prop_assert!(stem.len() <= 200);
            prop_assert!(!stem.starts_with('.'));
            prop_assert!(stem.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.%~".contains(&b)));
            if !stem.contains('~') {
                let (_, name) = stem.rsplit_once("__").unwrap();
                prop_assert_eq!(name, encode(&pair), "insta's name is the pair");
            }
        }
    }
}
