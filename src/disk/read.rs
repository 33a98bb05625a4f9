/*!
Opening files that are not weights. A path may come from a stranger's archive: it may be a pipe that
nobody writes to, a device without an end, or a file that is far too large for what it claims to be.
*/

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use crate::remote;

/// A kind of file that is read whole, and how long one may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileKind {
    /// What it is called.
    pub name: &'static str,
    /// Most bytes of one.
    pub most: u64,
}

const MIB: u64 = 1 << 20;

/// `config.json` and its like beside a checkpoint: the largest known have a megabyte.
pub const CONFIGURATION: FileKind = FileKind { name: "a configuration", most: 16 * MIB };
/// `tokenizer.json` and its like: the largest known have some 40 megabytes.
pub const TOKENIZER: FileKind = FileKind { name: "a tokenizer", most: 256 * MIB };
/// A spec.
pub const SPEC: FileKind = FileKind { name: "a spec", most: 16 * MIB };
/// An accepted snapshot: some 500,000 tensors.
pub const SNAPSHOT: FileKind = FileKind { name: "a snapshot", most: 256 * MIB };
/// A pending snapshot out of an artefact.
pub const PENDING: FileKind = FileKind { name: "a pending snapshot", most: 64 * MIB };
/// The artefact of a CI run.
pub const ARCHIVE: FileKind =
    FileKind { name: "an archive of pending snapshots", most: 1024 * MIB };
/// `contract.json`: a kilobyte a tensor.
pub const RECORD: FileKind = FileKind { name: "the record of a run", most: 4096 * MIB };
/// `blob-M-of-N.json`.
pub const BLOB: FileKind = FileKind { name: "the blob of a shard", most: 4096 * MIB };
/// `falsify.json`.
pub const FALSIFICATION: FileKind = FileKind { name: "a record of faults", most: 1024 * MIB };
/// What `llama-quantize-stats` prints: a line is some 150 bytes, a model has thousands of tensors.
pub const STATISTICS: FileKind = FileKind { name: "printed statistics", most: 64 * MIB };

/// Opens a regular file that is no longer than its kind may be.
///
/// # Errors
///
/// What the system says; or that the path is no regular file, or is too long, in words that follow
/// upon "cannot read PATH: ".
pub fn open(path: &Path, kind: FileKind) -> io::Result<File> {
    // Asked before opening, because to open a pipe is to wait for its writer, and to open a device
    // may do something.
    regular(&fs::metadata(path)?)?;
    let file = without_waiting().read(true).open(path)?;
    let metadata = file.metadata()?;
    regular(&metadata)?;
    if metadata.len() > kind.most {
        return Err(too_long(metadata.len(), kind));
    }
    Ok(file)
}

/// Reads a regular file whole, or what is behind an address.
pub fn read(path: &Path, kind: FileKind) -> io::Result<Vec<u8>> {
    if remote::is_address(path) {
        return remote::read(path, kind.most);
    }
    let mut bytes = Vec::new();
    // It may grow while it is read.
    open(path, kind)?.take(kind.most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > kind.most {
        return Err(too_long(bytes.len() as u64, kind));
    }
    Ok(bytes)
}

/// Reads a regular file of text.
pub fn read_text(path: &Path, kind: FileKind) -> io::Result<String> {
    let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "is not valid UTF-8");
    String::from_utf8(read(path, kind)?).map_err(not_text)
}

/// Adds to a regular file, which is made if there is none: whoever named it may have named a pipe.
pub fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Ok(metadata) = fs::metadata(path) {
        regular(&metadata)?;
    }
    let mut file = without_waiting().create(true).append(true).open(path)?;
    regular(&file.metadata()?)?;
    file.write_all(bytes)
}

/// Options with which opening does not wait, should a pipe have taken a file's place.
#[cfg(unix)]
fn without_waiting() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = OpenOptions::new();
    options.custom_flags(libc::O_NONBLOCK);
    options
}

/// The same where there are no such pipes in folders.
#[cfg(not(unix))]
fn without_waiting() -> OpenOptions {
    OpenOptions::new()
}

fn regular(metadata: &fs::Metadata) -> io::Result<()> {
    let what = if metadata.is_file() {
        return Ok(());
    } else if metadata.is_dir() {
        "is a directory"
    } else {
        "is a pipe, a socket or a device"
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{what}, not a regular file")))
}

fn too_long(len: u64, FileKind { name, most }: FileKind) -> io::Error {
    let problem = format!("it has {len} bytes, more than the {most} that {name} may have");
    io::Error::new(io::ErrorKind::FileTooLarge, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: FileKind = FileKind { name: "a small file", most: 4 };

    #[test]
    fn regular_files_within_their_limit_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("four"), "four").unwrap();
        fs::write(path("five!"), "five!").unwrap();
        fs::write(path("bytes"), b"\xff").unwrap();
        assert_eq!(read(&path("four"), SMALL).unwrap(), b"four");
        for (name, expected) in [
            ("five!", "it has 5 bytes, more than the 4 that a small file may have"),
            (".", "is a directory, not a regular file"),
            ("bytes", "is not valid UTF-8"),
        ] {
            assert_eq!(read_text(&path(name), SMALL).unwrap_err().to_string(), expected);
        }
        assert_eq!(read(&path("none"), SMALL).unwrap_err().kind(), io::ErrorKind::NotFound);
        append(&path("new"), b"a").unwrap();
        append(&path("new"), b"b").unwrap();
        assert_eq!(read(&path("new"), SMALL).unwrap(), b"ab");
        append(directory.path(), b"a").unwrap_err();
    }

    #[cfg(unix)]
    #[test]
    fn devices_are_refused_and_links_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "x").unwrap();
        for (link, target, reads) in [
            ("to-file", "file", true),
            ("to-null", "/dev/null", false),
            ("to-zero", "/dev/zero", false),
        ] {
            std::os::unix::fs::symlink(target, path(link)).unwrap();
            assert_eq!(read(&path(link), SMALL).is_ok(), reads, "{link}");
            assert_eq!(append(&path(link), b"").is_ok(), reads, "{link}");
        }
        let error = read(&path("to-zero"), SMALL).unwrap_err().to_string();
        assert_eq!(error, "is a pipe, a socket or a device, not a regular file");
    }
}
