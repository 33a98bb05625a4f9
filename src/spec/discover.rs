/*!
Finding the spec files below a suite's root, and their names.
*/

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why the spec files below a root cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// A file or directory cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A symbolic link leads back to a directory above it.
    #[error("{} leads back to a directory above it", path.display())]
    Cycle {
        /// The link.
        path: PathBuf,
    },
    /// Links lead to a directory again and again.
    #[error("links lead to {} in more than {MOST_WAYS} ways", path.display())]
    Ways {
        /// The directory.
        path: PathBuf,
    },
}

/// Most ways in which links may lead to one directory: each of them has its own specs and tests.
const MOST_WAYS: usize = 16;

/// The directory below which the names of the specs of a root begin: itself, or of a file, where that is.
pub fn below(root: &Path) -> &Path {
    if root.is_file() { root.parent().unwrap_or(root) } else { root }
}

/// Finds every `*.toml` below `root`, sorted by the bytes of the paths.
///
/// Files and directories whose name begins with a dot are skipped; symbolic links are followed. A
/// root that is a file is returned as it is.
pub fn discover(root: &Path) -> Result<Vec<PathBuf>, DiscoverError> {
    let metadata = fs::metadata(root).map_err(io_error(root))?;
    if metadata.is_file() {
        return Ok(vec![root.to_owned()]);
    }
    let mut found = Vec::new();
    walk(root, &mut Vec::new(), &mut HashMap::new(), &mut found)?;
    found.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(found)
}

fn walk(
    directory: &Path,
    above: &mut Vec<PathBuf>,
    ways: &mut HashMap<PathBuf, usize>,
    found: &mut Vec<PathBuf>,
) -> Result<(), DiscoverError> {
    let real = fs::canonicalize(directory).map_err(io_error(directory))?;
    if above.contains(&real) {
        return Err(DiscoverError::Cycle { path: directory.to_owned() });
    }
    let ways_here = ways.entry(real.clone()).or_default();
    *ways_here += 1;
    if *ways_here > MOST_WAYS {
        return Err(DiscoverError::Ways { path: directory.to_owned() });
    }
    above.push(real);
    for entry in fs::read_dir(directory).map_err(io_error(directory))? {
        let entry = entry.map_err(io_error(directory))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let mut kind = entry.file_type().map_err(io_error(&path))?;
        if kind.is_symlink() {
            kind = fs::metadata(&path).map_err(io_error(&path))?.file_type();
        }
        if kind.is_dir() {
            walk(&path, above, ways, found)?;
        } else if kind.is_file() && path.extension().is_some_and(|it| it == "toml") {
            found.push(path);
        }
    }
    above.pop();
    Ok(())
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DiscoverError + '_ {
    |source| DiscoverError::Io { path: path.to_owned(), source }
}

/// A spec's name: its path below `root`, without `.toml`, with `/`; the file's stem if it does not
/// lie below. `None` if the path is not UTF-8.
pub fn spec_name(path: &Path, root: &Path) -> Option<String> {
    let below = match path.strip_prefix(root) {
        Ok(below) if !below.as_os_str().is_empty() => below.with_extension(""),
        _ => PathBuf::from(path.file_stem()?),
    };
    let parts: Option<Vec<&str>> =
        below.components().map(|part| part.as_os_str().to_str()).collect();
    parts.map(|parts| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_toml_files_in_byte_order_and_skips_hidden_ones() {
        let root = tempfile::tempdir().unwrap();
        for file in ["b.toml", "a/z.toml", "a-b.toml", "a/.hidden.toml", ".git/c.toml", "a/x.txt"] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let names: Vec<_> = discover(root.path())
            .unwrap()
            .iter()
            .map(|path| spec_name(path, root.path()).unwrap())
            .collect();
        assert_eq!(names, ["a-b", "a/z", "b"], "'-' sorts before '/'");
        let single = root.path().join("b.toml");
        assert_eq!(discover(&single).unwrap(), vec![single.clone()]);
        assert_eq!(spec_name(&single, &single).unwrap(), "b");
        assert!(discover(&root.path().join("absent")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_directory_above_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("a/up")).unwrap();
        assert!(matches!(discover(root.path()), Err(DiscoverError::Cycle { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn links_may_lead_to_a_directory_in_a_few_ways() {
        for (levels, fine) in [(4, true), (14, false)] {
            let root = tempfile::tempdir().unwrap();
            let at = |name: &str| root.path().join(name);
            fs::create_dir(at("x")).unwrap();
            fs::write(at("x/s.toml"), "").unwrap();
            // Each level leads to the next in two ways.
            for level in 0..levels {
                fs::create_dir(at(&format!("l{level}"))).unwrap();
                let next = if level + 1 == levels { "x".into() } else { format!("l{}", level + 1) };
                for side in ["a", "b"] {
                    let link = at(&format!("l{level}/{side}"));
                    std::os::unix::fs::symlink(format!("../{next}"), link).unwrap();
                }
            }
            assert_eq!(discover(&at("l0")).is_ok(), fine, "{levels} levels");
        }
    }
}
