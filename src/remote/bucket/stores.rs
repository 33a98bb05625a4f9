/*! The stores by scheme, an object of one, its folders, and what a refusal means. */

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};

use super::azure::Azure;
use super::env::Env;
use super::google::Google;
use super::login::{code, is_word};
use super::s3::S3;
use super::store::Store;
use crate::remote::address::BucketPath;
use crate::remote::client::{Answer, Ask, Client, Fault, Headers, Login, Sign, host, persist};

/// Most bytes of a page of a listing.
const MOST: u64 = 16 << 20;
/// Most pages of one, of a thousand names or more.
const PAGES: usize = 200;
/// Most bytes of a refusal that are looked at.
const REFUSAL: u64 = 64 << 10;

/// Reads the environment.
type Make = fn(Env) -> Result<Arc<dyn Store>, String>;

/// By scheme.
const STORES: [(&str, Make); 3] = [
    ("s3", |env| S3::of(env).map(|store| Arc::new(store) as Arc<dyn Store>)),
    ("gs", |env| Google::of(env).map(|store| Arc::new(store) as Arc<dyn Store>)),
    ("az", |env| Azure::of(env).map(|store| Arc::new(store) as Arc<dyn Store>)),
];

/// The stores that were asked so far.
#[derive(Debug, Default)]
pub struct Stores(Mutex<HashMap<&'static str, Arc<dyn Store>>>);

/// An object of a bucket, or a folder.
#[derive(Clone, Debug)]
pub struct BucketFile {
    store: Arc<dyn Store>,
    place: BucketPath,
}

impl Stores {
    /// An object; nothing is asked yet.
    pub fn file(&self, place: &BucketPath) -> io::Result<BucketFile> {
        let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = place.clone();
        if let Some(store) = stores.get(place.scheme) {
            return Ok(BucketFile { store: Arc::clone(store), place });
        }
        let made = STORES.iter().find(|(scheme, _)| *scheme == place.scheme);
        let (scheme, make) = made.ok_or(ErrorKind::Unsupported)?;
        let env = |name: &str| std::env::var(name).ok();
        let invalid = |problem: String| io::Error::new(ErrorKind::InvalidInput, problem);
        let store = make(Env(&env)).map_err(invalid)?;
        stores.insert(*scheme, Arc::clone(&store));
        Ok(BucketFile { store, place })
    }

    /// The names in a folder, and whether they are folders.
    pub fn list(&self, client: &Client, place: &BucketPath) -> io::Result<BTreeMap<String, bool>> {
        let folder = self.file(place)?;
        let (prefix, mut names, mut next) = (place.key.as_str(), BTreeMap::new(), None);
        for _ in 0..PAGES {
            let page = persist(|| {
                let url = &folder.store.list_url(&place.bucket, prefix, next.as_deref());
                let login = Login::Signed(&folder);
                let answer = client.ask(Ask { url, range: None, login, unchanged: None })?;
                if answer.status != 200 {
                    return Err(folder.refused(answer));
                }
                let body = Client::whole(answer, MOST)?;
                folder.store.page(&body).map_err(|problem| {
                    Fault::passing(format!(
                        "{} lists {place} in a way not understood: {problem}",
                        host(url)
                    ))
                })
            })?;
            // What is called as an object and as a folder is the object.
            let folders = page.folders.iter().map(|it| (it.strip_suffix('/').unwrap_or(it), true));
            let files = page.files.iter().map(|it| (it.as_str(), false));
            for (key, is_folder) in folders.chain(files) {
                let Some(name) = key.strip_prefix(prefix) else { continue };
                // What cannot be asked for by an address is left out; so is what stands for the folder itself.
                if !name.contains(['/', '?', '#']) && !["", ".", ".."].contains(&name) {
                    let known = names.entry(name.to_owned()).or_insert(is_folder);
                    *known &= is_folder;
                }
            }
            next = page.next;
            if next.is_none() {
                return Ok(names);
            }
        }
        let problem = format!("{place} has more than {} names; name a file", names.len());
        Err(io::Error::new(ErrorKind::FileTooLarge, problem))
    }
}

impl Sign for BucketFile {
    fn sign(&self, client: &Client, url: &str, headers: &Headers) -> Result<Headers, Fault> {
        self.store.sign(client, &self.place.bucket, url, headers)
    }
}

impl BucketFile {
    pub fn url(&self) -> String {
        self.store.url(&self.place.bucket, &self.place.key)
    }

    /// What a store says that does not give what was asked for.
    pub fn refused(&self, answer: Answer) -> Fault {
        let (status, host) = (answer.status, host(&answer.url).to_owned());
        if self.store.learns(&self.place.bucket, &answer) {
            answer.discard();
            return Fault::passing(format!(
                "{host} says that the bucket is in another region ({status})"
            ));
        }
        let code = answer.header("x-ms-error-code").filter(|it| is_word(it)).map(str::to_owned);
        let code = code.or_else(|| code_of(answer)).unwrap_or_default();
        let (kind, problem) = self.problem(status, &code);
        let said = format!("{status} {code}");
        Fault::last(kind, format!("{problem} ({}, {host})", said.trim_end()))
    }

    fn problem(&self, status: u16, code: &str) -> (ErrorKind, String) {
        let (place, bucket) = (&self.place, &self.place.bucket);
        let denied = |problem: String| (ErrorKind::PermissionDenied, problem);
        let variables = self.store.variables();
        let nobody = format!("no credentials were found; qualm looks for {variables}");
        match (status, code) {
            (_, "NoSuchBucket" | "ContainerNotFound" | "InvalidBucketName") => {
                let name = if place.scheme == "az" { "container" } else { "bucket" };
                (ErrorKind::NotFound, format!("there is no {name} {bucket}; check its name"))
            }
            (_, "InvalidObjectState" | "BlobArchived") => {
                denied(format!("{place} is archived; it is read when it is restored"))
            }
            (_, "ExpiredToken" | "TokenRefreshRequired" | "RequestTimeTooSkewed") => {
                denied(format!(
                    "{place} may not be read: the credentials have run out, or this machine's clock is wrong"
                ))
            }
            (404 | 410, _) => {
                let maybe = match self.store.who() {
                    Some(_) => String::new(),
                    None => format!("; if it is private, {nobody}"),
                };
                (ErrorKind::NotFound, format!("{place} is not there; check the address{maybe}"))
            }
            (401 | 403, _)
            | (
                400 | 409,
                "PublicAccessNotPermitted" | "InvalidAccessKeyId" | "NoAuthenticationInformation",
            ) => denied(match self.store.who() {
                Some(who) => format!(
                    "{place} is not there, or may not be read by {who}; qualm looks for {variables}"
                ),
                None => format!("{place} is not there, or is private: {nobody}"),
            }),
            (300..400, _) => (
                ErrorKind::Other,
                format!("{place} is elsewhere; check the region or the endpoint"),
            ),
            _ => (ErrorKind::Other, format!("{place} is not given")),
        }
    }
}

/// What kind of error an answer's body says it is.
fn code_of(answer: Answer) -> Option<String> {
    Client::whole(answer, REFUSAL).ok().and_then(|body| code(&body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::bucket::env::tests::with;
    use crate::remote::client::Again;
    use crate::remote::client::tests::answer;

    #[test]
    fn a_refusal_says_what_to_do() {
        let place = BucketPath { scheme: "s3", bucket: "b".to_owned(), key: "k".to_owned() };
        let key = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hidden")];
        let of = |set: &[(&str, &str)]| BucketFile {
            store: Arc::new(with(set, S3::of).unwrap()),
            place: place.clone(),
        };
        let (somebody, nobody) = (of(&key), of(&[("AWS_SKIP_SIGNATURE", "1")]));
        for (file, status, code, words) in [
            (&somebody, 403, "AccessDenied", "may not be read by the key of AWS_ACCESS_KEY_ID"),
            (
                &nobody,
                403,
                "AccessDenied",
                "no credentials were found; qualm looks for AWS_ACCESS_KEY_ID",
            ),
            (&somebody, 404, "NoSuchBucket", "there is no bucket b"),
            (&somebody, 404, "NoSuchKey", "s3://b/k is not there; check the address"),
            (&somebody, 403, "ExpiredToken", "have run out"),
            (&somebody, 403, "InvalidObjectState", "archived"),
            (&somebody, 301, "PermanentRedirect", "check the region"),
            (&somebody, 418, "", "is not given"),
        ] {
            let (_, said) = file.problem(status, code);
            assert!(said.contains(words), "{said}");
            assert!(!said.contains("hidden"));
        }
        let said = somebody.refused(answer(400, &[("x-amz-bucket-region", "eu-1")]));
        assert_eq!(said.again, Again::Soon, "it is asked for in the other region");
        assert_eq!(somebody.url(), "https://b.s3.eu-1.amazonaws.com/k");
    }
}
