/*!
Error against bits: every tensor and every pair of the run, and the line that no code beats on
Gaussian weights.
*/

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::heat_map::sqnr;
use super::markup::{State, esc};
use crate::metrics::{DB_PER_BIT, rate_distortion_gap};
use crate::report::located::pairs;
use crate::report::numbers;
use crate::suite::record::{Contract, PairRecord, TensorRow};

/// Size of the drawing, and of its margins.
const SIZE: (f64, f64) = (840.0, 420.0);
const LEFT: f64 = 56.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 48.0;

/// Pairs that are named in the drawing; more of them get their numbers alone.
const NAMED: usize = 20;

/// A point to draw.
struct Point {
    bits: f64,
    sqnr: f64,
}

impl Point {
    fn of_tensor(row: &TensorRow) -> Option<Self> {
        Self::new(row.bits_per_weight.0, sqnr(row))
    }

    fn of_pair(pair: &PairRecord) -> Option<Self> {
        let metrics = pair.global.as_ref()?.metrics()?;
        Self::new(pair.quantized.as_ref()?.bits_per_weight.0, metrics.sqnr_db)
    }

    /// What has no place in the drawing (no error, no number) has none.
    fn new(bits: f64, sqnr: f64) -> Option<Self> {
        (sqnr.is_finite() && bits.is_finite() && bits > 0.0).then_some(Self { bits, sqnr })
    }
}

/// The scales of both axes.
struct Axes {
    bits: f64,
    low: f64,
    high: f64,
}

impl Axes {
    fn around(points: &[Point]) -> Self {
        let most = |value: fn(&Point) -> f64| points.iter().map(value).fold(0.0, f64::max);
        let least = points.iter().map(|it| it.sqnr).fold(0.0, f64::min);
        let round_up = |value: f64, step: f64| (value / step).ceil() * step;
        Self {
            bits: round_up(most(|it| it.bits) + 0.5, 2.0).clamp(4.0, 64.0),
            // What is worse than noise of the weights' own size sits at the edge.
            low: -round_up(-least, 10.0).clamp(0.0, 20.0),
            high: round_up(most(|it| it.sqnr) + 4.0, 10.0).clamp(20.0, 200.0),
        }
    }

    fn x(&self, bits: f64) -> f64 {
        LEFT + (bits / self.bits).clamp(0.0, 1.0) * (SIZE.0 - LEFT - RIGHT)
    }

    fn y(&self, sqnr: f64) -> f64 {
        let part = ((sqnr - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        SIZE.1 - BOTTOM - part * (SIZE.1 - TOP - BOTTOM)
    }
}

/// Draws the run; `state` knows what a tensor's test came to.
pub fn plot(page: &mut String, contract: &Contract, state: impl Fn(&PairRecord, &str) -> State) {
    let tensors: Vec<(&PairRecord, &TensorRow, Point)> = pairs(contract)
        .flat_map(|(_, pair)| pair.tensors.iter().map(move |row| (pair, row)))
        .filter_map(|(pair, row)| Some((pair, row, Point::of_tensor(row)?)))
        .collect();
    let wholes: Vec<(usize, &PairRecord, Point)> = pairs(contract)
        .enumerate()
        .filter_map(|(at, (_, pair))| Some((at + 1, pair, Point::of_pair(pair)?)))
        .collect();
    if tensors.is_empty() {
        return;
    }
    let mut all: Vec<Point> = Vec::new();
    for point in tensors.iter().map(|it| &it.2).chain(wholes.iter().map(|it| &it.2)) {
        all.push(Point { ..*point });
    }
    let axes = Axes::around(&all);
    let _ = writeln!(
        page,
        "<section aria-labelledby=\"bits\"><h2 id=\"bits\">Error against bits</h2>\n\
         <p>Each dot is a tensor, each diamond a whole pair. Higher is better, further left is \
         smaller. The line is the rate–distortion limit for Gaussian weights, {DB_PER_BIT:.2} dB a \
         bit: the distance below it is what a better code could gain.</p>\n\
         <div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"Error against bits\">\
         <svg class=\"plot\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"SQNR in dB over bits \
         per weight; the table of pairs has the numbers\">",
        SIZE.0, SIZE.1
    );
    grid(page, &axes);
    dots(page, &axes, &tensors, state);
    diamonds(page, &axes, &wholes);
    page.push_str("</svg></div></section>\n");
}

/// Axes, their ticks, and the limit.
fn grid(page: &mut String, axes: &Axes) {
    let (left, right) = (axes.x(0.0), axes.x(axes.bits));
    let (top, bottom) = (axes.y(axes.high), axes.y(axes.low));
    let step = if axes.bits > 20.0 { 4.0 } else { 2.0 };
    let mut bits = 0.0;
    while bits <= axes.bits {
        let x = axes.x(bits);
        let _ = writeln!(
            page,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{bits}</text>",
            bottom + 18.0
        );
        bits += step;
    }
    let step = if axes.high - axes.low > 80.0 { 20.0 } else { 10.0 };
    let mut db = axes.low;
    while db <= axes.high {
        let y = axes.y(db);
        let _ = writeln!(
            page,
            "<line class=\"grid\" x1=\"{left:.1}\" y1=\"{y:.1}\" x2=\"{right:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{db}</text>",
            left - 8.0,
            y + 4.0
        );
        db += step;
    }
    // The line ends where it leaves the drawing.
    let end = axes.bits.min(axes.high / DB_PER_BIT);
    let (x, y) = (axes.x(end), axes.y(end * DB_PER_BIT));
    let _ = writeln!(
        page,
        "<line class=\"limit\" x1=\"{left:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{y:.1}\"/>\
         <text class=\"limit\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">rate–distortion limit</text>\n\
         <text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">bits per weight</text>\
         <text class=\"axis\" transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">\
         SQNR, dB</text>",
        axes.y(0.0),
        x - 34.0,
        y + 14.0,
        f64::midpoint(left, right),
        SIZE.1 - 8.0,
        f64::midpoint(top, bottom),
    );
}

/// One dot a place: tensors that fall on one another are one dot, the worst of them.
fn dots(
    page: &mut String,
    axes: &Axes,
    tensors: &[(&PairRecord, &TensorRow, Point)],
    state: impl Fn(&PairRecord, &str) -> State,
) {
    let mut places: BTreeMap<(State, i64, i64), (usize, usize)> = BTreeMap::new();
    for (at, (pair, row, point)) in tensors.iter().enumerate() {
        let near = |value: f64| (value * 0.5).round() as i64;
        let key = (state(pair, &row.tensor), near(axes.x(point.bits)), near(axes.y(point.sqnr)));
        places.entry(key).or_insert((at, 0)).1 += 1;
    }
    // In the order of states: the worst are drawn last and lie on top.
    for ((state, ..), (at, count)) in places {
        let (pair, row, point) = &tensors[at];
        let others = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        let _ = writeln!(
            page,
            "<circle class=\"{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"><title>{} in {}, {}: {} at {} \
             bits, {}{others}</title></circle>",
            state.class(),
            axes.x(point.bits),
            axes.y(point.sqnr),
            esc(&row.tensor),
            esc(&pair.id),
            esc(&row.qtype),
            numbers::db(point.sqnr),
            numbers::bits(point.bits),
            state.class(),
        );
    }
}

/// The pairs, with their names if they are few, else with their numbers in the table of pairs.
fn diamonds(page: &mut String, axes: &Axes, wholes: &[(usize, &PairRecord, Point)]) {
    let mut order: Vec<&(usize, &PairRecord, Point)> = wholes.iter().collect();
    order.sort_by(|a, b| b.2.sqnr.total_cmp(&a.2.sqnr).then(a.0.cmp(&b.0)));
    let named = wholes.len() <= NAMED;
    // Labels stand in one column at the right, in the order of their diamonds, and keep apart.
    let mut lowest = TOP - 4.0;
    for (number, pair, point) in order {
        let (x, y) = (axes.x(point.bits), axes.y(point.sqnr));
        let _ = write!(
            page,
            "<path class=\"pair\" d=\"M{x:.1} {:.1}l6 7l-6 7l-6 -7z\"><title>{}: {} at {} bits, {} \
             from the limit</title></path>",
            y - 7.0,
            esc(&pair.id),
            numbers::db(point.sqnr),
            numbers::bits(point.bits),
            numbers::db(rate_distortion_gap(point.bits, point.sqnr)),
        );
        if named {
            let line = (lowest + 15.0).max(y + 4.0).min(SIZE.1 - 4.0);
            lowest = line;
            let at = SIZE.0 - RIGHT + 14.0;
            let _ = writeln!(
                page,
                "<path class=\"lead\" d=\"M{:.1} {y:.1}L{:.1} {:.1}\"/>\
                 <text class=\"name\" x=\"{at:.1}\" y=\"{line:.1}\">{}</text>",
                x + 7.0,
                at - 4.0,
                line - 4.0,
                esc(&shortened(&pair.name)),
            );
        } else {
            let _ = writeln!(
                page,
                "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{number}</text>",
                x + 9.0,
                y + 4.0
            );
        }
    }
}

/// A name that fits beside the drawing.
fn shortened(name: &str) -> String {
    const MOST: usize = 18;
    if name.chars().count() <= MOST {
        return name.to_owned();
    }
    name.chars().take(MOST - 1).chain(['…']).collect()
}
