/*!
What this process knows of addresses: revisions are pinned once, and every file is opened once, whoever asks
for it how often.
*/

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use super::address::{Address, BucketPath, HubPath, bucket_scheme};
use super::bucket::Stores;
use super::client::Client;
use super::credentials::Hub;
use super::hub::{HubFile, Repo};
use super::object::{Object, Source};
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
    stores: Stores,
    known: Mutex<Known>,
    /// Files so far.
    files: AtomicUsize,
}

#[derive(Default)]
struct Known {
    /// Repositories at their commits, by `ORG/REPO@REV`.
    repos: HashMap<String, Arc<Repo>>,
    /// Names in folders of buckets, and whether they are folders; none is there without one.
    folders: HashMap<BucketPath, Arc<Folder>>,
    /// Files, by address.
    objects: HashMap<String, Arc<Object>>,
    /// Addresses where nothing is.
    absent: HashMap<String, String>,
    /// Small files, by address.
    small: HashMap<String, Arc<Vec<u8>>>,
    /// URLs with their queries, by the URLs without.
    whole: HashMap<String, String>,
}

/// Names in a folder of a bucket, and whether they are folders.
type Folder = BTreeMap<String, bool>;

/// The one session of this process.
pub fn session() -> &'static Session {
    static SESSION: LazyLock<Session> = LazyLock::new(|| {
        let client = Arc::new(Client::new(Hub::of(|name| std::env::var(name).ok())));
        Session {
            parts: Parts::new(Arc::clone(&client)),
            client,
            stores: Stores::default(),
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
        Address::Bucket(place) => return session().bucket_kind(&place),
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
        Address::Bucket(place) => {
            Ok(session().folder(&place.folder())?.keys().map(OsString::from).collect())
        }
    }
}

/// Opens a file.
pub fn open(path: &Path) -> io::Result<Opened> {
    match address(path)? {
        Address::Web(url) => session().web(&url).map(Opened::Remote),
        Address::Bucket(place) => session().bucket_file(&place).map(Opened::Remote),
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
    // Left out of what is shown, what follows upon a key would be left out of what is read.
    let whole =
        bucket_scheme(path).and_then(|_| session().known().whole.get(path.to_str()?).cloned());
    let path = whole.as_ref().map_or(path, Path::new);
    Address::parse(path, &session().client.hub.endpoint).map_err(invalid)
}

/// A file that a repository has not: says which it may be.
fn missing(repo: &Repo, path: &str) -> io::Error {
    let commit = &repo.commit[..12.min(repo.commit.len())];
    absent(&format!("{} has no {path} at {commit}", repo.name), path, repo.files.keys())
}

/// What is not there, and what of `names` is called nearly so.
fn absent<'n>(problem: &str, path: &str, names: impl Iterator<Item = &'n String>) -> io::Error {
    let near = |name: &&String| strsim::normalized_damerau_levenshtein(name, path);
    let mut names: Vec<&String> = names.collect();
    names.sort_by(|a, b| near(b).total_cmp(&near(a)));
    let names: Vec<&str> = names.into_iter().take(3).map(String::as_str).collect();
    let problem = format!("{problem}; nearest: {}", names.join(", "));
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
        let whole = self.known().whole.get(url).cloned();
        self.first(url, || Ok(Source::Web(whole.unwrap_or_else(|| url.to_owned()))))
    }

    /// The file at an address, which is asked for once.
    fn first(
        &self,
        address: &str,
        source: impl FnOnce() -> io::Result<Source>,
    ) -> io::Result<Arc<Object>> {
        {
            let known = self.known();
            if let Some(object) = known.objects.get(address) {
                return Ok(Arc::clone(object));
            }
            if let Some(problem) = known.absent.get(address) {
                return Err(io::Error::new(ErrorKind::NotFound, problem.clone()));
            }
        }
        let id = self.files.fetch_add(1, Ordering::Relaxed);
        let asked = Object::ask_first(&self.client, id, &source()?, FIRST);
        let mut known = self.known();
        match asked {
            Ok((object, first)) => {
                let object = Arc::new(object);
                self.parts.keep(&object, first);
                known.objects.insert(address.to_owned(), Arc::clone(&object));
                Ok(object)
            }
            Err(error) => {
                if error.kind() == ErrorKind::NotFound {
                    known.absent.insert(address.to_owned(), error.to_string());
                }
                Err(error)
            }
        }
    }

    fn bucket_kind(&self, place: &BucketPath) -> io::Result<Kind> {
        let error = if place.key.is_empty() || place.key.ends_with('/') {
            let problem = format!("nothing in {} begins with {:?}", place.bucket, place.key);
            io::Error::new(ErrorKind::NotFound, problem)
        } else {
            match self.bucket_file(place) {
                Ok(_) => return Ok(Kind::File),
                Err(error) => error,
            }
        };
        let folder = match error.kind() {
            // What names no object may name a folder.
            ErrorKind::NotFound | ErrorKind::PermissionDenied => self.folder(&place.folder()),
            _ => return Err(error),
        };
        match folder {
            Ok(folder) if !folder.is_empty() => Ok(Kind::Directory),
            // Of a name that is a folder's, the listing's own error says more.
            Err(listing) if place == &place.folder() => Err(listing),
            _ => Err(error),
        }
    }

    /// The names in a folder of a bucket, which is listed once.
    fn folder(&self, place: &BucketPath) -> io::Result<Arc<Folder>> {
        if let Some(folder) = self.known().folders.get(place) {
            return Ok(Arc::clone(folder));
        }
        let folder = Arc::new(self.stores.list(&self.client, place)?);
        self.known().folders.insert(place.clone(), Arc::clone(&folder));
        Ok(folder)
    }

    fn bucket_file(&self, place: &BucketPath) -> io::Result<Arc<Object>> {
        let (parent, name) = place.parent();
        let listed = self.known().folders.get(&parent).cloned();
        if let Some(folder) = listed.filter(|it| it.get(name) != Some(&false)) {
            return Err(absent(&format!("{parent} has no {name}"), name, folder.keys()));
        }
        let opened = self.first(&place.to_string(), || self.stores.file(place).map(Source::Bucket));
        let denied = match opened {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => error,
            other => return other,
        };
        // To who may not list a bucket, S3 answers so for what is not there. If other objects of the bucket can be
        // read, this one is not there as far as can be known.
        let start = format!("{}://{}/", place.scheme, place.bucket);
        let others = self.known().objects.keys().any(|address| address.starts_with(&start));
        if others && self.folder(&parent).map_or(true, |folder| folder.get(name) != Some(&false)) {
            let problem = denied.to_string();
            self.known().absent.insert(place.to_string(), problem.clone());
            return Err(io::Error::new(ErrorKind::NotFound, problem));
        }
        Err(denied)
    }
}
