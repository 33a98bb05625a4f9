/*! What a kind of store has to know. */

use std::fmt;

use crate::remote::client::{Answer, Client, Fault, Headers};

/// Names on a page of a listing, with what they all begin with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub files: Vec<String>,
    pub folders: Vec<String>,
    /// What asks for the next page.
    pub next: Option<String>,
}

/// A kind of store, with who may read it.
pub trait Store: fmt::Debug + Send + Sync {
    /// Where an object is.
    fn url(&self, bucket: &str, key: &str) -> String;

    /// Where a folder is listed.
    fn list_url(&self, bucket: &str, prefix: &str, next: Option<&str>) -> String;

    /// What a listing says.
    fn page(&self, body: &[u8]) -> Result<Page, String>;

    /// The headers that say who asks, as [`crate::remote::client::Sign::sign`].
    fn sign(
        &self,
        client: &Client,
        bucket: &str,
        url: &str,
        headers: &Headers,
    ) -> Result<Headers, Fault>;

    /// Whether a refusal says how to ask better, which is kept.
    fn learns(&self, _bucket: &str, _answer: &Answer) -> bool {
        false
    }

    /// Who asks: "the keys of …"; nobody, if nobody is known.
    fn who(&self) -> Option<String>;

    /// Where credentials are looked for.
    fn variables(&self) -> &'static str;
}
