/*!
The table of pairs, and all about each of them: models, heat maps, tensors, findings, baseline.
*/

use std::collections::HashMap;
use std::fmt::Write as _;

use super::heat_map::{self, heat_maps};
use super::markup::{Row, State, code, esc, left_out, table};
use crate::report::failure::{known_models, note_lines};
use crate::report::located::pairs;
use crate::report::markdown::baseline_word;
use crate::report::numbers;
use crate::suite::id;
use crate::suite::record::{
    BaselineStatus, Contract, PairRecord, SpecRecord, TensorRow, TestOutcome,
};

/// Bytes that tables of tensors may take on the whole page, and heat maps; the rest is in `report.tsv`.
const TENSOR_BYTES: usize = 1_300_000;
const HEAT_BYTES: usize = 1_000_000;
/// Pairs in the overview.
const PAIR_ROWS: usize = 1000;
/// Rows of every other table.
const ROWS: usize = 200;
/// Pairs up to which all of them are open.
const OPEN: usize = 2;

/// What each test of a run came to, by its id.
pub struct States<'a>(HashMap<&'a str, State>);

impl<'a> States<'a> {
    /// Of all tests of a run.
    pub fn of(contract: &'a Contract) -> Self {
        let tests = pairs(contract).flat_map(|(_, pair)| &pair.tests);
        Self(tests.map(|test| (test.id.as_str(), State::of(test))).collect())
    }

    /// A tensor's state; one that was measured for another test's sake is ignored.
    pub fn tensor(&self, pair: &PairRecord, tensor: &str) -> State {
        let id = id::of_tensor(&pair.id, tensor);
        self.0.get(id.as_str()).copied().unwrap_or(State::Ignored)
    }
}

/// A pair's state: the worst of its tests.
pub fn state(pair: &PairRecord) -> State {
    let worst = pair.tests.iter().map(State::of).max().unwrap_or(State::Ignored);
    if pair.error.is_some() { State::Error } else { worst }
}

/// One row a pair.
pub fn overview(page: &mut String, contract: &Contract) {
    page.push_str("<section aria-labelledby=\"pairs\"><h2 id=\"pairs\">Pairs</h2>\n");
    let rows: Vec<Row> = pairs(contract).enumerate().map(|(at, (_, it))| row(at + 1, it)).collect();
    let columns = [
        "pair",
        ">no.",
        "outcome",
        ">passed",
        ">of",
        ">bits/weight",
        ">SQNR",
        ">from limit",
        ">cosine",
        ">RMSE",
        ">largest error",
        "baseline",
    ];
    let shown = rows.len().min(PAIR_ROWS);
    table(page, "Pairs of models", &columns, &rows[..shown]);
    left_out(page, rows.len() - shown, "pair", "contract.json");
    page.push_str("</section>\n");
}

fn row(number: usize, pair: &PairRecord) -> Row {
    let passed = pair.tests.iter().filter(|test| test.outcome == TestOutcome::Passed).count();
    let run = pair.tests.iter().filter(|test| test.outcome != TestOutcome::Ignored).count();
    let bits = pair.quantized.as_ref().map(|model| model.bits_per_weight.0);
    let state = state(pair);
    let mut cells = vec![
        format!("<a href=\"#pair-{number}\">{}</a>", esc(&pair.id)),
        number.to_string(),
        state.badge(),
        passed.to_string(),
        run.to_string(),
        bits.map(numbers::bits).unwrap_or_default(),
    ];
    match &pair.global {
        Some(global) => {
            let sqnr = global.metrics().map_or(global.sqnr_db.0, |metrics| metrics.sqnr_db);
            cells.extend([
                numbers::db(sqnr),
                from_limit(global.rd_gap_db.0),
                numbers::cosine(global.cosine.0),
                numbers::magnitude(global.rmse.0),
                numbers::magnitude(global.max_abs.0),
            ]);
        }
        None => cells.extend([const { String::new() }; 5]),
    }
    cells.push(baseline_word(pair.baseline.status).to_owned());
    Row { class: state.class(), cells }
}

/// The distance from the rate-distortion limit; nothing where there is no error.
fn from_limit(gap: f64) -> String {
    if gap.is_finite() { numbers::db(gap) } else { String::new() }
}

/// All about each pair.
pub fn details(page: &mut String, contract: &Contract, states: &States) {
    page.push_str("<section aria-labelledby=\"each\"><h2 id=\"each\">Each pair</h2>\n");
    heat_map::legend(page);
    let few = pairs(contract).count() <= OPEN;
    let (mut rows_left, mut cells_left) = (TENSOR_BYTES, HEAT_BYTES);
    for (at, (spec, pair)) in pairs(contract).enumerate() {
        let state = state(pair);
        let open = if few || state >= State::Failed { " open=\"open\"" } else { "" };
        let _ = writeln!(
            page,
            "<details class=\"pair\" id=\"pair-{}\"{open}><summary>{} <b>{}</b></summary>",
            at + 1,
            state.badge(),
            code(&pair.id)
        );
        about(page, spec, pair);
        models(page, pair);
        let state_of = |tensor: &str| states.tensor(pair, tensor);
        heat_maps(page, &pair.tensors, state_of, &mut cells_left);
        tensors(page, pair, states, &mut rows_left);
        findings(page, pair);
        baseline(page, pair);
        ignored(page, pair);
        page.push_str("</details>\n");
    }
    page.push_str("</section>\n");
}

fn about(page: &mut String, spec: &SpecRecord, pair: &PairRecord) {
    for words in [&spec.description, &pair.description].into_iter().flatten() {
        let _ = writeln!(page, "<p>{}</p>", esc(words));
    }
    let tags = pair
        .tags
        .iter()
        .fold(String::new(), |all, tag| format!("{all} <span class=\"tag\">{}</span>", esc(tag)));
    let _ = writeln!(
        page,
        "<p class=\"of\">Written in {}{tags}</p>",
        code(&crate::report::failure::place(&pair.source))
    );
    if let Some(error) = &pair.error {
        let _ = writeln!(page, "<p class=\"what\"><b>Could not be judged:</b> {}</p>", esc(error));
    }
    for note in &note_lines(pair) {
        let _ = writeln!(page, "<p class=\"note\">Note: {}</p>", esc(note));
    }
}

fn models(page: &mut String, pair: &PairRecord) {
    let known = known_models(pair);
    if known.is_empty() {
        return;
    }
    let rows: Vec<Row> = known
        .iter()
        .map(|(role, model)| {
            let files = model.files.iter().map(|file| {
                format!(
                    "<abbr title=\"SHA-256 of the header: {}\">{}</abbr>",
                    esc(&file.header_sha256),
                    esc(&file.name)
                )
            });
            let mut files: Vec<String> = files.take(4).collect();
            if model.files.len() > files.len() {
                files.push(format!("and {} more", model.files.len() - files.len()));
            }
            Row::plain(vec![
                esc(role),
                code(&model.path),
                esc(&model.format),
                files.join(", "),
                numbers::count(model.tensors),
                numbers::count(model.parameters),
                numbers::bytes(model.bytes),
                numbers::bits(model.bits_per_weight.0),
            ])
        })
        .collect();
    let columns =
        ["model", "path", "format", "files", ">tensors", ">parameters", ">stored", ">bits/weight"];
    table(page, "Models", &columns, &rows);
}

/// A pair's tensors, as many as fit into the bytes that are left: what failed comes first, then by RMSE.
fn tensors(page: &mut String, pair: &PairRecord, states: &States, left: &mut usize) {
    if pair.tensors.is_empty() {
        return;
    }
    let mut order: Vec<(State, &TensorRow)> =
        pair.tensors.iter().map(|row| (states.tensor(pair, &row.tensor), row)).collect();
    order.sort_by_key(|(state, _)| std::cmp::Reverse((*state).max(State::Passed)));
    let fits = |row: &Row| {
        let room = left.checked_sub(row.bytes());
        *left = room.unwrap_or(0);
        room.is_some()
    };
    let rows: Vec<Row> =
        order.iter().map(|(state, row)| tensor(*state, row)).take_while(fits).collect();
    let columns = [
        "tensor",
        "outcome",
        "qtype",
        ">elements",
        ">bits/weight",
        ">SQNR",
        ">from limit",
        ">cosine",
        ">RMSE",
        ">largest error",
        ">gain",
    ];
    table(page, "Tensors", &columns, &rows);
    left_out(page, order.len() - rows.len(), "tensor", "report.tsv");
}

fn tensor(state: State, row: &TensorRow) -> Row {
    let sqnr = heat_map::sqnr(row);
    let gain = row.metrics().map_or(row.gain.0, |metrics| metrics.gain);
    let worst = row.worst_expert.as_ref().map(numbers::worst_expert);
    let worst =
        worst.map_or_else(String::new, |it| format!("<br><small>worst: {}</small>", esc(&it)));
    Row {
        class: state.class(),
        cells: vec![
            esc(&row.tensor) + &worst,
            state.badge(),
            esc(&row.qtype),
            numbers::count(row.numel),
            numbers::bits(row.bits_per_weight.0),
            numbers::db(sqnr),
            from_limit(row.rd_gap_db.0),
            numbers::cosine(row.cosine.0),
            numbers::magnitude(row.rmse.0),
            numbers::magnitude(row.max_abs.0),
            numbers::metric("gain", gain),
        ],
    }
}

fn findings(page: &mut String, pair: &PairRecord) {
    if pair.findings.is_empty() {
        return;
    }
    let rows: Vec<Row> = pair
        .findings
        .iter()
        .take(ROWS)
        .map(|finding| {
            let allowed = if finding.allowed { "allowed" } else { "<b>not allowed</b>" };
            Row::plain(vec![
                esc(&finding.kind),
                esc(&finding.tensor),
                esc(&finding.message),
                allowed.to_owned(),
            ])
        })
        .collect();
    table(page, "What does not fit", &["kind", "tensor", "finding", "allowed?"], &rows);
    left_out(page, pair.findings.len() - rows.len(), "finding", "contract.json");
}

fn baseline(page: &mut String, pair: &PairRecord) {
    let baseline = &pair.baseline;
    if baseline.status == BaselineStatus::Off {
        return;
    }
    let _ = write!(page, "<h3>Baseline: {}</h3>\n<p class=\"of\">", baseline_word(baseline.status));
    if let Some(path) = &baseline.path {
        let _ = write!(page, "Snapshot {}. ", code(path));
    }
    if let Some(pending) = &baseline.pending {
        let _ = write!(page, "Pending: {}; <code>qualm review</code> shows it.", code(pending));
    }
    page.push_str("</p>\n");
    if baseline.changes.is_empty() {
        return;
    }
    page.push_str("<ul>");
    for change in baseline.changes.iter().take(ROWS) {
        let _ = write!(page, "<li>{}</li>", esc(change));
    }
    page.push_str("</ul>\n");
    left_out(page, baseline.changes.len().saturating_sub(ROWS), "change", "contract.json");
}

fn ignored(page: &mut String, pair: &PairRecord) {
    let rows: Vec<Row> = pair
        .tests
        .iter()
        .filter(|test| test.outcome == TestOutcome::Ignored)
        .map(|test| {
            let reason = test.reason.as_deref().unwrap_or("no reason given");
            Row::plain(vec![esc(&test.id), esc(reason)])
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    let shown = rows.len().min(ROWS);
    table(page, "Not run", &["test", "reason"], &rows[..shown]);
    left_out(page, rows.len() - shown, "test", "contract.json");
}
