/*!
The cache that the hub's own programs keep on this machine. It is read through its snapshots, never written,
and a link that leads out of the repository is not followed.
*/

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::address::HubPath;
use super::hub::{Entry, Repo, is_commit};

/// Most folders below one another.
const DEEPEST: usize = 16;

/// The folder of a repository.
fn folder(cache: &Path, repo: &str) -> PathBuf {
    cache.join(format!("models--{}", repo.replace('/', "--")))
}

/// A file of a commit, if it is there whole.
pub fn file(cache: &Path, repo: &str, commit: &str, path: &str, len: u64) -> Option<PathBuf> {
    let folder = folder(cache, repo);
    let file = folder.join("snapshots").join(commit).join(path);
    let metadata = std::fs::metadata(&file).ok()?;
    let inside = file.canonicalize().ok()?.starts_with(folder.canonicalize().ok()?);
    (inside && metadata.is_file() && metadata.len() == len).then_some(file)
}

/// What the cache has of a repository, for want of a network.
pub fn repo(cache: &Path, place: &HubPath) -> io::Result<Repo> {
    let folder = folder(cache, &place.repo);
    let revision = place.revision.as_deref().unwrap_or("main");
    let commit = if is_commit(revision) {
        Ok(revision.to_owned())
    } else {
        std::fs::read_to_string(folder.join("refs").join(revision)).map(|it| it.trim().to_owned())
    };
    let commit = commit.ok().filter(|commit| is_commit(commit));
    let root = commit.as_ref().map(|commit| folder.join("snapshots").join(commit));
    let (Some(commit), Some(root)) = (commit, root.filter(|root| root.is_dir())) else {
        let problem =
            format!("offline (HF_HUB_OFFLINE), and {revision} is not in {}", folder.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, problem));
    };
    let mut files = BTreeMap::new();
    list(&root, "", 0, &mut files)?;
    Ok(Repo { name: place.repo.clone(), commit, files })
}

fn list(
    folder: &Path,
    prefix: &str,
    depth: usize,
    files: &mut BTreeMap<String, Entry>,
) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{prefix}{name}");
        match std::fs::metadata(entry.path()) {
            Ok(it) if it.is_file() => {
                files.insert(path, Entry { len: it.len(), sha256: None });
            }
            // A folder, and no link to one.
            Ok(it) if it.is_dir() && entry.file_type()?.is_dir() && depth < DEEPEST => {
                list(&entry.path(), &format!("{path}/"), depth + 1, files)?;
            }
            _ => {}
        }
    }
    Ok(())
}
