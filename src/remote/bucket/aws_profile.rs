/*! The files in which Amazon's programs keep profiles: `~/.aws/credentials` and `~/.aws/config`. */

use std::collections::HashMap;
use std::path::PathBuf;

use super::env::{Env, file_if_present};
use super::secret::Secret;
use super::sigv4::Key;

/// What both files say of a profile.
#[derive(Debug, Default)]
pub struct Profile {
    pub name: String,
    settings: HashMap<String, Secret>,
}

impl Profile {
    /// The profile that the environment names, or the default one; empty if there is none of that name.
    pub fn of(env: Env) -> Result<Self, String> {
        let asked = env.word(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]);
        let name = asked.clone().unwrap_or_else(|| "default".to_owned());
        let mut profile = Self { name: name.clone(), settings: HashMap::new() };
        let mut found = false;
        // What stands in the file of credentials comes before what stands in the other.
        for (variable, file, sections) in [
            ("AWS_SHARED_CREDENTIALS_FILE", "credentials", vec![name.clone()]),
            ("AWS_CONFIG_FILE", "config", vec![format!("profile {name}"), "default".to_owned()]),
        ] {
            let path = env.word(&[variable]).map(PathBuf::from);
            let Some(path) = path.or_else(|| Some(env.home()?.join(".aws").join(file))) else {
                continue;
            };
            let Some(text) = file_if_present(&path)? else { continue };
            let is_meant = |section: &str| {
                section == sections[0]
                    || name == "default" && sections.iter().any(|it| it == section)
            };
            found |= profile.add(&text, is_meant);
        }
        match asked {
            Some(name) if !found => Err(format!("there is no profile {name} (AWS_PROFILE)")),
            _ => Ok(profile),
        }
    }

    /// Adds the settings of a section; whether it is there.
    fn add(&mut self, text: &str, is_meant: impl Fn(&str) -> bool) -> bool {
        let (mut found, mut is_inside) = (false, false);
        for line in text.lines() {
            let bare = line.trim();
            if let Some(section) = bare.strip_prefix('[').and_then(|it| it.split_once(']')) {
                let words: Vec<&str> = section.0.split_whitespace().collect();
                is_inside = is_meant(&words.join(" "));
                found |= is_inside;
            } else if is_inside
                // Indented lines belong to the setting above them; comments are lines of their own.
                && !line.starts_with([' ', '\t', '#', ';'])
                && let Some((name, value)) = bare.split_once('=')
            {
                let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
                if !value.is_empty() {
                    self.settings.entry(name).or_insert_with(|| Secret::new(value));
                }
            }
        }
        found
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(Secret::reveal)
    }

    /// The key that stands in it. A profile that gets its key in another way is an error.
    pub fn key(&self) -> Result<Option<Key>, String> {
        let name = &self.name;
        if let (Some(id), Some(secret)) =
            (self.get("aws_access_key_id"), self.get("aws_secret_access_key"))
        {
            let session = self.get("aws_session_token").map(Secret::new);
            return Ok(Some(Key { id: id.to_owned(), secret: Secret::new(secret), session }));
        }
        let others =
            ["sso_session", "sso_start_url", "role_arn", "credential_process", "login_session"];
        match others.into_iter().find(|it| self.get(it).is_some()) {
            Some(how) => Err(format!(
                "the profile {name} gets its keys by {how}, which qualm does not: run `eval \"$(aws configure \
                 export-credentials --profile {name} --format env)\"` first"
            )),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::bucket::env::tests::with;

    #[test]
    fn profiles_are_read_as_amazons_programs_read_them() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(home.path().join(".aws").join(name), text).unwrap();
        };
        write(
            "credentials",
            "[default]\naws_access_key_id = a\naws_secret_access_key=b=\n[x]\naws_access_key_id=c\n\
              aws_secret_access_key=d\naws_session_token = e\n",
        );
        write(
            "config",
            "[default]\nregion = eu-west-1\n# region = no\n[profile  x]\nregion=eu-west-2\ns3 =\n  \
              endpoint_url = no\naws_access_key_id = no\n[x]\noutput=no\n[profile sso]\nsso_session = s\n",
        );
        let home = home.path().to_str().unwrap();
        let of = |name: &str| with(&[("HOME", home), ("AWS_PROFILE", name)], Profile::of);
        for (name, id, secret, session, region) in [
            ("", "a", "b=", None, "eu-west-1"),
            ("default", "a", "b=", None, "eu-west-1"),
            ("x", "c", "d", Some("e"), "eu-west-2"),
        ] {
            let profile = of(name).unwrap();
            let key = profile.key().unwrap().unwrap();
            let session_token = key.session.as_ref().map(Secret::reveal);
            assert_eq!(
                (&*key.id, key.secret.reveal(), session_token),
                (id, secret, session),
                "{name}"
            );
            assert_eq!(profile.get("region"), Some(region), "{name}");
            assert_eq!(
                (profile.get("output"), profile.get("endpoint_url")),
                (None, None),
                "{name}"
            );
            assert!(!format!("{profile:?}").contains("b="), "a secret is never printed");
        }
        assert!(of("sso").unwrap().key().unwrap_err().contains("export-credentials --profile sso"));
        assert!(of("none").unwrap_err().contains("no profile none"));
        with(&[("HOME", "/nowhere")], |env| {
            assert!(Profile::of(env).unwrap().key().unwrap().is_none());
        });
    }
}
