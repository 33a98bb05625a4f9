/*! What a build without the client answers. */

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::{Kind, Opened, Stretch};

/// There is none.
#[derive(Debug)]
pub enum Object {}

impl Object {
    pub fn len(&self) -> u64 {
        match *self {}
    }

    pub fn revision(&self) -> String {
        match *self {}
    }

    pub fn read_exact_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<()> {
        match *self {}
    }
}

fn refuse<T>(path: &Path) -> io::Result<T> {
    let feature = if super::address::bucket_scheme(path).is_some() { "cloud" } else { "remote" };
    let problem = format!(
        "this qualm was built without the feature `{feature}` and reads local files alone; released programs have \
         it, and `cargo install --features {feature}` gives it"
    );
    Err(io::Error::new(io::ErrorKind::Unsupported, problem))
}

pub fn without_query(path: &Path) -> PathBuf {
    match path.to_str().filter(|_| super::is_address(path)) {
        Some(text) => PathBuf::from(super::shown(text)),
        None => path.to_owned(),
    }
}

pub fn kind(path: &Path) -> io::Result<Kind> {
    refuse(path)
}

pub fn names(path: &Path) -> io::Result<Vec<OsString>> {
    refuse(path)
}

pub fn open(path: &Path) -> io::Result<Opened> {
    refuse(path)
}

pub fn read(path: &Path, _most: u64) -> io::Result<Vec<u8>> {
    refuse(path)
}

pub fn plan(_side: usize, _stretches: &[Stretch]) -> usize {
    0
}
