/*!
The Hugging Face hub: the commit that a revision stands for, the files of a commit, and what it answers if
it does not give one.
*/

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use serde::Deserialize;

use super::address::{HubPath, origin, resolve};
use super::client::{Again, Answer, Ask, Client, Fault, Login, host, persist};
use crate::shown::percent_encoded;

/// Most bytes of an answer of the hub's API.
const MOST: u64 = 64 << 20;
/// Most pages of a listing.
const PAGES: usize = 1000;

/// A repository at a commit.
#[derive(Debug)]
pub struct Repo {
    /// `ORG/NAME`.
    pub name: String,
    /// 40 hex digits.
    pub commit: String,
    /// By path.
    pub files: BTreeMap<String, Entry>,
}

/// A file of a commit.
#[derive(Clone, Debug)]
pub struct Entry {
    pub len: u64,
    /// What its content is known by: SHA-256 of a large file.
    pub sha256: Option<String>,
}

/// A file of the hub at a commit.
#[derive(Clone, Debug)]
pub struct HubFile {
    pub repo: String,
    pub commit: String,
    pub path: String,
    pub len: u64,
    pub sha256: Option<String>,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

impl Repo {
    /// Pins a revision, and lists its files.
    pub fn ask(client: &Client, place: &HubPath) -> io::Result<Self> {
        let api = format!("{}/api/models/{}", client.hub.endpoint, place.repo);
        let revision = place.revision.as_deref().unwrap_or("main");
        let commit = if is_commit(revision) {
            revision.to_owned()
        } else {
            let url = format!("{api}/revision/{}", percent_encoded(revision, ""));
            let (body, _) = get(client, &url, &place.repo)?;
            let Info { sha } = json(&body)?;
            if !is_commit(&sha) {
                return Err(odd(&format!("it says that {revision} is the commit {sha:?}")));
            }
            sha
        };
        let mut url = format!("{api}/tree/{commit}?recursive=true");
        let mut files = BTreeMap::new();
        for _ in 0..PAGES {
            let (body, next) = get(client, &url, &place.repo)?;
            for listed in json::<Vec<Listed>>(&body)?.into_iter().filter(|it| it.kind == "file") {
                let odd_path = listed.path.starts_with('/')
                    || listed
                        .path
                        .split('/')
                        .any(|part| part.is_empty() || part == ".." || part == ".");
                if odd_path {
                    return Err(odd(&format!("it lists the path {:?}", listed.path)));
                }
                let entry = match listed.lfs {
                    Some(lfs) => Entry { len: lfs.size, sha256: Some(lfs.oid) },
                    None => Entry { len: listed.size, sha256: None },
                };
                files.insert(listed.path, entry);
            }
            match next {
                Some(next) => url = next,
                None => return Ok(Self { name: place.repo.clone(), commit, files }),
            }
        }
        Err(odd("its list of files has no end"))
    }

    /// A file, if it is there.
    pub fn file(&self, path: &str) -> Option<HubFile> {
        let Entry { len, sha256 } = self.files.get(path)?.clone();
        let (repo, commit) = (self.name.clone(), self.commit.clone());
        Some(HubFile { repo, commit, path: path.to_owned(), len, sha256 })
    }

    /// What is directly in a folder, each name once; empty for the root.
    pub fn names<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a str> {
        let below = move |path: &'a String| match folder {
            "" => Some(path.as_str()),
            _ => path.strip_prefix(folder)?.strip_prefix('/'),
        };
        let mut last = "";
        self.files.keys().filter_map(below).filter_map(move |path| {
            let name = path.split('/').next().unwrap_or_default();
            (std::mem::replace(&mut last, name) != name).then_some(name)
        })
    }
}

impl HubFile {
    /// Where the hub gives it.
    pub fn url(&self, endpoint: &str) -> String {
        let Self { repo, commit, path, .. } = self;
        format!("{endpoint}/{repo}/resolve/{commit}/{}", percent_encoded(path, "/"))
    }

    /// Holds what the hub says on the way to a file against what it listed; whether it vouched for the
    /// content by its digest.
    pub fn check(&self, answer: &Answer) -> Result<bool, Fault> {
        let said = |name: &str| answer.on_the_way(name).or_else(|| answer.header(name));
        let other = |what: &str, new: &str, old: &str| {
            let problem = format!(
                "the file changed while it was read ({what} was {old}, now it is {new}); run again, or \
                 pin a revision"
            );
            Err(Fault::last(ErrorKind::InvalidData, problem))
        };
        if let Some(commit) = said("x-repo-commit").filter(|it| *it != self.commit) {
            return other("the commit", commit, &self.commit);
        }
        if let (Some(etag), Some(known)) = (said("x-linked-etag"), &self.sha256) {
            let etag = etag.trim_start_matches("W/").trim_matches('"');
            if etag != known {
                return other("the content", etag, known);
            }
            return Ok(true);
        }
        Ok(false)
    }
}

/// Asks the API; also returns where the next page is.
fn get(client: &Client, url: &str, repo: &str) -> io::Result<(Vec<u8>, Option<String>)> {
    persist(|| {
        let answer = client.ask(Ask { url, range: None, login: Login::Hub, unchanged: None })?;
        if answer.status != 200 {
            return Err(refused(answer, repo));
        }
        let link = answer.header("link").and_then(|links| {
            let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
            next.trim().strip_prefix('<')?.split_once('>').map(|(url, _)| url.to_owned())
        });
        let next = link.and_then(|link| resolve(&answer.url, &link));
        if next.as_ref().is_some_and(|next| origin(next) != origin(&answer.url)) {
            let problem = "its list of files goes on at another host, which is not followed";
            return Err(Fault::last(ErrorKind::PermissionDenied, problem));
        }
        Client::whole(answer, MOST).map(|body| (body, next))
    })
}

/// What the hub says if it does not give what was asked for.
pub fn refused(answer: Answer, repo: &str) -> Fault {
    let (status, host) = (answer.status, host(&answer.url).to_owned());
    let said = |name: &str| answer.on_the_way(name).or_else(|| answer.header(name));
    let code = said("x-error-code").unwrap_or_default().to_owned();
    let message = said("x-error-message").unwrap_or_default().to_owned();
    answer.discard();
    let login = "set HF_TOKEN to a token that may read it";
    let (kind, problem) = match (status, code.as_str()) {
        (_, "GatedRepo") => (
            ErrorKind::PermissionDenied,
            format!("{repo} is gated ({status}): accept its terms on {host}, and {login}"),
        ),
        (404, "RevisionNotFound") => {
            (ErrorKind::NotFound, format!("{repo} has no such revision ({status})"))
        }
        (404, "EntryNotFound") => {
            (ErrorKind::NotFound, format!("{repo} has no such file ({status})"))
        }
        (401, _) if message.contains("Invalid credentials") => (
            ErrorKind::PermissionDenied,
            format!(
                "{host} does not accept the token ({status}): it is wrong or has run out; {login}"
            ),
        ),
        (401, _) => (
            ErrorKind::PermissionDenied,
            format!("{repo} is not there, or is private ({status}): check the name, or {login}"),
        ),
        (403, _) => {
            (ErrorKind::PermissionDenied, format!("{host} refuses {repo} ({status}): {login}"))
        }
        (404 | 410, _) => {
            (ErrorKind::NotFound, format!("{host} has no {repo} ({status}); check the name"))
        }
        _ => (ErrorKind::Other, format!("{host} answers {status} for {repo}")),
    };
    let problem =
        if message.is_empty() { problem } else { format!("{problem}; it says: {message}") };
    Fault { error: io::Error::new(kind, problem), again: Again::No, got: 0 }
}

/// Whether a revision is a whole commit, which never moves.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> io::Result<T> {
    serde_json::from_slice(body).map_err(|error| odd(&error.to_string()))
}

fn odd(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the hub's answer is not understood: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_list_each_name_once() {
        let entry = Entry { len: 1, sha256: None };
        let files = ["a/x", "a/y/z", "a/y.gguf", "a.gguf", "b"];
        let files = files.into_iter().map(|path| (path.to_owned(), entry.clone())).collect();
        let repo = Repo { name: "o/n".to_owned(), commit: "0".repeat(40), files };
        let names = |folder| repo.names(folder).collect::<Vec<_>>();
        assert_eq!(names(""), ["a.gguf", "a", "b"]);
        assert_eq!(names("a"), ["x", "y.gguf", "y"]);
        assert!(names("c").is_empty());
    }
}
