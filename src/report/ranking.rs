/*!
The ranking of many quantized models: as Markdown, which is read on a terminal and in a model card alike,
and the cells that the page has as well.
*/

use super::markdown::Page;
use super::numbers;
use super::text::{code, prose};
use crate::metrics::functions::log10;
use crate::rank::{ANCHOR_BAND, CREDIT, FREE_BAND, Level, NOT_CLAIMED, Ranked, Ranking};

/// A cell of the table.
pub enum Cell {
    /// Words and numbers.
    Words(String),
    /// A name.
    Name(String),
    /// A name, and a number that goes with it.
    Pair(String, String),
}

/// Columns: their headings, those of numbers with a leading `>`.
pub fn columns(ranking: &Ranking) -> Vec<&'static str> {
    let mut columns = vec![
        ">#",
        "model",
        "types",
        ">size",
        ">bits/weight",
        ">SQNR",
        "worst tensor",
        ">from limit",
    ];
    if ranking.models.iter().any(|model| model.score.is_ok()) {
        columns.extend([">expected damage", "zone", "order"]);
    }
    if ranking.models.iter().any(|model| model.level.is_some()) {
        columns.push(">KLD, nats");
    }
    columns.push("verdict");
    columns
}

/// The cells of the model at a place, one a column.
pub fn cells(ranking: &Ranking, at: usize) -> Vec<Cell> {
    let model = &ranking.models[at];
    let db = |value: f64| if value.is_nan() { dash() } else { numbers::db(value) };
    let worst = model.worst.as_ref().filter(|worst| worst.sqnr_db.is_finite());
    let mut cells = vec![
        Cell::Words((at + 1).to_string()),
        Cell::Name(model.name.clone()),
        Cell::Words(types(model)),
        Cell::Words(model.bytes.map_or_else(dash, numbers::bytes)),
        Cell::Words(if model.bytes.is_some() {
            numbers::bits(model.bits_per_weight)
        } else {
            dash()
        }),
        Cell::Words(db(model.sqnr_db)),
        worst.map_or_else(
            || Cell::Words(dash()),
            |worst| Cell::Pair(worst.tensor.clone(), numbers::db(worst.sqnr_db)),
        ),
        Cell::Words(db(model.rd_gap_db)),
    ];
    for column in columns(ranking).into_iter().skip(cells.len()) {
        cells.push(Cell::Words(match column {
            ">expected damage" => {
                model.score.as_ref().map_or_else(|_| dash(), |it| digits(it.value))
            }
            "zone" => {
                model.score.as_ref().map_or_else(|_| dash(), |it| it.zone().name().to_owned())
            }
            "order" => order(ranking, at),
            ">KLD, nats" => model.level.as_ref().map_or_else(dash, band),
            _ => verdict(model),
        }));
    }
    cells
}

fn dash() -> String {
    "–".to_owned()
}

/// Three significant digits, as plain numbers while they are short.
pub fn digits(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value < 1e-4 => format!("{value:.2e}"),
        value => {
            let decimals = (2 - log10(value).floor() as i64).clamp(0, 6);
            format!("{value:.*}", decimals as usize)
        }
    }
}

fn band(level: &Level) -> String {
    format!("{} to {}", digits(level.low), digits(level.high))
}

/// `Q4_K 82 %, Q6_K 17 %, F32 1 %`.
fn types(model: &Ranked) -> String {
    const NAMED: usize = 3;
    let parts: Vec<(&str, u64)> =
        model.types.iter().map(|it| (it.qtype.as_str(), it.bytes)).collect();
    let mut words = numbers::shares(&parts, NAMED);
    if model.calibrated {
        words.push("imatrix".to_owned());
    }
    if words.is_empty() { dash() } else { words.join(", ") }
}

/// How sure it is that the model above is better.
fn order(ranking: &Ranking, at: usize) -> String {
    let order = at.checked_sub(1).and_then(|above| ranking.order(above, at));
    order.map_or_else(dash, |order| order.confidence.name().to_owned())
}

fn verdict(model: &Ranked) -> String {
    match model.findings {
        0 => model.verdict.to_owned(),
        n => format!("{} ({})", model.verdict, numbers::counted(n as u64, "finding")),
    }
}

/// The sentence at the top: how many models, what is best, what is wrong.
pub fn sentence(ranking: &Ranking) -> String {
    let count = |verdict: &str| ranking.models.iter().filter(|it| it.verdict == verdict).count();
    let counts: Vec<String> = ["healthy", "damaged", "unreadable"]
        .iter()
        .filter(|verdict| count(verdict) > 0)
        .map(|verdict| format!("{} {verdict}", count(verdict)))
        .collect();
    let models = numbers::counted(ranking.models.len() as u64, "quantized model");
    let scored = ranking.models.iter().any(|model| model.score.is_ok());
    let first = if scored { "least expected damage" } else { "smallest error" };
    format!("{models}: {}. The {first} comes first", counts.join(", "))
}

/// What each column says that does not say it itself.
pub fn legend(ranking: &Ranking) -> Vec<String> {
    let mut lines = vec![
        "size: of the files. from limit: 6.02 dB a bit minus the SQNR, what a better code could gain.".to_owned(),
    ];
    if ranking.models.iter().any(|model| model.score.is_ok()) {
        lines.push(
            "expected damage: a score from the weights alone (the smaller, the better); order: how sure it is \
             that the model above is better."
                .to_owned(),
        );
    }
    match &ranking.anchor {
        Some((at, kld)) => lines.push(format!(
            "KLD: from the {} nats that were measured of {}, within a factor of {ANCHOR_BAND}.",
            digits(*kld),
            ranking.models[*at].name
        )),
        None if ranking.models.iter().any(|model| model.level.is_some()) => lines.push(format!(
            "KLD: without a measurement of the same model the level is known within a factor of {FREE_BAND} \
             only; --anchor NAME=KLD narrows it."
        )),
        None => {}
    }
    lines
}

/// `q4_k_m: token_embd_tied 38 %, ffn_down 21 %, …`.
pub fn shares(model: &Ranked) -> Option<String> {
    const NAMED: usize = 5;
    let score = model.score.as_ref().ok().filter(|score| score.value > 0.0)?;
    let named = score.roles.iter().filter(|it| it.share >= 0.005).take(NAMED);
    let words: Vec<String> =
        named.map(|it| format!("{} {:.0} %", it.role.name, it.share * 100.0)).collect();
    Some(words.join(", "))
}

/// The ranking as Markdown. `reference`: what the models are quantized from.
pub fn markdown(ranking: &Ranking, reference: &str) -> String {
    let mut page = Page::new(1 << 20);
    page.line(&format!("# Quantizations of {}\n", code(reference)));
    page.line(&format!("{}.\n", sentence(ranking)));
    let rows = (0..ranking.models.len()).map(|at| cells(ranking, at).iter().map(markup).collect());
    page.table(&columns(ranking), rows.collect::<Vec<Vec<String>>>().into_iter(), usize::MAX);
    page.line("");
    for line in legend(ranking) {
        list(&mut page, &line);
    }
    damaged(&mut page, ranking);
    front(&mut page, ranking);
    outliers(&mut page, ranking);
    roles(&mut page, ranking);
    page.heading(2, "What this does not say");
    for line in NOT_CLAIMED {
        list(&mut page, line);
    }
    page.line(&format!("\n{CREDIT}"));
    page.finish()
}

fn markup(cell: &Cell) -> String {
    match cell {
        Cell::Words(text) => words(text),
        Cell::Name(name) => code(name),
        Cell::Pair(name, number) => format!("{} {}", code(name), words(number)),
    }
}

/// Words in Markdown. An underscore inside a word marks nothing up, and names of types are full of them.
fn words(text: &str) -> String {
    let safe = prose(text);
    let mut parts = safe.split("\\_");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let inside = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let plain = inside(whole.chars().last()) && inside(part.chars().next());
        whole.push_str(if plain { "_" } else { "\\_" });
        whole.push_str(part);
    }
    whole
}

fn list(page: &mut Page, line: &str) {
    page.line(&format!("- {}", words(line)));
}

/// Why models are not healthy, and why some have no score.
fn damaged(page: &mut Page, ranking: &Ranking) {
    let reasons = reasons(ranking);
    if !reasons.is_empty() {
        page.heading(2, "Not healthy, or without a score");
    }
    for (names, why) in reasons {
        let names: Vec<String> = names.iter().map(|name| code(name)).collect();
        page.line(&format!("- {}: {}", names.join(", "), words(&why)));
    }
}

/// What keeps models from being healthy, or from having a score, with their names.
pub fn reasons(ranking: &Ranking) -> Vec<(Vec<&str>, String)> {
    let mut reasons: Vec<(Vec<&str>, String)> = Vec::new();
    for model in &ranking.models {
        let why = match (&model.first_finding, &model.score) {
            (Some(finding), _) => format!("{}: {finding}", model.verdict),
            (None, Err(reason)) => format!("no score: {reason}"),
            (None, Ok(_)) => continue,
        };
        match reasons.iter_mut().find(|(_, other)| *other == why) {
            Some((names, _)) => names.push(&model.name),
            None => reasons.push((vec![&model.name], why)),
        }
    }
    reasons
}

/// The front as text: by size, with a bar for the damage.
fn front(page: &mut Page, ranking: &Ranking) {
    if ranking.front.is_empty() {
        return;
    }
    page.heading(2, "Size against quality");
    page.line(
        "Healthy models that no other is both no larger than and better (*), among all by size:\n",
    );
    page.line("```text");
    for line in front_lines(ranking) {
        page.line(&line);
    }
    page.line("```");
}

/// Lines of equal form: mark, size, damage, bar, name.
pub fn front_lines(ranking: &Ranking) -> Vec<String> {
    let mut models: Vec<(usize, &Ranked, u64)> = ranking
        .models
        .iter()
        .enumerate()
        .filter_map(|(at, model)| model.bytes.map(|bytes| (at, model, bytes)))
        .collect();
    models.sort_by_key(|(_, _, bytes)| *bytes);
    let line = |(at, model, bytes): (usize, &Ranked, u64)| {
        let mark = if ranking.front.contains(&at) { '*' } else { ' ' };
        let damage = match &model.score {
            Ok(score) => digits(score.value),
            Err(_) => numbers::db(model.sqnr_db),
        };
        let bar = model.score.as_ref().map_or(0, |score| bar(score.value));
        let name = crate::report::text::one_line(&model.name).replace('`', "'");
        format!(
            "{mark} {:>10}  {damage:>9}  {:<20}  {name}",
            numbers::bytes(bytes),
            "#".repeat(bar)
        )
    };
    models.into_iter().map(line).collect()
}

/// Four steps a factor of ten, from 0.0001 to 10.
fn bar(damage: f64) -> usize {
    if damage > 0.0 { ((log10(damage) + 4.0) * 4.0).round().clamp(0.0, 20.0) as usize } else { 0 }
}

fn outliers(page: &mut Page, ranking: &Ranking) {
    if ranking.outliers.is_empty() && ranking.notes.is_empty() {
        return;
    }
    page.heading(2, "Outliers");
    for outlier in &ranking.outliers {
        let name = &ranking.models[outlier.model].name;
        page.line(&format!("- {}: {}", code(name), words(&outlier.message)));
    }
    for note in &ranking.notes {
        list(page, note);
    }
}

fn roles(page: &mut Page, ranking: &Ranking) {
    let mut shares = ranking.models.iter().filter_map(|it| Some((it, shares(it)?))).peekable();
    if shares.peek().is_none() {
        return;
    }
    page.heading(2, "Where the expected damage is");
    for (model, shares) in shares {
        page.line(&format!("- {}: {}", code(&model.name), words(&shares)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits() {
        for (value, expected) in [
            (0.0, "0"),
            (0.000012345, "1.23e-5"),
            (0.00012345, "0.000123"),
            (0.012345, "0.0123"),
            (0.12, "0.120"),
            (1.0, "1.00"),
            (123.4, "123"),
        ] {
            assert_eq!(digits(value), expected);
        }
    }

    #[test]
    fn underscores_inside_words_stay() {
        for (text, expected) in [
            ("Q4_K 82 %", "Q4_K 82 %"),
            ("token_embd_tied", "token_embd_tied"),
            ("_all_", "\\_all\\_"),
            ("a|b_*", "a\\|b\\_\\*"),
        ] {
            assert_eq!(words(text), expected);
        }
    }

    #[test]
    fn bars_are_logarithmic_and_bounded() {
        for (damage, expected) in [(0.0, 0), (1e-9, 0), (1e-4, 0), (0.01, 8), (1.0, 16), (1e9, 20)]
        {
            assert_eq!(bar(damage), expected, "{damage}");
        }
    }
}
