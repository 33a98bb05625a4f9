/*! Amazon S3, and what speaks like it. */

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::aws_keys::{Source, domain};
use super::aws_profile::Profile;
use super::env::Env;
use super::lease::Lease;
use super::sigv4::{self, Key};
use super::store::{Page, Store};
use super::xml::{self, Elements};
use crate::remote::client::{Answer, Client, Fault, Headers};
use crate::shown::percent_encoded;

/// The region of a bucket of which nothing is known. The answer says if it is another.
const USUAL: &str = "us-east-1";

/// Amazon S3.
#[derive(Debug)]
pub struct S3 {
    /// Of another store than Amazon's.
    endpoint: Option<String>,
    /// Whether the bucket is a part of the host.
    is_in_host: bool,
    region: String,
    /// Regions of buckets, as the store says.
    regions: Mutex<HashMap<String, String>>,
    /// Whether who asks pays.
    pays: bool,
    source: Source,
    key: Lease<Key>,
}

impl S3 {
    pub fn of(env: Env) -> Result<Self, String> {
        let profile = Profile::of(env)?;
        let endpoint = env.url(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"])?;
        let of_profile = || {
            let url = profile.get("endpoint_url")?;
            let is_ignored = env.truthy("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
            (!is_ignored).then(|| url.trim_end_matches('/').to_owned())
        };
        let endpoint = endpoint.or_else(of_profile);
        let region = env.word(&["AWS_REGION", "AWS_DEFAULT_REGION"]);
        let region = region.or_else(|| profile.get("region").map(str::to_owned));
        let region = region.unwrap_or_else(|| USUAL.to_owned());
        if !is_region(&region) {
            return Err(format!("{region:?} is no region (AWS_REGION)"));
        }
        Ok(Self {
            is_in_host: endpoint.is_none() || env.truthy("AWS_VIRTUAL_HOSTED_STYLE_REQUEST"),
            endpoint,
            source: Source::of(env, &profile, &region)?,
            region,
            regions: Mutex::default(),
            pays: env
                .word(&["AWS_REQUEST_PAYER"])
                .is_some_and(|it| it == "requester" || it == "true"),
            key: Lease::default(),
        })
    }

    fn region(&self, bucket: &str) -> String {
        let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.get(bucket).unwrap_or(&self.region).clone()
    }

    /// Where a bucket is, without a slash at the end.
    fn place(&self, bucket: &str) -> String {
        let endpoint = self.endpoint.clone().unwrap_or_else(|| {
            let region = self.region(bucket);
            format!("https://s3.{region}.{}", domain(&region))
        });
        match endpoint.split_once("://") {
            // The certificate of Amazon's hosts is for one name before it, without dots.
            Some((scheme, host)) if self.is_in_host && !bucket.contains(['.', '_', '$']) => {
                format!("{scheme}://{bucket}.{host}")
            }
            _ => format!("{endpoint}/{}", percent_encoded(bucket, "")),
        }
    }
}

impl Store for S3 {
    fn url(&self, bucket: &str, key: &str) -> String {
        format!("{}/{}", self.place(bucket), percent_encoded(key, "/"))
    }

    fn list_url(&self, bucket: &str, prefix: &str, next: Option<&str>) -> String {
        // Sorted, as they are signed.
        let next = next.map(|it| format!("continuation-token={}&", percent_encoded(it, "")));
        let (place, next) = (self.place(bucket), next.unwrap_or_default());
        let prefix = percent_encoded(prefix, "");
        format!("{place}/?{next}delimiter=%2F&list-type=2&prefix={prefix}")
    }

    fn page(&self, body: &[u8]) -> Result<Page, String> {
        let (file, folder) = (("Contents", "Key"), ("CommonPrefixes", "Prefix"));
        xml::page(body, Elements { file, folder, next: "NextContinuationToken" })
    }

    fn sign(
        &self,
        client: &Client,
        bucket: &str,
        url: &str,
        _headers: &Headers,
    ) -> Result<Headers, Fault> {
        let mut own = Headers::new();
        if self.pays {
            own.push(("x-amz-request-payer", "requester".to_owned()));
        }
        if let Some(key) = self.key.get(|| self.source.fetch(client))? {
            own.extend(sigv4::sign(&key, &self.region(bucket), url, &own, SystemTime::now()));
        }
        Ok(own)
    }

    fn learns(&self, bucket: &str, answer: &Answer) -> bool {
        let said = answer.header("x-amz-bucket-region").filter(|region| is_region(region));
        let Some(region) = said.filter(|region| *region != self.region(bucket)) else {
            return false;
        };
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.insert(bucket.to_owned(), region.to_owned());
        true
    }

    fn who(&self) -> Option<String> {
        match &self.source {
            Source::Nobody => None,
            // There may be none.
            Source::Instance { .. } if !self.key.is_held() => None,
            source => Some(source.who()),
        }
    }

    fn variables(&self) -> &'static str {
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, and the role of a container or an instance"
    }
}

/// A part of a host's name.
fn is_region(region: &str) -> bool {
    !region.is_empty() && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::bucket::env::tests::with;
    use crate::remote::client::tests::answer;

    #[test]
    fn a_bucket_is_where_its_region_and_the_endpoint_say() {
        let off = ("AWS_EC2_METADATA_DISABLED", "true");
        let plain = [off];
        let there = [off, ("AWS_REGION", "cn-north-1")];
        let own = [off, ("AWS_ENDPOINT_URL", "http://[::1]:9000/"), ("AWS_REGION", "eu-1")];
        let first = [
            off,
            ("AWS_ENDPOINT_URL_S3", "https://s"),
            own[1],
            ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "1"),
        ];
        for (set, bucket, expected) in [
            (&plain[..], "b", "https://b.s3.us-east-1.amazonaws.com/a%20b/c%2B%C3%A4.gguf"),
            (&plain, "b.c", "https://s3.us-east-1.amazonaws.com/b.c/a%20b/c%2B%C3%A4.gguf"),
            (&there, "b", "https://b.s3.cn-north-1.amazonaws.com.cn/a%20b/c%2B%C3%A4.gguf"),
            (&own, "b", "http://[::1]:9000/b/a%20b/c%2B%C3%A4.gguf"),
            (&first, "b", "https://b.s/a%20b/c%2B%C3%A4.gguf"),
        ] {
            let s3 = with(set, S3::of).unwrap();
            assert_eq!(s3.url(bucket, "a b/c+ä.gguf"), expected);
        }
        let s3 = with(&plain, S3::of).unwrap();
        let listed = "https://b.s3.us-east-1.amazonaws.com/?continuation-token=a%2F&delimiter=%2F&list-type=2&prefix=m%2F";
        assert_eq!(s3.list_url("b", "m/", Some("a/")), listed);
        assert!(!s3.learns("b", &answer(301, &[("x-amz-bucket-region", "us-east-1")])));
        assert!(!s3.learns("b", &answer(301, &[("x-amz-bucket-region", "evil.test/")])));
        assert!(s3.learns("b", &answer(301, &[("x-amz-bucket-region", "eu-west-1")])));
        assert_eq!(s3.url("b", "k"), "https://b.s3.eu-west-1.amazonaws.com/k");
        assert_eq!(s3.url("c", "k"), "https://c.s3.us-east-1.amazonaws.com/k");
    }

    #[test]
    fn keys_are_looked_for_in_the_order_of_amazons_programs() {
        let key = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hidden")];
        let role = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn:r")];
        let container = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x");
        let off = ("AWS_EC2_METADATA_DISABLED", "true");
        for (set, who) in [
            (
                &[key[0], key[1], role[0], role[1], container][..],
                Some("the key of AWS_ACCESS_KEY_ID"),
            ),
            (&[role[0], role[1], container], Some("the role arn:r (AWS_ROLE_ARN)")),
            (&[container, off], Some("the container's role")),
            (&[("AWS_SKIP_SIGNATURE", "true"), key[0], key[1]], None),
            (&[off], None),
        ] {
            let s3 = with(set, S3::of).unwrap();
            assert_eq!(s3.who().as_deref(), who);
            assert!(!format!("{s3:?}").contains("hidden"), "a secret is never printed");
        }
        for bad in
            [&key[..1], &key[1..], &[("AWS_REGION", "a/b")], &[("AWS_ENDPOINT_URL", "host:1")]]
        {
            assert!(with(bad, S3::of).is_err(), "{bad:?}");
        }
    }
}
