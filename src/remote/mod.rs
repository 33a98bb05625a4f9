/*!
Models that are not on this machine: `hf://ORG/REPO[@REV][/FILE]`, `https://…`, and in buckets `s3://BUCKET/KEY`,
`gs://BUCKET/OBJECT` and `az://CONTAINER/BLOB`.

An address is a path like any other to the rooms above: a directory can be listed, a file beside another
can be named, and bytes are read at positions. What an address leads to is pinned when it is first asked
for; a file that changes afterwards is an error. The feature `remote` brings the client, and `cloud` those who
sign requests to buckets; without them, an address is refused with a word on how to have it.
*/

#[cfg(not(feature = "remote"))]
mod absent;
mod address;
#[cfg(feature = "remote")]
mod bucket;
#[cfg(feature = "remote")]
mod client;
#[cfg(feature = "remote")]
mod credentials;
#[cfg(feature = "remote")]
mod hub;
#[cfg(feature = "remote")]
mod local_copy;
#[cfg(feature = "remote")]
mod object;
#[cfg(feature = "remote")]
mod parts;
#[cfg(feature = "remote")]
mod session;

use std::path::PathBuf;
use std::sync::Arc;

#[cfg(not(feature = "remote"))]
pub use absent::{Object, kind, names, open, plan, read, without_query};
pub use address::{is_address, shown};
#[cfg(feature = "remote")]
pub use object::Object;
#[cfg(feature = "remote")]
pub use session::{kind, names, open, plan, read, without_query};

/// What an address leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "remote"), allow(dead_code))]
pub enum Kind {
    /// A file, or what has to be asked for to be known.
    File,
    /// A repository, a bucket, or a folder of one.
    Directory,
}

/// A file behind an address.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "remote"), allow(dead_code))]
pub enum Opened {
    /// It is on this machine, in the cache that the hub's own programs keep; and its revision.
    Local(PathBuf, String),
    /// It is read from where it is.
    Remote(Arc<Object>),
}

/// Bytes of a file that will be read: the file, the first byte, and how many.
pub type Stretch = (Arc<Object>, u64, u64);
