/*!
What this process knows of addresses: revisions are pinned once, and every file is opened once, whoever asks
for it how often.
*/

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use super::address::{Address, HubPath};
use super::client::Client;
use super::credentials::Hub;
use super::hub::{HubFile, Repo};
use super::object::Object;
use super::parts::Parts;
use super::shown;
use super::{Kind, Opened, Stretch, local_copy};

/// First bytes of a URL that are asked for, which tell its length.
const FIRST: u64 = 64 << 10;
/// Longest file beside weights that is kept for the next who asks for it.
const KEPT: usize = 1 << 20;

/// What is known.
pub struct Session {
    pub client: Arc<Client>,
    pub parts: Parts,
    known: Mutex<Known>,
    /// Files so far.
    files: AtomicUsize,
}

#[derive(Default)]
struct Known {
    /// Repositories at their commits, by `ORG/REPO@REV`.
    repos: HashMap<String, Arc<Repo>>,
    /// Files, by address.
    objects: HashMap<String, Arc<Object>>,
    /// Addresses where nothing is.
    absent: HashMap<String, String>,
    /// Small files, by address.
    small: HashMap<String, Arc<Vec<u8>>>,
    /// URLs with their queries, by the URLs without.
    whole: HashMap<String, String>,
}

/// The one session of this process.
pub fn session() -> &'static Session {
    static SESSION: LazyLock<Session> = LazyLock::new(|| {
        let client = Arc::new(Client::new(Hub::of(|name| std::env::var(name).ok())));
        Session {
            parts: Parts::new(Arc::clone(&client)),
            client,
            known: Mutex::default(),
            files: AtomicUsize::new(0),
        }
    });
    &SESSION
}

/// An address without its query, which may be a signature, and is kept for when it is asked for; a path as it
/// is.
pub fn without_query(path: &Path) -> PathBuf {
    let Some(text) = path.to_str().filter(|_| super::is_address(path)) else {
        return path.to_owned();
    };
    let plain = shown(text);
    if plain != text {
        session().known().whole.insert(plain.to_owned(), text.to_owned());
    }
    PathBuf::from(plain)
}

/// What an address leads to.
pub fn kind(path: &Path) -> io::Result<Kind> {
    let place = match address(path)? {
        Address::Web(url) if url.ends_with('/') => {
            let problem = "a folder of a web server cannot be listed; name a file of the model, or its \
                           index (*.safetensors.index.json)";
            return Err(io::Error::new(ErrorKind::Unsupported, problem));
        }
        Address::Web(_) => return Ok(Kind::File),
        Address::Hub(place) => place,
    };
    let repo = session().repo(&place)?;
    if repo.files.contains_key(&place.path) {
        Ok(Kind::File)
    } else if place.path.is_empty() || repo.names(&place.path).next().is_some() {
        Ok(Kind::Directory)
    } else {
        Err(missing(&repo, &place.path))
    }
}

/// The names in a directory.
pub fn names(path: &Path) -> io::Result<Vec<OsString>> {
    match address(path)? {
        Address::Web(_) => Err(io::Error::from(ErrorKind::NotADirectory)),
        Address::Hub(place) => {
            let repo = session().repo(&place)?;
            Ok(repo.names(&place.path).map(OsString::from).collect())
        }
    }
}

/// Opens a file.
pub fn open(path: &Path) -> io::Result<Opened> {
    match address(path)? {
        Address::Web(url) => session().web(&url).map(Opened::Remote),
        Address::Hub(place) => {
            let repo = session().repo(&place)?;
            let file = repo.file(&place.path).ok_or_else(|| missing(&repo, &place.path))?;
            session().hub_file(file)
        }
    }
}

/// Reads a file of at most so many bytes whole.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let session = session();
    let key = path.to_string_lossy().into_owned();
    if let Some(bytes) = session.known().small.get(&key) {
        return Ok(bytes.to_vec());
    }
    let object = match open(path)? {
        Opened::Local(file, _) => return std::fs::read(file),
        Opened::Remote(object) => object,
    };
    if object.len() > most {
        let problem = format!("it has {} bytes, more than {most}", object.len());
        return Err(io::Error::new(ErrorKind::FileTooLarge, problem));
    }
    let mut bytes = vec![0; object.len() as usize];
    object.read_exact_at(&mut bytes, 0)?;
    if bytes.len() <= KEPT {
        session.known().small.insert(key, Arc::new(bytes.clone()));
    }
    Ok(bytes)
}

/// Says what will be read next of a side of a pair, in order; returns in how many requests.
pub fn plan(side: usize, stretches: &[Stretch]) -> usize {
    if stretches.is_empty() { 0 } else { session().parts.plan(side, stretches) }
}

fn address(path: &Path) -> io::Result<Address> {
    let invalid = |problem: String| io::Error::new(ErrorKind::InvalidInput, problem);
    Address::parse(path, &session().client.hub.endpoint).map_err(invalid)
}

/// A file that a repository has not: says which it may be.
fn missing(repo: &Repo, path: &str) -> io::Error {
    let near = |name: &&String| strsim::normalized_damerau_levenshtein(name, path);
    let mut names: Vec<&String> = repo.files.keys().collect();
    names.sort_by(|a, b| near(b).total_cmp(&near(a)));
    let names: Vec<&str> = names.into_iter().take(3).map(String::as_str).collect();
    let problem = format!(
        "{} has no {path} at {}; nearest: {}",
        repo.name,
        &repo.commit[..12.min(repo.commit.len())],
        names.join(", ")
    );
    io::Error::new(ErrorKind::NotFound, problem)
}

impl Session {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn repo(&self, place: &HubPath) -> io::Result<Arc<Repo>> {
        let key = format!("{}@{}", place.repo, place.revision.as_deref().unwrap_or_default());
        if let Some(repo) = self.known().repos.get(&key) {
            return Ok(Arc::clone(repo));
        }
        let hub = &self.client.hub;
        let repo = match &hub.cache {
            Some(cache) if hub.offline => local_copy::repo(cache, place)?,
            _ => Repo::ask(&self.client, place)?,
        };
        Ok(Arc::clone(self.known().repos.entry(key).or_insert_with(|| Arc::new(repo))))
    }

    fn hub_file(&self, file: HubFile) -> io::Result<Opened> {
        let hub = &self.client.hub;
        let HubFile { repo, commit, path, len, .. } = &file;
        let copy = hub.cache.as_ref().and_then(|it| local_copy::file(it, repo, commit, path, *len));
        if let Some(copy) = copy {
            return Ok(Opened::Local(copy, commit.clone()));
        }
        if hub.offline {
            let problem =
                format!("offline (HF_HUB_OFFLINE), and {path} of {repo} is not in the cache");
            return Err(io::Error::new(ErrorKind::NotFound, problem));
        }
        let id = self.files.fetch_add(1, Ordering::Relaxed);
        let mut known = self.known();
        let object = known.objects.entry(format!("hf://{repo}@{commit}/{path}"));
        let object = object.or_insert_with(|| Arc::new(Object::of_hub(id, file)));
        Ok(Opened::Remote(Arc::clone(object)))
    }

    fn web(&self, url: &str) -> io::Result<Arc<Object>> {
        let whole = {
            let known = self.known();
            if let Some(object) = known.objects.get(url) {
                return Ok(Arc::clone(object));
            }
            if let Some(problem) = known.absent.get(url) {
                return Err(io::Error::new(ErrorKind::NotFound, problem.clone()));
            }
            known.whole.get(url).cloned()
        };
        let id = self.files.fetch_add(1, Ordering::Relaxed);
        let asked = Object::of_web(&self.client, id, whole.as_deref().unwrap_or(url), FIRST);
        let mut known = self.known();
        match asked {
            Ok((object, first)) => {
                let object = Arc::new(object);
                self.parts.keep(&object, first);
                known.objects.insert(url.to_owned(), Arc::clone(&object));
                Ok(object)
            }
            Err(error) => {
                if error.kind() == ErrorKind::NotFound {
                    known.absent.insert(url.to_owned(), error.to_string());
                }
                Err(error)
            }
        }
    }
}
