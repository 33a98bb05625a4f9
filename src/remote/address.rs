/*! What an address says. */

use std::path::Path;

/// Schemes of addresses.
const SCHEMES: [&str; 6] = ["hf", "https", "http", "s3", "gs", "az"];
/// Those of buckets.
const BUCKETS: [&str; 3] = ["s3", "gs", "az"];

/// Whether a path is an address, and no path on this machine.
pub fn is_address(path: &Path) -> bool {
    scheme(&path.to_string_lossy()).is_some()
}

/// A URL without what may be secret in it.
pub fn shown(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// The scheme of a bucket's address.
pub fn bucket_scheme(path: &Path) -> Option<&'static str> {
    scheme(&path.to_string_lossy()).filter(|scheme| BUCKETS.contains(scheme))
}

fn scheme(text: &str) -> Option<&'static str> {
    let (scheme, _) = text.split_once("://")?;
    SCHEMES.into_iter().find(|known| scheme.eq_ignore_ascii_case(known))
}

#[cfg(feature = "remote")]
pub use parsed::{Address, BucketPath, HubPath, origin, resolve};

#[cfg(feature = "remote")]
mod parsed {
    use std::fmt::Write as _;
    use std::path::Path;

    use super::{BUCKETS, scheme};

    /// An address taken apart.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Address {
        /// A URL.
        Web(String),
        /// A place on the hub.
        Hub(HubPath),
        /// A place in a bucket.
        Bucket(BucketPath),
    }

    /// `SCHEME://BUCKET/KEY`.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub struct BucketPath {
        /// `s3`, `gs` or `az`.
        pub scheme: &'static str,
        /// A bucket's name; on Azure, a container's.
        pub bucket: String,
        /// The name of an object; that of a folder ends with a slash, or is empty for the root.
        pub key: String,
    }

    /// `hf://ORG/REPO[@REV][/PATH]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct HubPath {
        /// `ORG/REPO`.
        pub repo: String,
        /// A branch, a tag, a commit or `refs/…`.
        pub revision: Option<String>,
        /// Below the repository's root; empty for the root itself.
        pub path: String,
    }

    impl Address {
        /// Takes an address apart; `hub` is where the hub is, so that its web addresses are known.
        pub fn parse(path: &Path, hub: &str) -> Result<Self, String> {
            let text = path.to_str().ok_or("an address must be valid UTF-8")?;
            // Windows puts its own separator between parts of a path.
            let text = if cfg!(windows) { text.replace('\\', "/") } else { text.to_owned() };
            let (_, rest) = text.split_once("://").unwrap_or_default();
            match scheme(&text) {
                Some("hf") => HubPath::parse(rest).map(Self::Hub),
                Some("https" | "http") => {
                    if let Some(rest) = text.strip_prefix(hub).and_then(|it| it.strip_prefix('/'))
                        && let Some(place) = HubPath::of_web(rest)
                    {
                        return place.map(Self::Hub);
                    }
                    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
                    if host.is_empty() {
                        return Err("an address needs a host".to_owned());
                    }
                    if host.contains('@') {
                        return Err(
                            "a name or password in an address is not accepted, as addresses \
                                    stand in reports"
                                .to_owned(),
                        );
                    }
                    let text = text.split('#').next().unwrap_or_default();
                    Ok(Self::Web(encoded(text)))
                }
                scheme => {
                    let known = BUCKETS.into_iter().find(|known| Some(*known) == scheme);
                    let known = known.ok_or("it is no address")?;
                    BucketPath::parse(known, rest).map(Self::Bucket)
                }
            }
        }
    }

    impl BucketPath {
        fn parse(scheme: &'static str, rest: &str) -> Result<Self, String> {
            if rest.contains(['?', '#']) {
                return Err(format!(
                    "an address of a bucket is {scheme}://BUCKET/KEY, without ? or #"
                ));
            }
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-$".contains(&byte);
            if bucket.is_empty() || !bucket.bytes().all(plain) || bucket.starts_with('.') {
                return Err(format!("an address of a bucket is {scheme}://BUCKET/KEY"));
            }
            let mut parts = key.strip_suffix('/').unwrap_or(key).split('/');
            if !key.is_empty() && parts.any(|part| ["", ".", ".."].contains(&part)) {
                let problem =
                    "a key of a bucket is read if it has no empty part, no `.` and no `..`";
                return Err(problem.to_owned());
            }
            Ok(Self { scheme, bucket: bucket.to_owned(), key: key.to_owned() })
        }

        /// The same place as a folder.
        pub fn folder(&self) -> Self {
            let mut folder = self.clone();
            if !folder.key.is_empty() && !folder.key.ends_with('/') {
                folder.key.push('/');
            }
            folder
        }

        /// The folder that it is in, and its name there.
        pub fn parent(&self) -> (Self, &str) {
            let (above, name) = self.key.rsplit_once('/').map_or(("", self.key.as_str()), |it| it);
            let key = above.to_owned();
            (Self { key, ..self.clone() }.folder(), name)
        }
    }

    impl std::fmt::Display for BucketPath {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{}://{}/{}", self.scheme, self.bucket, self.key)
        }
    }

    impl HubPath {
        fn parse(rest: &str) -> Result<Self, String> {
            let form = "an address of the hub is hf://ORG/REPO[@REVISION][/FILE]";
            let mut parts = rest.split('/').filter(|part| !part.is_empty());
            let (Some(org), Some(name)) = (parts.next(), parts.next()) else {
                return Err(form.to_owned());
            };
            let (name, mut revision) = match name.split_once('@') {
                Some((name, revision)) => (name, Some(revision.to_owned())),
                None => (name, None),
            };
            let mut parts: Vec<&str> = parts.collect();
            // `refs/pr/N` and `refs/convert/NAME` are the revisions that hold slashes.
            if revision.as_deref() == Some("refs") && parts.len() >= 2 {
                revision = Some(format!("refs/{}/{}", parts[0], parts[1]));
                parts.drain(..2);
            }
            let plain = |id: &str| {
                !id.is_empty()
                    && !id.contains("--")
                    && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            };
            if !plain(org) || !plain(name) || revision.as_deref() == Some("") {
                return Err(form.to_owned());
            }
            if parts.iter().any(|part| *part == "." || *part == "..") {
                return Err(
                    "a file of a repository is named from its root, without `..`".to_owned()
                );
            }
            let path = parts.join("/");
            Ok(Self { repo: format!("{org}/{name}"), revision, path })
        }

        /// `ORG/REPO/(resolve|blob|tree)/REV/PATH`, as a browser shows it.
        fn of_web(rest: &str) -> Option<Result<Self, String>> {
            let rest = rest.split(['?', '#']).next()?;
            let mut parts = rest.splitn(5, '/');
            let (org, name, verb) = (parts.next()?, parts.next()?, parts.next()?);
            let revision = parts.next()?;
            let path = parts.next().unwrap_or_default();
            ["resolve", "blob", "tree"]
                .contains(&verb)
                .then(|| Self::parse(&format!("{org}/{name}@{revision}/{path}")))
        }
    }

    /// Scheme, host and port of a URL, which credentials belong to.
    pub fn origin(url: &str) -> Option<(String, String, u16)> {
        let (scheme, rest) = url.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let authority = rest.split(['/', '?', '#']).next()?.to_ascii_lowercase();
        let of_scheme = if scheme == "https" { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host.to_owned(), port.parse().ok()?),
            _ => (authority, of_scheme),
        };
        (!host.is_empty()).then_some((scheme, host, port))
    }

    /// Where a redirect of `base` leads.
    pub fn resolve(base: &str, location: &str) -> Option<String> {
        if location.contains("://") {
            return Some(location.to_owned());
        }
        let (scheme, rest) = base.split_once("://")?;
        if let Some(host) = location.strip_prefix("//") {
            return Some(format!("{scheme}://{host}"));
        }
        let path = rest.split(['?', '#']).next()?;
        let (authority, path) = path.split_at(path.find('/').unwrap_or(path.len()));
        if location.starts_with('/') {
            return Some(format!("{scheme}://{authority}{location}"));
        }
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        Some(format!("{scheme}://{authority}{folder}/{location}"))
    }

    /// A URL as it may be sent: spaces and what is not ASCII are escaped.
    fn encoded(text: &str) -> String {
        text.bytes().fold(String::new(), |mut url, byte| {
            match byte {
                b'!'..=b'~' => url.push(char::from(byte)),
                _ => {
                    let _ = write!(url, "%{byte:02X}");
                }
            }
            url
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn hub(repo: &str, revision: Option<&str>, path: &str) -> Address {
            let (revision, path) = (revision.map(str::to_owned), path.to_owned());
            Address::Hub(HubPath { repo: repo.to_owned(), revision, path })
        }

        #[test]
        fn addresses_are_taken_apart() {
            let web = |url: &str| Address::Web(url.to_owned());
            let bucket = |scheme, bucket: &str, key: &str| {
                let (bucket, key) = (bucket.to_owned(), key.to_owned());
                Address::Bucket(BucketPath { scheme, bucket, key })
            };
            for (text, expected) in [
                ("hf://a/b", hub("a/b", None, "")),
                ("hf://a/b@v1/x/y.gguf", hub("a/b", Some("v1"), "x/y.gguf")),
                ("hf://a/b@refs/pr/3/y.gguf", hub("a/b", Some("refs/pr/3"), "y.gguf")),
                ("https://hub.test/a/b/blob/main/x.gguf?d=1", hub("a/b", Some("main"), "x.gguf")),
                (
                    "https://hub.test.evil/a/b/blob/main/x",
                    web("https://hub.test.evil/a/b/blob/main/x"),
                ),
                ("https://h/a b?s=1#f", web("https://h/a%20b?s=1")),
                ("s3://b.c/k", bucket("s3", "b.c", "k")),
                ("GS://b/a folder/", bucket("gs", "b", "a folder/")),
                ("az://$web", bucket("az", "$web", "")),
            ] {
                assert_eq!(Address::parse(Path::new(text), "https://hub.test").unwrap(), expected);
            }
            for text in [
                "hf://a",
                "hf://a/b@/x",
                "hf://a--b/c",
                "hf://a/b/../c",
                "https://u:p@h/x",
                "https:///x",
                "s3://",
                "s3:///k",
                "s3://u:p@h/k",
                "s3://b/k?versionId=1",
                "s3://b//k",
                "gs://b/a/../k",
                "az://b/a//",
            ] {
                Address::parse(Path::new(text), "https://hub.test").expect_err(text);
            }
        }

        #[test]
        fn a_place_in_a_bucket_has_a_folder_and_a_name_there() {
            let of = |key: &str| BucketPath { scheme: "s3", bucket: "b".into(), key: key.into() };
            for (key, folder, name) in [("x", "", "x"), ("a/x", "a/", "x"), ("a/b/x", "a/b/", "x")]
            {
                assert_eq!(of(key).parent(), (of(folder), name));
            }
            for (key, folder) in [("", ""), ("a", "a/"), ("a/", "a/")] {
                assert_eq!(of(key).folder(), of(folder));
            }
            assert_eq!(of("a/x").to_string(), "s3://b/a/x");
        }

        #[test]
        fn credentials_belong_to_scheme_host_and_port() {
            let same = |a: &str, b: &str| origin(a) == origin(b);
            assert!(same("https://h/x?y", "HTTPS://H:443/z"));
            for other in ["http://h/", "https://h:444/", "https://h.i/", "https://hh/"] {
                assert!(!same("https://h/", other), "{other}");
            }
            assert_eq!(origin("http://[::1]:80/x"), origin("http://[::1]/"));
        }

        #[test]
        fn redirects_lead_where_a_browser_goes() {
            for (location, expected) in [
                ("https://o/p", "https://o/p"),
                ("//o/p", "http://o/p"),
                ("/p?q", "http://h:1/p?q"),
                ("p", "http://h:1/a/p"),
            ] {
                assert_eq!(resolve("http://h:1/a/b?c", location).as_deref(), Some(expected));
            }
        }
    }
}
