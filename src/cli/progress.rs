/*!
A line on the terminal that says how far a run is, how fast, and how long it will take.

It is drawn on standard error while a pair or a model is read, and gone before anything else is printed. Where
no terminal is, nothing is drawn.
*/

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::streams;
use crate::baseline::in_ci;
use crate::measure::Progress;
use crate::report::{numbers, sample_line};
use crate::shown::one_line;
use crate::suite::Listener;
use crate::suite::plan::{Plan, PlannedPair};
use crate::suite::record::{PairRecord, SampleRecord, TestRecord};

/// How often the line is drawn; a run that is over before the first time shows none.
const PERIOD: Duration = Duration::from_millis(150);
/// Columns of a terminal that does not say, and fewer than are believed.
const COLUMNS: usize = 80;
const LEAST_COLUMNS: usize = 20;

/// The line, and the thread that draws it.
pub struct Bar {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    progress: Arc<Progress>,
    state: Mutex<State>,
    wake: Condvar,
}

/// What the line is made from.
struct State {
    started: Instant,
    over: bool,
    /// The pair that is measured, if one is.
    pair: Option<String>,
    number: usize,
    pairs: usize,
    /// Weights of the pair, of those before it, and of all.
    weight: u64,
    before: u64,
    all: u64,
    /// Bytes measured in the pairs before.
    read: u64,
    drawn: bool,
}

impl Bar {
    /// A line for the pairs of a plan.
    pub fn of_plan(plan: &Plan) -> Option<Self> {
        Self::new(plan.pairs.len(), plan.pairs.iter().map(weight).sum())
    }

    /// A line for so many pairs or models, and their weight together, if standard error is a terminal that can
    /// be drawn on.
    pub fn new(pairs: usize, all: u64) -> Option<Self> {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let ci = in_ci(std::env::var_os::<&'static str>);
        (io::stderr().is_terminal() && !dumb && !ci).then(|| Self::start(pairs, all))
    }

    fn start(pairs: usize, all: u64) -> Self {
        let state = State {
            started: Instant::now(),
            over: false,
            pair: None,
            number: 0,
            pairs,
            weight: 0,
            before: 0,
            all,
            read: 0,
            drawn: false,
        };
        let shared = Arc::new(Shared {
            progress: Arc::default(),
            state: Mutex::new(state),
            wake: Condvar::new(),
        });
        let thread = {
            let shared = shared.clone();
            std::thread::Builder::new().name("progress".to_owned()).spawn(move || shared.draw())
        };
        Self { shared, thread: thread.ok() }
    }

    /// What the measuring threads count in.
    pub fn progress(&self) -> Arc<Progress> {
        self.shared.progress.clone()
    }

    /// A pair's turn has come.
    pub fn begin(&self, pair: &PlannedPair) {
        self.turn(&pair.id, weight(pair));
    }

    fn turn(&self, name: &str, weight: u64) {
        let mut state = self.shared.lock();
        state.number += 1;
        state.pair = Some(one_line(name).into_owned());
        state.weight = weight;
    }

    /// Does work on a model of weight 1 under a line, if there is one.
    pub fn over<T>(bar: Option<&Self>, path: &Path, work: impl FnOnce(&Progress) -> T) -> T {
        let Some(bar) = bar else { return work(&Progress::default()) };
        bar.turn(&path.to_string_lossy(), 1);
        let done = work(&bar.shared.progress);
        bar.end();
        done
    }

    /// Does work on one model under a line of its own.
    pub fn single<T>(path: &Path, work: impl FnOnce(&Progress) -> T) -> T {
        Self::over(Self::new(1, 1).as_ref(), path, work)
    }

    /// The pair is measured: the line goes, so that its results can be printed.
    pub fn end(&self) {
        let mut state = self.shared.lock();
        if state.pair.take().is_some() {
            state.before += state.weight;
            state.read += self.shared.progress.bytes.swap(0, Ordering::Relaxed);
        }
        clear(&mut state);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to draw.
            let _ = thread.join();
        }
    }
}

/// Draws how far the work is, where a terminal is.
pub struct Watching<'a>(pub Option<&'a Bar>);

impl Listener for Watching<'_> {
    fn pair(&mut self, pair: &PlannedPair) {
        if let Some(bar) = self.0 {
            bar.begin(pair);
        }
    }

    fn sample(&self, sample: &SampleRecord) {
        streams::tell(format_args!("{}", sample_line(sample)));
    }

    fn pair_done(&mut self, _: &PairRecord) {
        if let Some(bar) = self.0 {
            bar.end();
        }
    }

    fn progress(&self) -> Arc<Progress> {
        self.0.map_or_else(Arc::default, Bar::progress)
    }
}

/// Draws how far a run of a plan is.
pub fn watched(plan: &Plan, run: &mut dyn FnMut(&mut dyn Listener)) {
    let bar = Bar::of_plan(plan);
    run(&mut Watching(bar.as_ref()));
}

/// A listener whose words the line makes way for.
pub struct Watched<'a, L> {
    listener: &'a mut L,
    bar: Option<&'a Bar>,
}

impl<'a, L: Listener + Write> Watched<'a, L> {
    /// With no line, it is the listener alone.
    pub fn new(listener: &'a mut L, bar: Option<&'a Bar>) -> Self {
        Self { listener, bar }
    }
}

impl<L: Listener + Write> Listener for Watched<'_, L> {
    fn pair(&mut self, pair: &PlannedPair) {
        self.listener.pair(pair);
        if let Some(bar) = self.bar {
            bar.begin(pair);
        }
    }

    fn test(&mut self, test: &TestRecord) {
        if let Some(bar) = self.bar {
            bar.end();
        }
        self.listener.test(test);
    }

    fn pair_done(&mut self, pair: &PairRecord) {
        if let Some(bar) = self.bar {
            bar.end();
        }
        self.listener.pair_done(pair);
        if self.bar.is_some() {
            // Whoever watches wants to see results as they come; a failure shows at the end.
            let _ = self.listener.flush();
        }
    }

    fn progress(&self) -> Arc<Progress> {
        self.bar.map_or_else(Arc::default, Bar::progress)
    }
}

/// Stored bytes of the reference's selected tensors: what a pair's share of the run goes by.
fn weight(pair: &PlannedPair) -> u64 {
    pair.tests.iter().map(|test| test.bytes).sum::<u64>().max(1)
}

fn clear(state: &mut State) {
    if std::mem::take(&mut state.drawn) {
        let mut out = streams::raw_err();
        let _ = out.write_all(b"\r\x1b[K").and_then(|()| out.flush());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws until the run is over.
    fn draw(&self) {
        let mut state = self.lock();
        while !state.over {
            state = self.wake.wait_timeout(state, PERIOD).unwrap_or_else(PoisonError::into_inner).0;
            let elapsed = state.started.elapsed().as_secs_f64();
            let bytes = self.progress.bytes.load(Ordering::Relaxed);
            let total = self.progress.total.load(Ordering::Relaxed);
            if let Some(line) = line(&state, bytes, total, elapsed) {
                let line: String = line.chars().take(columns() - 1).collect();
                let mut out = streams::raw_err();
                state.drawn = write!(out, "\r\x1b[K{line}").and_then(|()| out.flush()).is_ok();
            }
        }
        clear(&mut state);
    }
}

/// How wide the terminal is now; its user may change that.
fn columns() -> usize {
    let width =
        terminal_size::terminal_size_of(io::stderr()).map(|(width, _)| usize::from(width.0));
    let said = || std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    width.filter(|width| *width > 0).or_else(said).unwrap_or(COLUMNS).max(LEAST_COLUMNS)
}

/// `3/14  21%  1.2 GiB/s  12 s left  s::p`; nothing while no pair is measured. Of one, there is nothing to count.
fn line(state: &State, bytes: u64, total: u64, elapsed: f64) -> Option<String> {
    let pair = state.pair.as_ref()?;
    let share = if total > 0 { (bytes as f64 / total as f64).min(1.0) } else { 0.0 };
    let done = (state.before as f64 + share * state.weight as f64) / state.all.max(1) as f64;
    let rate = (state.read + bytes) as f64 / elapsed.max(1e-3);
    let left = if done > 0.0 {
        format!("{} left", duration(elapsed * (1.0 - done) / done))
    } else {
        "? left".to_owned()
    };
    let number = match state.pairs {
        1 => String::new(),
        pairs => format!("{}/{pairs}  ", state.number),
    };
    let rate = numbers::bytes(rate as u64);
    Some(format!("{number}{:.0}%  {rate}/s  {left}  {pair}", done * 100.0))
}

/// Whole seconds or minutes: the estimate is no better.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_share_rate_and_time_left() {
        let state = |pair: Option<&str>, before, read| State {
            started: Instant::now(),
            over: false,
            pair: pair.map(str::to_owned),
            number: 2,
            pairs: 4,
            weight: 100,
            before,
            all: 400,
            read,
            drawn: false,
        };
        for (state, bytes, total, elapsed, expected, why) in [
            (state(None, 0, 0), 0, 0, 1.0, None, "nothing is measured"),
            (
                state(Some("s::p"), 0, 0),
                0,
                0,
                1.0,
                Some("2/4  0%  0 B/s  ? left  s::p"),
                "no guess",
            ),
            (
                state(Some("s::p"), 100, 1 << 20),
                1 << 20,
                2 << 20,
                2.0,
                Some("2/4  38%  1.0 MiB/s  3 s left  s::p"),
                "a pair and a half of four",
            ),
            (
                state(Some("s::p"), 0, 0),
                1,
                100,
                60.0,
                Some("2/4  0%  0 B/s  6 h 39 min left  s::p"),
                "long",
            ),
        ] {
            assert_eq!(line(&state, bytes, total, elapsed).as_deref(), expected, "{why}");
        }
    }
}
