/*! What is at a path or an address: the questions that are asked before anything is opened. */

use std::ffi::OsString;
use std::io;
use std::path::Path;

use crate::remote::{self, Kind};

/// Whether it is a directory; an error if nothing is there.
pub fn is_directory(path: &Path) -> io::Result<bool> {
    if remote::is_address(path) {
        return remote::kind(path).map(|kind| kind == Kind::Directory);
    }
    std::fs::metadata(path).map(|metadata| metadata.is_dir())
}

/// Whether something is there. Behind an address, a web server is not asked: it says so when the file is opened.
pub fn exists(path: &Path) -> bool {
    if remote::is_address(path) { remote::kind(path).is_ok() } else { path.exists() }
}

/// The names in a directory, in no order.
pub fn names(path: &Path) -> io::Result<Vec<OsString>> {
    if remote::is_address(path) {
        return remote::names(path);
    }
    std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}
