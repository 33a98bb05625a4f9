/*!
The error of every tensor of a pair at a glance: roles down, layers across.
*/

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::markup::{State, esc};
use crate::report::numbers;
use crate::report::place::{Place, place};
use crate::suite::record::TensorRow;

/// Rows and columns beyond which the map is cut.
const ROLES: usize = 80;
const LAYERS: usize = 200;

/// Layers from which cells are too narrow for numbers; every tenth layer is named then.
const DENSE: usize = 33;
const NAMED: usize = 10;

/// Least SQNR of the steps of the scale, in dB, the best first; below the last is the worst.
const STEPS: [f64; 7] = [50.0, 40.0, 30.0, 25.0, 20.0, 15.0, 10.0];

/// The tensors that share a place.
struct Cell<'a> {
    worst: &'a TensorRow,
    sqnr: f64,
    state: State,
    count: usize,
}

/// The error of a row in dB; NaN where there is none to speak of.
pub fn sqnr(row: &TensorRow) -> f64 {
    match (row.metrics(), row.first_difference) {
        _ if row.error.is_some() => f64::NAN,
        (Some(metrics), _) => metrics.sqnr_db,
        (None, None) => f64::INFINITY,
        (None, Some(_)) => f64::NAN,
    }
}

/// The maps of a pair, one a stack of layers, as far as there are bytes left. `state` knows what a tensor's test
/// came to.
pub fn heat_maps(
    page: &mut String,
    rows: &[TensorRow],
    state: impl Fn(&str) -> State,
    left: &mut usize,
) {
    let mut stacks: BTreeMap<Option<String>, Vec<(Place, &TensorRow)>> = BTreeMap::new();
    for row in rows {
        let place = place(&row.tensor);
        stacks.entry(place.stack.clone()).or_default().push((place, row));
    }
    // Layers first, then what stands outside them.
    let outside = stacks.remove(&None).map(|tensors| (None, tensors));
    for (stack, tensors) in stacks.into_iter().chain(outside) {
        let mut layers: Vec<u64> = tensors.iter().map(|(place, _)| place.layer).collect();
        layers.sort_unstable();
        layers.dedup();
        let mut roles: BTreeMap<String, BTreeMap<u64, Cell>> = BTreeMap::new();
        for (place, row) in tensors {
            add(roles.entry(place.role).or_default(), place.layer, row, state(&row.tensor));
        }
        let before = page.len();
        map(page, stack.as_deref(), &layers, &roles, before + *left);
        *left = left.saturating_sub(page.len() - before);
    }
}

/// Adds a tensor to its place, which shows the worst it holds.
fn add<'a>(cells: &mut BTreeMap<u64, Cell<'a>>, layer: u64, row: &'a TensorRow, state: State) {
    let found = sqnr(row);
    let cell = cells.entry(layer).or_insert(Cell { worst: row, sqnr: found, state, count: 0 });
    cell.count += 1;
    let worse = found.is_nan() && !cell.sqnr.is_nan() || found < cell.sqnr;
    if state > cell.state || state == cell.state && worse {
        (cell.worst, cell.sqnr, cell.state) = (row, found, state);
    }
}

fn map(
    page: &mut String,
    stack: Option<&str>,
    layers: &[u64],
    roles: &BTreeMap<String, BTreeMap<u64, Cell>>,
    end: usize,
) {
    let caption = match stack {
        Some(stack) => format!("SQNR in dB: tensors of <code>{}</code> by layer", esc(stack)),
        None => "SQNR in dB: tensors outside the layers".to_owned(),
    };
    let label = if stack.is_some() { "heat map by layer" } else { "heat map outside the layers" };
    let shown_layers = layers.len().min(LAYERS);
    let dense = if shown_layers >= DENSE { " dense" } else { "" };
    let _ = write!(
        page,
        "<p class=\"of\">{caption}</p><div class=\"scroll\" role=\"region\" tabindex=\"0\" \
         aria-label=\"{label}\"><table class=\"heat{dense}\"><thead><tr><th scope=\"col\">role</th>"
    );
    for (at, layer) in layers.iter().take(LAYERS).enumerate() {
        let heading = match stack {
            None => "dB".to_owned(),
            Some(_) if !dense.is_empty() && at % NAMED > 0 => String::new(),
            Some(_) => layer.to_string(),
        };
        let _ = write!(page, "<th scope=\"col\">{heading}</th>");
    }
    page.push_str("</tr></thead><tbody>\n");
    let mut shown_roles = 0;
    for (role, cells) in roles.iter().take(ROLES) {
        if page.len() > end {
            break;
        }
        shown_roles += 1;
        let _ = write!(page, "<tr><th scope=\"row\"><span>{}</span></th>", esc(role));
        for layer in layers.iter().take(LAYERS) {
            match cells.get(layer) {
                Some(cell) => shown(page, cell),
                None => page.push_str("<td></td>"),
            }
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div>\n");
    super::markup::left_out(page, roles.len() - shown_roles, "role", "report.tsv");
    super::markup::left_out(page, layers.len() - shown_layers, "layer", "report.tsv");
}

fn shown(page: &mut String, cell: &Cell) {
    let row = cell.worst;
    let step = STEPS.iter().position(|&least| cell.sqnr >= least).unwrap_or(STEPS.len());
    let (class, text) = match cell.sqnr {
        sqnr if sqnr.is_nan() => ("hx".to_owned(), "!".to_owned()),
        f64::INFINITY => ("he".to_owned(), "=".to_owned()),
        // Plus zero, for a minus before a zero says nothing.
        sqnr => (format!("h{step}"), (sqnr.round() + 0.0).to_string()),
    };
    let mark = match cell.state {
        State::Failed | State::Error => " bad",
        State::Warned => " warn",
        _ => "",
    };
    let others = if cell.count > 1 { format!(" (worst of {})", cell.count) } else { String::new() };
    let _ = write!(
        page,
        "<td class=\"{class}{mark}\" title=\"{}, {}: SQNR {}, {}{others}\">{text}</td>",
        esc(&row.tensor),
        esc(&row.qtype),
        numbers::db(cell.sqnr),
        cell.state.class(),
    );
}

/// What the colours mean.
pub fn legend(page: &mut String) {
    page.push_str("<p class=\"legend\"><span>SQNR in dB:</span>");
    for step in (0..=STEPS.len()).rev() {
        let words = match (STEPS.get(step), step.checked_sub(1).and_then(|at| STEPS.get(at))) {
            (None, Some(most)) => format!("below {most}"),
            (Some(least), Some(most)) => format!("{least}–{most}"),
            (Some(least), None) => format!("{least} or more"),
            (None, None) => continue,
        };
        let _ = write!(page, "<span class=\"h{step}\">{words}</span>");
    }
    page.push_str(
        "<span class=\"he\">= no error</span><span class=\"hx\">! not a number</span>\
         <span class=\"key bad\">failed</span><span class=\"key warn\">warned</span></p>\n",
    );
}
