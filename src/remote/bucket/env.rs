/*! The environment, as the stores' own programs read it. */

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Longest file of credentials.
const MOST: u64 = 1 << 20;

/// Reads a file of credentials, which may be a pipe; none if it is not there.
pub fn file_if_present(path: &Path) -> Result<Option<String>, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MOST + 1).read_to_string(&mut text));
    match read {
        Ok(len) if len as u64 <= MOST => Ok(Some(text)),
        Ok(_) => Err(format!("{} is too long for credentials", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// Reads a file of credentials that somebody named.
pub fn file(path: impl AsRef<Path>) -> Result<String, String> {
    let path = path.as_ref();
    file_if_present(path)?.ok_or_else(|| format!("{} is not there", path.display()))
}

/// Variables.
#[derive(Clone, Copy)]
pub struct Env<'a>(pub &'a dyn Fn(&str) -> Option<String>);

impl Env<'_> {
    /// The first of these variables that says something.
    pub fn word(&self, names: &[&str]) -> Option<String> {
        self.named(names).map(|(value, _)| value)
    }

    /// The same, with its name.
    pub fn named<'n>(&self, names: &[&'n str]) -> Option<(String, &'n str)> {
        names.iter().find_map(|name| {
            let value = (self.0)(name)?.trim().to_owned();
            (!value.is_empty()).then_some((value, *name))
        })
    }

    pub fn truthy(&self, name: &str) -> bool {
        let value = self.word(&[name]).unwrap_or_default().to_ascii_lowercase();
        ["1", "on", "yes", "true"].contains(&value.as_str())
    }

    /// A URL without a slash at its end.
    pub fn url(&self, names: &[&str]) -> Result<Option<String>, String> {
        let Some((url, name)) = self.named(names) else { return Ok(None) };
        let is_url = url.starts_with("https://") || url.starts_with("http://");
        if !is_url || url.contains(['?', '#', '@']) {
            return Err(format!("{name} is no URL such as https://storage.example.com"));
        }
        Ok(Some(url.trim_end_matches('/').to_owned()))
    }

    pub fn home(&self) -> Option<PathBuf> {
        self.word(&["HOME", "USERPROFILE"]).map(PathBuf::from)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Calls with an environment of these variables.
    pub fn with<T>(set: &[(&str, &str)], call: impl FnOnce(Env) -> T) -> T {
        let get = |name: &str| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        call(Env(&get))
    }
}
