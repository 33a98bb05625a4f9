/*!
Objects of buckets: `s3://BUCKET/KEY`, `gs://BUCKET/OBJECT`, `az://CONTAINER/BLOB`.

To the rest of `remote/` a bucket is a web server whose requests are signed: this room says which URL an object has,
which headers go along, what is in a folder, and what a refusal means. It fetches nothing but listings and logins;
ranges, retries, pins and parts are those of every other address. Credentials are found as the stores' own programs
find them, kept in memory, and sent to the store that they belong to alone.
*/

#[cfg(not(feature = "cloud"))]
mod absent;
#[cfg(feature = "cloud")]
mod aws_keys;
#[cfg(feature = "cloud")]
mod aws_profile;
#[cfg(feature = "cloud")]
mod azure;
#[cfg(feature = "cloud")]
mod clock;
#[cfg(feature = "cloud")]
mod env;
#[cfg(feature = "cloud")]
mod google;
#[cfg(feature = "cloud")]
mod lease;
#[cfg(feature = "cloud")]
mod login;
#[cfg(feature = "cloud")]
mod s3;
#[cfg(feature = "cloud")]
mod secret;
#[cfg(feature = "cloud")]
mod sigv4;
#[cfg(feature = "cloud")]
mod store;
#[cfg(feature = "cloud")]
mod stores;
#[cfg(feature = "cloud")]
mod xml;

#[cfg(not(feature = "cloud"))]
pub use absent::{BucketFile, Stores};
#[cfg(feature = "cloud")]
pub use stores::{BucketFile, Stores};
