/*!
The page of a ranking: the table, the front of size against quality as a drawing, and what is odd.
*/

use std::fmt::Write as _;

use super::markup::{Row, State, code, digest_source, esc, table};
use super::report::{SCRIPT, STYLE};
use crate::metrics::functions::{log10, pow};
use crate::rank::{CREDIT, NOT_CLAIMED, Ranked, Ranking};
use crate::report::numbers;
use crate::report::ranking::{Cell, cells, columns, digits, legend, reasons, sentence, shares};

/// Size of the drawing, and of its margins.
const SIZE: (f64, f64) = (840.0, 420.0);
const LEFT: f64 = 92.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 48.0;

/// Renders the page. `reference`: what the models are quantized from.
pub fn page(ranking: &Ranking, reference: &str) -> String {
    let mut page = String::with_capacity(64 * 1024);
    let _ = writeln!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; \
         base-uri 'none'; form-action 'none'; style-src {}; script-src {}\"/>\n\
         <link rel=\"icon\" href=\"data:,\"/>\n\
         <title>qualm: quantizations of {}</title>\n<style>{STYLE}</style></head>\n<body>\n\
         <header><span class=\"brand\">qualm</span><nav aria-label=\"Sections\">\
         <a href=\"#models\">Models</a><a href=\"#front\">Size against quality</a>\
         <a href=\"#limits\">What this does not say</a></nav>\
         <button type=\"button\" id=\"theme\" hidden=\"hidden\">Dark</button></header>\n\
         <main id=\"main\" tabindex=\"-1\">",
        digest_source(STYLE),
        digest_source(SCRIPT),
        esc(reference),
    );
    let state = ranking.models.iter().map(state).max().unwrap_or(State::Passed);
    let _ = writeln!(
        page,
        "<section class=\"verdict {}\" aria-labelledby=\"verdict\"><h1 id=\"verdict\">Quantizations of {}\
         </h1>\n<p>{}.</p></section>",
        state.class(),
        code(reference),
        esc(&sentence(ranking)),
    );
    models(&mut page, ranking);
    plot(&mut page, ranking);
    odd(&mut page, ranking);
    let _ = writeln!(
        page,
        "<section aria-labelledby=\"limits\"><h2 id=\"limits\">What this does not say</h2><ul>"
    );
    for line in NOT_CLAIMED {
        let _ = writeln!(page, "<li>{}</li>", esc(line));
    }
    let _ = writeln!(
        page,
        "</ul></section></main>\n<footer>{}</footer>\n<script>{SCRIPT}</script>\n</body></html>",
        esc(CREDIT)
    );
    page
}

fn state(model: &Ranked) -> State {
    match model.verdict {
        "healthy" => State::Passed,
        "damaged" => State::Failed,
        _ => State::Error,
    }
}

fn models(page: &mut String, ranking: &Ranking) {
    page.push_str("<section aria-labelledby=\"models\"><h2 id=\"models\">Models</h2>\n");
    let rows: Vec<Row> = ranking
        .models
        .iter()
        .enumerate()
        .map(|(at, model)| {
            // The number goes with the name: the first column is a row's heading.
            let mut cells: Vec<String> = cells(ranking, at).iter().map(markup).collect();
            let number = cells.remove(0);
            cells[0] = format!("{number} {}", cells[0]);
            let class = if model.verdict == "healthy" { "" } else { state(model).class() };
            Row { class, cells }
        })
        .collect();
    table(page, "Models, the least expected damage first", &columns(ranking)[1..], &rows);
    page.push_str("<ul>");
    for line in legend(ranking) {
        let _ = writeln!(page, "<li>{}</li>", esc(&line));
    }
    page.push_str("</ul></section>\n");
}

fn markup(cell: &Cell) -> String {
    match cell {
        Cell::Words(words) => esc(words),
        Cell::Name(name) => code(name),
        Cell::Pair(name, number) => format!("{} {}", code(name), esc(number)),
    }
}

/// Sizes and scores of the models that have both.
struct Axes {
    size: f64,
    low: f64,
    high: f64,
}

impl Axes {
    /// Powers of ten around all scores; none without a score that can be drawn.
    fn around(points: &[(usize, f64, f64)]) -> Option<Self> {
        let logs = || points.iter().map(|point| log10(point.2));
        let low = logs().fold(f64::INFINITY, f64::min).floor();
        let high = logs().fold(f64::NEG_INFINITY, f64::max).ceil();
        let size = points.iter().map(|point| point.1).fold(0.0, f64::max) * 1.1;
        (low.is_finite() && size > 0.0).then(|| Self { size, low, high: high.max(low + 1.0) })
    }

    fn x(&self, bytes: f64) -> f64 {
        LEFT + bytes / self.size * (SIZE.0 - LEFT - RIGHT)
    }

    fn y(&self, score: f64) -> f64 {
        let part = (log10(score) - self.low) / (self.high - self.low);
        SIZE.1 - BOTTOM - part * (SIZE.1 - TOP - BOTTOM)
    }
}

/// The front as a drawing: further left is smaller, further down is better.
fn plot(page: &mut String, ranking: &Ranking) {
    let points: Vec<(usize, f64, f64)> = ranking
        .models
        .iter()
        .enumerate()
        .filter_map(|(at, model)| {
            let score = model.score.as_ref().ok()?.value;
            (score > 0.0).then_some((at, model.bytes? as f64, score))
        })
        .collect();
    let Some(axes) = Axes::around(&points) else { return };
    let _ = writeln!(
        page,
        "<section aria-labelledby=\"front\"><h2 id=\"front\">Size against quality</h2>\n\
         <p>Each mark is a model, numbered as in the table. Further left is smaller, further down is better. Diamonds, \
         joined by the line, are the healthy models that no other is both no larger than and better.</p>\n\
         <div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"Size against quality\">\
         <svg class=\"plot\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"Expected damage over size; the table \
         has the numbers\">",
        SIZE.0, SIZE.1
    );
    grid(page, &axes);
    let on_front = |at: &usize| points.iter().find(|point| point.0 == *at);
    let path: Vec<String> = ranking
        .front
        .iter()
        .filter_map(on_front)
        .map(|(_, bytes, score)| format!("{:.1} {:.1}", axes.x(*bytes), axes.y(*score)))
        .collect();
    if path.len() > 1 {
        let _ = writeln!(page, "<path class=\"lead\" d=\"M{}\"/>", path.join("L"));
    }
    for (at, bytes, score) in &points {
        let model = &ranking.models[*at];
        let (x, y) = (axes.x(*bytes), axes.y(*score));
        let title = format!(
            "<title>{}: {}, {}</title>",
            esc(&model.name),
            numbers::bytes(*bytes as u64),
            digits(*score)
        );
        // As for pairs in the plot of a run: a diamond stands out.
        let _ = if ranking.front.contains(at) {
            let top = y - 7.0;
            write!(
                page,
                "<path class=\"pair\" d=\"M{x:.1} {top:.1}l6 7l-6 7l-6 -7z\">{title}</path>"
            )
        } else {
            let class = state(model).class();
            write!(
                page,
                "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\">{title}</circle>"
            )
        };
        let _ = writeln!(
            page,
            "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x + 9.0,
            y - 5.0,
            at + 1,
        );
    }
    page.push_str("</svg></div></section>\n");
}

fn grid(page: &mut String, axes: &Axes) {
    let (left, right, bottom) = (LEFT, SIZE.0 - RIGHT, SIZE.1 - BOTTOM);
    let mut power = axes.low;
    while power <= axes.high {
        let value = pow(10.0, power);
        let y = axes.y(value);
        let _ = writeln!(
            page,
            "<line class=\"grid\" x1=\"{left:.1}\" y1=\"{y:.1}\" x2=\"{right:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            y + 4.0,
            format_args!("{value:.0e}"),
        );
        power += 1.0;
    }
    for part in 0..=4 {
        let bytes = axes.size * f64::from(part) / 4.0;
        let x = axes.x(bytes);
        let _ = writeln!(
            page,
            "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            numbers::bytes(bytes as u64),
        );
    }
    let _ = writeln!(
        page,
        "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">size</text>\
         <text class=\"axis\" transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">expected \
         damage</text>",
        f64::midpoint(left, right),
        SIZE.1 - 8.0,
        f64::midpoint(TOP, bottom),
    );
}

/// What is wrong, what is odd, and where the damage is.
fn odd(page: &mut String, ranking: &Ranking) {
    let mut lines: Vec<String> = Vec::new();
    for (names, why) in reasons(ranking) {
        let names: Vec<String> = names.iter().map(|name| code(name)).collect();
        lines.push(format!("{}: {}", names.join(", "), esc(&why)));
    }
    for outlier in &ranking.outliers {
        lines.push(format!(
            "{}: {}",
            code(&ranking.models[outlier.model].name),
            esc(&outlier.message)
        ));
    }
    lines.extend(ranking.notes.iter().map(|note| esc(note)));
    section(page, "odd", "Outliers", &lines);
    let shares = ranking.models.iter().filter_map(|it| Some((it, shares(it)?)));
    let lines: Vec<String> =
        shares.map(|(model, shares)| format!("{}: {}", code(&model.name), esc(&shares))).collect();
    section(page, "roles", "Where the expected damage is", &lines);
}

fn section(page: &mut String, id: &str, heading: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(page, "<section aria-labelledby=\"{id}\"><h2 id=\"{id}\">{heading}</h2><ul>");
    for line in lines {
        let _ = writeln!(page, "<li>{line}</li>");
    }
    page.push_str("</ul></section>\n");
}
