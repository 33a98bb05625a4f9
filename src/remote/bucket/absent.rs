/*! What a build that signs nothing answers. */

use std::collections::BTreeMap;
use std::io;

use crate::remote::address::BucketPath;
use crate::remote::client::{Answer, Client, Fault, Headers, Sign};

/// There is none.
#[derive(Clone, Debug)]
pub enum BucketFile {}

impl BucketFile {
    pub fn url(&self) -> String {
        match *self {}
    }

    pub fn refused(&self, _answer: Answer) -> Fault {
        match *self {}
    }
}

impl Sign for BucketFile {
    fn sign(&self, _: &Client, _: &str, _: &Headers) -> Result<Headers, Fault> {
        match *self {}
    }
}

/// There are none.
#[derive(Debug, Default)]
pub struct Stores {}

impl Stores {
    #[allow(clippy::unused_self)]
    pub fn file(&self, place: &BucketPath) -> io::Result<BucketFile> {
        let problem = format!(
            "this qualm was built without the feature `cloud` and does not read {}://; released programs have it, \
             and `cargo install --features cloud` gives it",
            place.scheme
        );
        Err(io::Error::new(io::ErrorKind::Unsupported, problem))
    }

    pub fn list(&self, _client: &Client, place: &BucketPath) -> io::Result<BTreeMap<String, bool>> {
        self.file(place).map(|file| match file {})
    }
}
