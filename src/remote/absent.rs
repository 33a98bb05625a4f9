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

fn refuse<T>() -> io::Result<T> {
    let problem = "this qualm was built without the feature `remote` and reads local files alone; released \
                   programs have it, and `cargo install --features remote` gives it";
    Err(io::Error::new(io::ErrorKind::Unsupported, problem))
}

pub fn without_query(path: &Path) -> PathBuf {
    match path.to_str().filter(|_| super::is_address(path)) {
        Some(text) => PathBuf::from(super::shown(text)),
        None => path.to_owned(),
    }
}

pub fn kind(_path: &Path) -> io::Result<Kind> {
    refuse()
}

pub fn names(_path: &Path) -> io::Result<Vec<OsString>> {
    refuse()
}

pub fn open(_path: &Path) -> io::Result<Opened> {
    refuse()
}

pub fn read(_path: &Path, _most: u64) -> io::Result<Vec<u8>> {
    refuse()
}

pub fn plan(_side: usize, _stretches: &[Stretch]) -> usize {
    0
}
