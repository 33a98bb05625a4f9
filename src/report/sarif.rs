/*!
`report.sarif`: failures and warnings in the Static Analysis Results Interchange Format, version 2.1.0, for code
scanning and editors.
*/

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::format::{Options, Rendered, Report, ReportError};
use super::issue::{Issue, MOST, Note, Severity, issues, left_out, notes};
use super::text::one_line;
use crate::shown::percent_encoded;
use crate::suite::record::{Contract, Source, Verdict};

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// Renders `report.sarif`.
#[derive(Debug)]
pub struct Sarif;

impl Report for Sarif {
    fn name(&self) -> &'static str {
        "sarif"
    }

    fn file_name(&self) -> &'static str {
        "report.sarif"
    }

    fn about(&self) -> &'static str {
        "failures and warnings in SARIF 2.1.0, for code scanning and editors"
    }

    fn system(&self) -> Option<&'static str> {
        Some("GITHUB_ACTIONS")
    }

    fn render(&self, contract: &Contract, _: &Options) -> Result<Rendered, ReportError> {
        let issues = issues(contract);
        let mut rules = BTreeMap::new();
        for issue in issues.iter().take(MOST) {
            rules.entry(issue.kind()).or_insert_with(|| about(&issue.kind()));
        }
        let place = |kind: &str| rules.keys().position(|it| it == kind);
        let results: Vec<Value> =
            issues.iter().take(MOST).map(|it| result(it, place(&it.kind()))).collect();
        let rule = |(id, about): (&String, &String)| json!({"id": id, "shortDescription": {"text": about}});
        let mut invocation = json!({
            "executionSuccessful": contract.verdict != Verdict::Error,
            "exitCode": contract.exit_code,
        });
        let notes: Vec<Value> = notes(contract).take(MOST).map(|it| notification(&it)).collect();
        if !notes.is_empty() {
            invocation["toolExecutionNotifications"] = json!(notes);
        }
        if let Some(time) = &contract.time {
            invocation["startTimeUtc"] = json!(time.started);
        }
        let mut run = json!({
            "tool": {"driver": {
                "name": contract.harness.name,
                "version": contract.harness.version,
                "rules": rules.iter().map(rule).collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "invocations": [invocation],
            "results": results,
        });
        if issues.len() > MOST {
            run["properties"] = json!({"resultsLeftOut": issues.len() - MOST});
        }
        let log = json!({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]});
        let mut bytes = serde_json::to_vec_pretty(&log).map_err(ReportError::json)?;
        bytes.push(b'\n');
        Ok(Rendered { bytes, warnings: left_out("report.sarif", issues.len()) })
    }
}

/// What a kind of failure is about.
fn about(kind: &str) -> String {
    match kind.split_once('.') {
        Some(("threshold", metric)) => format!("{metric} does not hold its bound"),
        Some(("integrity", gate)) => format!("The integrity gate {gate} does not hold"),
        Some(("structure", what)) => format!("The two models do not fit: {what}"),
        Some(("values", what)) => format!("The values are not {what}"),
        Some((group, what)) => format!("{group}: {what} does not hold"),
        None if kind == "input" => "A model could not be read or judged".to_owned(),
        None if kind == "baseline" => "The numbers are not those of the baseline".to_owned(),
        None => format!("{kind} does not hold"),
    }
}

/// A note: what is odd about a pair but no result of a test.
fn notification(note: &Note) -> Value {
    json!({
        "level": "note",
        "message": {"text": format!("{}: {}", one_line(&note.pair.id), one_line(note.text))},
        "locations": [{"physicalLocation": physical(&note.pair.source)}],
    })
}

fn physical(source: &Source) -> Value {
    json!({
        "artifactLocation": {"uri": uri(&source.file)},
        "region": {"startLine": source.line.max(1), "startColumn": source.column.max(1)},
    })
}

fn result(issue: &Issue, rule: Option<usize>) -> Value {
    let id = &issue.located.test.id;
    let mut result = json!({
        "ruleId": issue.kind(),
        "level": if issue.severity == Severity::Warning { "warning" } else { "error" },
        "message": {"text": message(issue)},
        "locations": [{
            "physicalLocation": physical(issue.source),
            "logicalLocations": [{"fullyQualifiedName": one_line(id), "kind": "member"}],
        }],
        "partialFingerprints": {"testId/v1": issue.fingerprint()},
    });
    if let Some(rule) = rule {
        result["ruleIndex"] = json!(rule);
    }
    result
}

/// The test, what it failed for, and all that it says.
fn message(issue: &Issue) -> String {
    let mut text = format!("{}: {}", one_line(&issue.located.test.id), issue.headline());
    let said = issue.headline();
    for line in issue.lines() {
        if line.trim_start_matches("cause: ") != said {
            let _ = write!(text, "\n{line}");
        }
    }
    text
}

/// A path as a URI reference.
fn uri(path: &str) -> String {
    let path = path.replace('\\', "/");
    let path = path.strip_prefix("./").unwrap_or(&path);
    let scheme = if path.starts_with('/') { "file://" } else { "" };
    format!("{scheme}{}", percent_encoded(path, "/"))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn render(contract: &Contract) -> Value {
        let rendered = Sarif.render(contract, &Options::default()).unwrap();
        serde_json::from_slice(&rendered.bytes).unwrap()
    }

    #[test]
    fn the_standards_own_schema_accepts_it() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sarif/sarif-schema-2.1.0.json");
        let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let mut schemas = boon::Schemas::new();
        let mut compiler = boon::Compiler::new();
        compiler.enable_format_assertions();
        compiler.add_resource("sarif.json", schema).unwrap();
        let schema = compiler.compile("sarif.json", &mut schemas).unwrap();
        for contract in [sample::contract(), sample::passing(), sample::run(Vec::new())] {
            let log = render(&contract);
            schemas.validate(&log, schema).map_err(|e| e.to_string()).unwrap();
            let mut broken = log;
            broken["runs"][0]["results"] = json!([{"level": "error"}]);
            assert!(schemas.validate(&broken, schema).is_err(), "a result needs a message");
        }
    }

    #[test]
    fn the_worst_first_on_the_line_of_the_bound() {
        let log = render(&sample::contract());
        let run = &log["runs"][0];
        let results = run["results"].as_array().unwrap();
        let first = &results[0];
        assert_eq!((&first["ruleId"], &first["level"]), (&json!("input"), &json!("error")));
        let text = |it: &Value| it["message"]["text"].as_str().unwrap().to_owned();
        let of = |id: &str| results.iter().find(|it| text(it).starts_with(id)).unwrap();
        let down = of("minilm::q4_0::blk.0.ffn_down.weight: cosine 0.981200 < 0.990000");
        let place = &down["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "specs/minilm.toml");
        assert_eq!(place["region"], json!({"startLine": 12, "startColumn": 10}));
        let rule = &run["tool"]["driver"]["rules"][down["ruleIndex"].as_u64().unwrap() as usize];
        assert_eq!(rule["id"], "threshold.cosine");
        let mut prints: Vec<_> =
            results.iter().map(|it| it["partialFingerprints"].to_string()).collect();
        prints.sort();
        prints.dedup();
        assert_eq!(prints.len(), results.len());
    }

    #[test]
    fn no_more_than_a_reader_shows_and_the_rest_is_counted() {
        let failed =
            |n| sample::judged(&format!("s::p::t{n}"), vec![sample::check("cosine", 0.5, 0.9)]);
        let pair = sample::pair("s", "p", Vec::new(), (0..MOST + 3).map(failed).collect());
        let contract = sample::run(vec![sample::spec("s", vec![pair])]);
        let log = render(&contract);
        assert_eq!(log["runs"][0]["results"].as_array().unwrap().len(), MOST);
        assert_eq!(log["runs"][0]["properties"]["resultsLeftOut"], 3);
        let warnings = Sarif.render(&contract, &Options::default()).unwrap().warnings;
        assert_eq!(warnings, ["report.sarif leaves out the least grave 3 results"]);
    }

    #[test]
    fn paths_are_uris() {
        for (path, expected) in [
            ("specs/a.toml", "specs/a.toml"),
            ("./specs/a b.toml", "specs/a%20b.toml"),
            ("/ci/specs/ä#.toml", "file:///ci/specs/%C3%A4%23.toml"),
            ("specs\\a.toml", "specs/a.toml"),
        ] {
            assert_eq!(uri(path), expected);
        }
    }
}
