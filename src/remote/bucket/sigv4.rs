/*!
Signatures of requests to Amazon S3 and what speaks like it: AWS Signature Version 4, of requests without a body.

<https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>
*/

use std::time::SystemTime;

use super::clock;
use super::secret::{Secret, hex, hmac_sha256, sha256};
use crate::remote::client::{Headers, host};

/// SHA-256 of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A key of an account.
#[derive(Clone, Debug)]
pub struct Key {
    pub id: String,
    pub secret: Secret,
    /// Goes along with a key that runs out.
    pub session: Option<Secret>,
}

/// The headers that sign a request. The query of `url` must be encoded, and sorted by name. All headers beside `host`
/// that are signed are among `headers`, by names in lower case.
pub fn sign(key: &Key, region: &str, url: &str, headers: &Headers, now: SystemTime) -> Headers {
    let time = clock::compact(now);
    let day = time.get(..8).unwrap_or_default();
    let mut added = vec![("x-amz-content-sha256", EMPTY.to_owned()), ("x-amz-date", time.clone())];
    let session = key.session.as_ref().map(|it| ("x-amz-security-token", it.reveal().to_owned()));
    added.extend(session);
    let mut signed: Vec<(&str, &str)> = vec![("host", host(url))];
    signed.extend(headers.iter().chain(&added).map(|(name, value)| (*name, value.trim())));
    signed.sort_unstable();
    let lines = signed.iter().map(|(name, value)| format!("{name}:{value}\n"));
    let lines = lines.collect::<Vec<_>>().concat();
    let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let (path, query) = target(url);
    let request = format!("GET\n{path}\n{query}\n{lines}\n{names}\n{EMPTY}");
    let scope = format!("{day}/{region}/s3/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha256(&request));
    let first = format!("AWS4{}", key.secret.reveal()).into_bytes();
    let parts = [day, region, "s3", "aws4_request", &text];
    let signature = hex(&parts.into_iter().fold(first, |key, part| hmac_sha256(&key, part)));
    let id = &key.id;
    let value = format!(
        "AWS4-HMAC-SHA256 Credential={id}/{scope},SignedHeaders={names},Signature={signature}"
    );
    added.push(("authorization", value));
    added
}

/// Path and query of a URL.
pub fn target(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let target = rest.find('/').map_or("/", |at| &rest[at..]);
    target.split_once('?').unwrap_or((target, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    /// The examples of Amazon's documentation: "GET Object" and "Get Bucket (List Objects)".
    #[test]
    fn signatures_are_those_of_the_documentation() {
        let secret = Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let key = Key { id: "AKIAIOSFODNN7EXAMPLE".to_owned(), secret, session: None };
        let now = UNIX_EPOCH + Duration::from_secs(1_369_353_600);
        for (target, headers, signature) in [
            (
                "test.txt",
                vec![("range", "bytes=0-9".to_owned())],
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                "?max-keys=2&prefix=J",
                Headers::new(),
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let url = format!("https://examplebucket.s3.amazonaws.com/{target}");
            let made = sign(&key, "us-east-1", &url, &headers, now);
            let (_, made) = made.iter().find(|(name, _)| *name == "authorization").unwrap();
            assert!(made.ends_with(signature), "{made}");
        }
    }
}
