/*!
`contract.md`: the contract report for people, in Markdown.
*/

use std::fmt::Write as _;

use super::failure::{known_models, note_lines};
use super::format::{Options, Rendered, Report, ReportError};
use super::located::pairs;
use super::markdown::{self, Page};
use super::numbers;
use super::text::{code, prose};
use crate::suite::record::{
    BaselineStatus, Contract, ExpertRow, ObligationStatus, PairRecord, SpecRecord, TensorRow,
    TestOutcome,
};

/// Rows of a pair's table of tensors; the rest is in `report.tsv`.
const TENSOR_ROWS: usize = 40;
/// Bytes that the obligations may take.
const OBLIGATIONS_LIMIT: usize = 64 * 1024;
/// Rows of every other table, and items of a list.
const ROWS: usize = 200;

/// Renders `contract.md`.
#[derive(Debug)]
pub struct ContractMd;

impl Report for ContractMd {
    fn name(&self) -> &'static str {
        "markdown"
    }

    fn file_name(&self) -> &'static str {
        "contract.md"
    }

    fn about(&self) -> &'static str {
        "the contract report for people, in Markdown"
    }

    fn render(&self, contract: &Contract, options: &Options) -> Result<Rendered, ReportError> {
        // The obligations come last, and have room whatever is left out of the pairs.
        let mut end = Page::new(options.markdown_limit.min(OBLIGATIONS_LIMIT));
        obligations(&mut end, contract);
        let end = end.finish();
        let mut page = Page::new(options.markdown_limit.saturating_sub(end.len()));
        markdown::verdict(&mut page, contract);
        provenance(&mut page, contract);
        markdown::decide(&mut page, contract);
        markdown::pair_table(&mut page, contract, ROWS);
        markdown::failures(&mut page, contract, ROWS);
        markdown::warnings_and_waivers(&mut page, contract, ROWS);
        for (spec, pair) in pairs(contract) {
            details(&mut page, spec, pair);
        }
        Ok(Rendered::from((page.finish() + &end).into_bytes()))
    }
}

/// Who wrote the report, and when.
fn provenance(page: &mut Page, contract: &Contract) {
    let harness = &contract.harness;
    let mut line = format!("\n{} {}", prose(&harness.name), prose(&harness.version));
    if let Some(time) = &contract.time {
        let took = numbers::seconds(time.seconds);
        let _ = write!(line, ", {}, took {took}", prose(&time.started));
    }
    page.line(&line);
}

fn obligations(page: &mut Page, contract: &Contract) {
    page.heading(2, "Obligations of the contract CRUX-B-20");
    page.line(markdown::OBLIGATIONS);
    page.line("");
    let rows: Vec<Vec<String>> = contract
        .obligations
        .iter()
        .map(|obligation| {
            let (mark, word) = match obligation.status {
                ObligationStatus::Held => ("✅", "held"),
                ObligationStatus::Violated => ("❌", "violated"),
                ObligationStatus::NotExercised => ("–", "not exercised"),
            };
            vec![
                mark.to_owned(),
                code(&obligation.id),
                word.to_owned(),
                prose(&obligation.rule),
                evidence(&obligation.evidence),
            ]
        })
        .collect();
    page.table(&["", "obligation", "status", "rule", "evidence"], rows.into_iter(), ROWS);
}

/// The first pieces of evidence, and how many more there are.
fn evidence(all: &[String]) -> String {
    const SHOWN: usize = 3;
    let mut text: Vec<String> = all.iter().take(SHOWN).map(|piece| prose(piece)).collect();
    if all.len() > SHOWN {
        text.push(format!("and {} more", all.len() - SHOWN));
    }
    text.join("<br>")
}

/// All about one pair.
fn details(page: &mut Page, spec: &SpecRecord, pair: &PairRecord) {
    page.heading(2, &format!("{} {}", markdown::pair_mark(pair), code(&pair.id)));
    for words in [&spec.description, &pair.description].into_iter().flatten() {
        page.line(&format!("{}\n", prose(words)));
    }
    page.line(&format!(
        "Written in {}, line {}; SHA-256 of the spec {}.",
        code(&pair.source.file),
        pair.source.line,
        code(&spec.sha256)
    ));
    if let Some(error) = &pair.error {
        page.line(&format!("\n**Could not be judged:** {}", prose(error)));
    }
    models(page, pair);
    tensors(page, pair);
    findings(page, pair);
    baseline(page, pair);
    falsified(page, pair);
    ignored(page, pair);
    for note in &note_lines(pair) {
        page.line(&format!("\nNote: {}", prose(note)));
    }
}

fn falsified(page: &mut Page, pair: &PairRecord) {
    let Some(found) = &pair.falsified else { return };
    let counts = &found.counts;
    page.line(&format!(
        "\nFalsified: {} faults injected, {} killed ({} by the baseline alone), {} survived, {} \
         allowed, {} without effect.",
        counts.mutants,
        counts.killed,
        counts.by_baseline_alone,
        counts.survived,
        counts.allowed,
        counts.no_effect
    ));
}

fn models(page: &mut Page, pair: &PairRecord) {
    let known = known_models(pair);
    if known.is_empty() {
        return;
    }
    page.line("");
    let rows = known.iter().map(|(role, model)| {
        vec![
            prose(role),
            code(&model.path),
            prose(&model.format),
            numbers::count(model.tensors),
            numbers::count(model.parameters),
            numbers::bytes(model.bytes),
            numbers::bits(model.bits_per_weight.0),
        ]
    });
    let columns = ["model", "path", "format", ">tensors", ">parameters", ">stored", ">bits/weight"];
    page.table(&columns, rows, ROWS);
    page.line("");
    let files: Vec<(&str, _)> = known
        .iter()
        .flat_map(|(role, model)| model.files.iter().map(move |file| (role.as_str(), file)))
        .collect();
    let rows = files.iter().map(|(role, file)| {
        let size = numbers::bytes(file.size);
        vec![prose(role), code(&file.name), size, code(&file.header_sha256)]
    });
    page.table(&["model", "file", ">size", "SHA-256 of the header"], rows, TENSOR_ROWS);
}

fn tensors(page: &mut Page, pair: &PairRecord) {
    if pair.tensors.is_empty() {
        return;
    }
    page.heading(3, "Tensors, by RMSE, descending");
    let columns = [
        "",
        "tensor",
        "qtype",
        ">elements",
        ">bits/weight",
        ">wasted",
        ">RMSE",
        ">cosine",
        ">SQNR",
        ">largest error",
        ">gain",
    ];
    page.table(&columns, pair.tensors.iter().map(tensor), TENSOR_ROWS);
}

fn tensor(row: &TensorRow) -> Vec<String> {
    let light = match row.verdict.as_str() {
        "green" => "🟢",
        "yellow" => "🟡",
        _ => "🔴",
    };
    let metrics = row.metrics();
    vec![
        light.to_owned(),
        code(&row.tensor) + &row.worst_expert.iter().map(worst_expert).collect::<String>(),
        code(&row.qtype),
        numbers::count(row.numel),
        numbers::bits(row.bits_per_weight.0),
        numbers::wasted_bits(row.wasted_bits.0),
        numbers::magnitude(row.rmse.0),
        numbers::cosine(row.cosine.0),
        numbers::db(metrics.map_or(row.sqnr_db.0, |metrics| metrics.sqnr_db)),
        numbers::magnitude(row.max_abs.0),
        numbers::metric("gain", metrics.map_or(row.gain.0, |metrics| metrics.gain)),
    ]
}

/// Below a stack: the expert that fares worst.
fn worst_expert(row: &ExpertRow) -> String {
    format!("<br>worst: {}", prose(&numbers::worst_expert(row)))
}

fn findings(page: &mut Page, pair: &PairRecord) {
    if pair.findings.is_empty() {
        return;
    }
    page.heading(3, "What does not fit");
    let rows = pair.findings.iter().map(|finding| {
        let allowed = if finding.allowed { "allowed" } else { "**not allowed**" };
        let tensor = if finding.tensor.is_empty() { String::new() } else { code(&finding.tensor) };
        vec![prose(&finding.kind), tensor, prose(&finding.message), allowed.to_owned()]
    });
    page.table(&["kind", "tensor", "finding", ""], rows, TENSOR_ROWS);
}

fn baseline(page: &mut Page, pair: &PairRecord) {
    let baseline = &pair.baseline;
    if baseline.status == BaselineStatus::Off {
        return;
    }
    page.heading(3, &format!("Baseline: {}", markdown::baseline_word(baseline.status)));
    if let Some(path) = &baseline.path {
        page.line(&format!("Snapshot: {}", code(path)));
    }
    if let Some(pending) = &baseline.pending {
        page.line(&format!("\nPending: {}; `qualm review` shows it.", code(pending)));
    }
    page.line("");
    let mut shown = 0;
    for change in baseline.changes.iter().take(TENSOR_ROWS) {
        if !page.line(&format!("- {}", code(change))) {
            break;
        }
        shown += 1;
    }
    page.left_out(baseline.changes.len() - shown, "change");
}

fn ignored(page: &mut Page, pair: &PairRecord) {
    let ignored: Vec<_> =
        pair.tests.iter().filter(|test| test.outcome == TestOutcome::Ignored).collect();
    if ignored.is_empty() {
        return;
    }
    page.heading(3, "Not run");
    let rows = ignored.iter().map(|test| {
        vec![code(&test.id), prose(test.reason.as_deref().unwrap_or("no reason given"))]
    });
    page.table(&["test", "reason"], rows, TENSOR_ROWS);
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn render(contract: &Contract, limit: usize) -> String {
        let options = Options { markdown_limit: limit, ..Options::default() };
        String::from_utf8(ContractMd.render(contract, &options).unwrap().bytes).unwrap()
    }

    #[test]
    fn the_verdict_comes_first_then_the_worst() {
        let text = render(&sample::contract(), 1 << 20);
        let order = [
            "# 💥 qualm: ERROR\n",
            "failed, 1 could not be judged, 1 ignored, 1 warned, 3 filtered out, gates: ",
            " not judged; exit code 6.",
            "\n## Decision\n",
            "💥 **Could not judge** `minilm::gone`: models/gone.gguf: no such file",
            "❌ **Do not ship** `minilm::q4_0`: 4 of 7 tests fail; 1 not run.",
            "- 1 × nan-scale (blk.0.attn\\_nan)",
            "| baseline | changed; SQNR was 27.50 dB, now 14.20 dB: worse; 1 change beyond the tolerance |",
            "\n## Pairs\n",
            "| ❌ | `minilm::q4_0` |",
            "\n## Failures, the worst first\n",
            "- **`minilm::gone::(structure)`**\n  - `models/gone.gguf: no such file; check the path`",
            "- **`minilm::q4_0::blk.0.ffn_down.weight`**\n  - `cosine 0.981200 < 0.990000",
            "    - bound: specs/minilm.toml:12:10 (small GQA projections)",
            "    - baseline: was 0.995120, now 0.981200: worse",
            "\n## Waived\n",
            "\n## ❌ `minilm::q4_0`\n",
            "| 🔴 | `blk.0.attn_nan.weight` | `Q4_0` | 2 | 4.50 | – | NaN | NaN |",
            "### What does not fit",
            "### Baseline: changed",
            "### Not run",
            "\n## Obligations of the contract CRUX-B-20\n",
            "CRUX-B-20 is the contract",
            "| ❌ | `FALSIFY-CRUX-B-20-002` | violated |",
        ];
        let mut from = 0;
        for part in order {
            let at = text[from..].find(part);
            from += at.unwrap_or_else(|| panic!("{part:?} is not after the rest in\n{text}"));
        }
        assert!(!text.contains("\n\n\n"), "{text}");
    }

    #[test]
    fn foreign_text_neither_breaks_tables_nor_becomes_markup() {
        let text = render(&sample::contract(), 1 << 20);
        let is_bad = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(is_bad));
        // A table's rows have as many cells as its head.
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        let mut head = None;
        for line in text.lines() {
            match (line.starts_with('|'), head) {
                (true, None) => head = Some(cells(line)),
                (true, Some(expected)) => assert_eq!(cells(line), expected, "{line}"),
                (false, _) => head = None,
            }
        }
    }

    #[test]
    fn the_size_is_bounded() {
        let mut pairs = sample::contract().specs[1].pairs.clone();
        pairs = pairs.iter().cycle().take(400).cloned().collect();
        let contract = sample::run(vec![sample::spec("many", pairs)]);
        let text = render(&contract, 100_000);
        assert!(text.len() < 100_000, "{}", text.len());
        assert!(text.contains("failures more: see contract.json"), "{text}");
    }
}
