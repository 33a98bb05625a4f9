/*!
Pending files out of what a CI run left behind: a directory, or a ZIP file as artefact stores make
them.

A ZIP file is a stranger's. Nothing is extracted: names are looked at, texts are read into memory,
both within limits that hold whatever the archive's own numbers claim. A name that leaves the archive
(`../`, `/etc`, `C:\`) is an error, not a path.
*/

use std::collections::HashSet;
use std::fs;
use std::io::{BufReader, Read as _};
use std::path::Path;

use zip::ZipArchive;

use super::BaselineError;
use super::search::{self, ENDING};
use crate::disk;

/// Largest sum of all pending files of an archive.
const LARGEST_SUM: u64 = 512 << 20;

/// Most entries of an archive.
const MOST_ENTRIES: usize = 100_000;

/// The pending files of an artefact: names within it, with `/`, and texts.
pub(super) fn read(path: &Path) -> Result<Vec<(String, String)>, BaselineError> {
    let metadata = fs::metadata(path).map_err(BaselineError::io("read", path))?;
    if metadata.is_dir() { search::texts(path) } else { unzip(path) }
}

fn unzip(path: &Path) -> Result<Vec<(String, String)>, BaselineError> {
    let bad = |what: String| BaselineError::Usage(format!("{}: {what}", path.display()));
    let file = disk::open(path, disk::ARCHIVE).map_err(BaselineError::io("read", path))?;
    let mut archive = ZipArchive::new(BufReader::new(file))
        .map_err(|error| bad(format!("neither a directory nor a ZIP file: {error}")))?;
    if archive.len() > MOST_ENTRIES {
        return Err(bad(format!("{} entries, more than {MOST_ENTRIES}", archive.len())));
    }
    if archive.has_duplicate_names() {
        return Err(bad(
            "a name is in it twice: which of the two is meant, nobody knows".to_owned()
        ));
    }
    let mut found: Vec<(String, String)> = Vec::new();
    let mut names: HashSet<String> = HashSet::new();
    let mut sum = 0;
    for i in 0..archive.len() {
        let entry = archive.by_index(i).map_err(|error| bad(format!("entry {i}: {error}")))?;
        let name = entry.name().map_err(|error| bad(format!("entry {i}: {error}")))?;
        let name = name.replace('\\', "/");
        if !name.ends_with(ENDING) {
            continue;
        }
        if !safe(&name) || !entry.is_file() {
            return Err(bad(format!("{name:?} is no path of a file inside the archive")));
        }
        if !names.insert(name.clone()) {
            return Err(bad(format!("{name:?} is in it twice")));
        }
        let mut bytes = Vec::new();
        entry
            .take(disk::PENDING.most + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| bad(format!("{name:?}: {error}")))?;
        sum += bytes.len() as u64;
        if bytes.len() as u64 > disk::PENDING.most || sum > LARGEST_SUM {
            return Err(bad(format!("{name:?} is too large for a snapshot")));
        }
        let text = String::from_utf8(bytes).map_err(|_| bad(format!("{name:?} is not UTF-8")))?;
        found.push((name, text));
    }
    Ok(found)
}

/// Does a name stay inside the archive on every system?
fn safe(name: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    !name.contains([':', '\0']) && name.split('/').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    fn archive(path: &Path, entries: &[(&str, &[u8])], method: CompressionMethod) {
        let mut zip = ZipWriter::new(fs::File::create(path).unwrap());
        let options = SimpleFileOptions::default().compression_method(method);
        for (name, bytes) in entries {
            zip.start_file(*name, options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
    }

    #[test]
    fn reads_pending_files_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.zip");
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let entries: [(&str, &[u8]); 3] = [
                ("pending/snapshots/a__b.snap.new", b"one"),
                ("junit.xml", b"\xff"),
                ("../../etc/passwd", b"not looked at"),
            ];
            archive(&path, &entries, method);
            let one = ("pending/snapshots/a__b.snap.new".to_owned(), "one".to_owned());
            assert_eq!(read(&path).unwrap(), [one]);
        }
    }

    #[test]
    fn refuses_names_that_leave_the_archive() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.zip");
        for name in [
            "../a.snap.new",
            "a/../../b.snap.new",
            "a/./b.snap.new",
            "/etc/a.snap.new",
            "..\\a.snap.new",
            "C:\\a.snap.new",
            "C:a.snap.new",
            "a//b.snap.new",
        ] {
            archive(&path, &[(name, b"x")], CompressionMethod::Stored);
            let error = read(&path).expect_err(name).to_string();
            assert!(error.contains("inside the archive"), "{name}: {error}");
        }
    }

    #[test]
    fn refuses_a_name_that_is_there_twice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.zip");
        let entries: [(&str, &[u8]); 2] = [("a1.snap.new", b"one"), ("a2.snap.new", b"two")];
        archive(&path, &entries, CompressionMethod::Stored);
        // The writer refuses to write one twice.
        let mut bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() - 2 {
            if &bytes[at..at + 2] == b"a2" {
                bytes[at + 1] = b'1';
            }
        }
        fs::write(&path, bytes).unwrap();
        let error = read(&path).expect_err("twice").to_string();
        assert!(error.contains("twice"), "{error}");
        let entries: [(&str, &[u8]); 2] = [("d/a.snap.new", b"one"), ("d\\a.snap.new", b"two")];
        archive(&path, &entries, CompressionMethod::Stored);
        let error = read(&path).expect_err("the same name in other words").to_string();
        assert!(error.contains("twice"), "{error}");
    }

    #[test]
    fn a_bomb_does_not_go_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.zip");
        let zeros = vec![b' '; disk::PENDING.most as usize + 2];
        archive(&path, &[("a.snap.new", &zeros)], CompressionMethod::Deflated);
        assert!(fs::metadata(&path).unwrap().len() < 1 << 20, "small on disk");
        let error = read(&path).expect_err("too large").to_string();
        assert!(error.contains("too large"), "{error}");
    }

    #[test]
    fn no_archive_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.zip");
        for bytes in [&b""[..], b"PK\x03\x04", b"no zip"] {
            fs::write(&path, bytes).unwrap();
            read(&path).expect_err("not a ZIP file");
        }
        // An archive cut off, or with any byte changed, is an error or the same text.
        archive(&path, &[("a.snap.new", b"text")], CompressionMethod::Deflated);
        let whole = fs::read(&path).unwrap();
        for i in 0..whole.len() {
            let mut bent = whole.clone();
            bent[i] ^= 0xff;
            for bytes in [&whole[..i], &bent] {
                fs::write(&path, bytes).unwrap();
                if let Ok(found) = read(&path) {
                    assert!(found.iter().all(|(_, text)| text == "text"), "byte {i}");
                }
            }
        }
    }
}
