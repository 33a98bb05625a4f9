/*!
What the environment says about snapshots: insta's variables, read as insta reads them.
*/

use std::ffi::OsString;
use std::path::PathBuf;

use super::BaselineError;

/// `INSTA_UPDATE`: what to do with a snapshot that is new or does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Update {
    /// Pending files, as `New`; in CI they go below the output directory.
    #[default]
    Auto,
    /// Write the snapshot itself.
    Always,
    /// Write pending files.
    New,
    /// Write the snapshot itself if there is none yet, a pending file otherwise.
    Unseen,
    /// Write nothing.
    No,
    /// As `Always`. insta also rewrites snapshots that hold; here they are never touched.
    Force,
}

/// What the environment asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `INSTA_UPDATE`.
    pub update: Update,
    /// True in CI: then nothing is written into the source tree.
    pub ci: bool,
    /// `INSTA_FORCE_PASS=1`: a baseline that is new or changed does not fail.
    pub force_pass: bool,
    /// `INSTA_PENDING_DIR`: pending files go there, at their path within the workspace.
    pub pending_dir: Option<PathBuf>,
    /// `INSTA_SNAPSHOT_REFERENCES_FILE`: each snapshot that is looked at is appended to this file.
    pub references_file: Option<PathBuf>,
    /// `INSTA_WORKSPACE_ROOT`: what paths are relative to.
    pub workspace_root: Option<PathBuf>,
}

impl Environment {
    /// Reads the process's environment.
    pub fn from_process() -> Result<Self, BaselineError> {
        Self::from_variables(std::env::var_os::<&'static str>)
    }

    /// Reads variables through a function.
    pub fn from_variables(
        get: impl Fn(&'static str) -> Option<OsString>,
    ) -> Result<Self, BaselineError> {
        let text = |name| get(name).map(|value| value.to_string_lossy().into_owned());
        let path = |name| get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // Older versions of cargo-insta set these instead of INSTA_UPDATE=force.
        let force = ["INSTA_FORCE_UPDATE", "INSTA_FORCE_UPDATE_SNAPSHOTS"]
            .into_iter()
            .any(|name| text(name).as_deref() == Some("1"));
        let update = match text("INSTA_UPDATE").as_deref() {
            _ if force => Update::Force,
            None | Some("" | "auto") => Update::Auto,
            Some("always" | "1") => Update::Always,
            Some("new") => Update::New,
            Some("unseen") => Update::Unseen,
            Some("no") => Update::No,
            Some("force") => Update::Force,
            Some(value) => {
                return Err(BaselineError::Variable {
                    name: "INSTA_UPDATE",
                    value: value.to_owned(),
                    expected: "auto, always, new, unseen, no or force",
                });
            }
        };
        let force_pass = match text("INSTA_FORCE_PASS").as_deref() {
            None | Some("" | "0") => false,
            Some("1") => true,
            Some(value) => {
                return Err(BaselineError::Variable {
                    name: "INSTA_FORCE_PASS",
                    value: value.to_owned(),
                    expected: "0 or 1",
                });
            }
        };
        Ok(Self {
            update,
            ci: in_ci(&get),
            force_pass,
            pending_dir: path("INSTA_PENDING_DIR"),
            references_file: path("INSTA_SNAPSHOT_REFERENCES_FILE"),
            workspace_root: path("INSTA_WORKSPACE_ROOT"),
        })
    }
}

/// Variables that CI systems set, beside `CI`.
const CI_SYSTEMS: [&str; 14] = [
    "GITHUB_ACTIONS",
    "GITLAB_CI",
    "BUILDKITE",
    "TF_BUILD",
    "CIRCLECI",
    "TRAVIS",
    "JENKINS_URL",
    "TEAMCITY_VERSION",
    "APPVEYOR",
    "BITBUCKET_COMMIT",
    "CODEBUILD_BUILD_ID",
    "DRONE",
    "WOODPECKER",
    "SEMAPHORE",
];

/// Whether a CI system runs this: `CI` says so, or the variable of a system where `CI` says nothing.
pub fn in_ci(get: impl Fn(&'static str) -> Option<OsString>) -> bool {
    let says = |name| match get(name).as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("") => None,
        Some("false" | "0") => Some(false),
        Some(_) => Some(true),
        None => get(name).map(|_| true),
    };
    says("CI").unwrap_or_else(|| CI_SYSTEMS.into_iter().any(|name| says(name) == Some(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, BaselineError> {
        Environment::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn ci_as_other_tools_detect_it() {
        // variables, in CI, why
        for (variables, expected, why) in [
            (&[][..], false, "nothing set"),
            (&[("CI", "true")], true, "the usual"),
            (&[("CI", "1")], true, "any other word"),
            (&[("CI", "no")], true, "insta knows only three words for no"),
            (&[("CI", "false")], false, "said no"),
            (&[("CI", "0")], false, "said no"),
            (&[("CI", "")], false, "empty"),
            (&[("TF_BUILD", "True")], true, "Azure Pipelines"),
            (&[("TF_BUILD", "")], false, "empty is not set"),
            (&[("GITHUB_ACTIONS", "true")], true, "GitHub"),
            (&[("GITLAB_CI", "true")], true, "GitLab"),
            (&[("BUILDKITE", "true")], true, "Buildkite"),
            (&[("JENKINS_URL", "https://ci.example/")], true, "Jenkins"),
            (&[("CIRCLECI", "false")], false, "said no"),
            (&[("CI", ""), ("GITLAB_CI", "true")], true, "an empty CI says nothing"),
            (&[("CI", "false"), ("GITHUB_ACTIONS", "true")], false, "CI decides"),
            (&[("CI", "false"), ("TF_BUILD", "True")], false, "CI decides where it is set"),
        ] {
            assert_eq!(read(variables).unwrap().ci, expected, "{why}");
        }
    }

    #[test]
    fn updates() {
        for (value, expected) in [
            ("", Update::Auto),
            ("auto", Update::Auto),
            ("always", Update::Always),
            ("1", Update::Always),
            ("new", Update::New),
            ("unseen", Update::Unseen),
            ("no", Update::No),
            ("force", Update::Force),
        ] {
            assert_eq!(read(&[("INSTA_UPDATE", value)]).unwrap().update, expected);
        }
        let old = [("INSTA_FORCE_UPDATE", "1"), ("INSTA_UPDATE", "no")];
        assert_eq!(read(&old).unwrap().update, Update::Force, "as insta has it");
        for (name, value) in [
            ("INSTA_UPDATE", "yes"),
            ("INSTA_UPDATE", "Always"),
            ("INSTA_UPDATE", " no"),
            ("INSTA_FORCE_PASS", "true"),
        ] {
            let error = read(&[(name, value)]).expect_err(value).to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
        assert!(read(&[("INSTA_FORCE_PASS", "1")]).unwrap().force_pass);
        assert!(!read(&[("INSTA_FORCE_PASS", "0")]).unwrap().force_pass);
        assert_eq!(read(&[("INSTA_PENDING_DIR", "")]).unwrap().pending_dir, None);
        let set = read(&[("INSTA_PENDING_DIR", "p"), ("INSTA_SNAPSHOT_REFERENCES_FILE", "r")]);
        let set = set.unwrap();
        assert_eq!(set.pending_dir, Some("p".into()));
        assert_eq!(set.references_file, Some("r".into()));
    }
}
