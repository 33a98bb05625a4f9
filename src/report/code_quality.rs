/*!
`gl-code-quality-report.json`: failures and warnings as GitLab shows them in merge requests.
*/

use serde_json::{Value, json};

use super::format::{Options, Rendered, Report, ReportError};
use super::issue::{Issue, MOST, Note, Severity, issues, left_out, notes};
use super::text::one_line;
use crate::suite::record::{Contract, Source};

const FILE: &str = "gl-code-quality-report.json";

/// Renders `gl-code-quality-report.json`.
#[derive(Debug)]
pub struct CodeQuality;

impl Report for CodeQuality {
    fn name(&self) -> &'static str {
        "code-quality"
    }

    fn file_name(&self) -> &'static str {
        FILE
    }

    fn about(&self) -> &'static str {
        "failures and warnings as GitLab's Code Quality shows them"
    }

    fn system(&self) -> Option<&'static str> {
        Some("GITLAB_CI")
    }

    fn render(&self, contract: &Contract, _: &Options) -> Result<Rendered, ReportError> {
        let issues = issues(contract);
        let notes = notes(contract).take(MOST).map(|it| note(&it));
        let entries: Vec<Value> = issues.iter().take(MOST).map(entry).chain(notes).collect();
        let mut bytes = serde_json::to_vec_pretty(&entries).map_err(ReportError::json)?;
        bytes.push(b'\n');
        Ok(Rendered { bytes, warnings: left_out(FILE, issues.len()) })
    }
}

/// The keys that GitLab asks for; a description is one line.
fn entry(issue: &Issue) -> Value {
    let severity = match issue.severity {
        Severity::Unjudged => "blocker",
        Severity::Failed => "critical",
        Severity::Warning => "minor",
    };
    json!({
        "description": format!("{}: {}", one_line(&issue.located.test.id), issue.headline()),
        "check_name": issue.kind(),
        "fingerprint": issue.fingerprint(),
        "severity": severity,
        "location": location(issue.source),
    })
}

/// A note on a pair, which is no failure.
fn note(note: &Note) -> Value {
    json!({
        "description": format!("{}: {}", one_line(&note.pair.id), one_line(note.text)),
        "check_name": "note",
        "fingerprint": note.fingerprint(),
        "severity": "info",
        "location": location(&note.pair.source),
    })
}

fn location(source: &Source) -> Value {
    let path = source.file.replace('\\', "/");
    json!({
        // GitLab finds no file whose path begins with a dot and a slash.
        "path": path.strip_prefix("./").unwrap_or(&path),
        "lines": {"begin": source.line.max(1)},
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::sample;
    use super::*;

    fn render(contract: &Contract) -> Vec<Value> {
        let rendered = CodeQuality.render(contract, &Options::default()).unwrap();
        serde_json::from_slice(&rendered.bytes).unwrap()
    }

    /// The keys and words are those of GitLab's documentation of code quality reports.
    #[test]
    fn every_entry_has_the_keys_that_gitlab_asks_for() {
        let entries = render(&sample::contract());
        assert!(entries.len() > 10);
        let severities = ["info", "minor", "major", "critical", "blocker"];
        let mut fingerprints = HashSet::new();
        for entry in &entries {
            let text = |key: &str| entry[key].as_str().unwrap_or_else(|| panic!("{key}: {entry}"));
            assert!(!text("description").contains('\n') && !text("check_name").is_empty());
            assert!(severities.contains(&text("severity")), "{entry}");
            assert!(fingerprints.insert(text("fingerprint")), "{entry} is there twice");
            let path = entry["location"]["path"].as_str().unwrap();
            assert!(!path.starts_with("./") && !path.is_empty());
            assert!(entry["location"]["lines"]["begin"].as_u64().unwrap() >= 1);
        }
        let first = &entries[0];
        assert_eq!(first["severity"], "blocker");
        assert_eq!(
            first["description"],
            "minilm::gone::(structure): models/gone.gguf: no such file; check the path"
        );
        assert_eq!(render(&sample::passing()), Vec::<Value>::new());
    }
}
