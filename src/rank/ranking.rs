/*!
The ranking: what is shown of each model, in the order of expected damage.
*/

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use super::front::front;
use super::order::{Level, Order, anchored, level, order};
use super::score::{Input, Score, score};
use crate::suite::record::{GlobalRow, PairRecord, TensorRow};

/// A judged pair that is to be ranked.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// What it is called, unique among the subjects.
    pub name: &'a str,
    /// What was measured.
    pub pair: &'a PairRecord,
    /// `healthy`, `damaged` or `unreadable`.
    pub verdict: &'static str,
    /// What is wrong with it, worst first.
    pub findings: &'a [&'a str],
    /// Whether its file says that an importance matrix was used.
    pub calibrated: bool,
}

/// A model whose KLD is known.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    /// Its place among the subjects.
    pub subject: usize,
    /// In nats, mean over tokens, against the unquantized model.
    pub kld: f64,
}

/// How much of a model is stored in a type.
#[derive(Clone, Debug)]
pub struct TypeShare {
    /// Type or scheme.
    pub qtype: String,
    /// Tensors.
    pub tensors: u64,
    /// Stored bytes.
    pub bytes: u64,
}

/// The tensor with the lowest SQNR.
#[derive(Clone, Debug)]
pub struct WorstTensor {
    /// Its name.
    pub tensor: String,
    /// Its type.
    pub qtype: String,
    /// Its SQNR.
    pub sqnr_db: f64,
}

/// Something of a model that its types do not explain.
#[derive(Clone, Debug)]
pub struct Outlier {
    /// The model's place in the ranking.
    pub model: usize,
    /// In words.
    pub message: String,
}

/// One model.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// Its place among the subjects.
    pub subject: usize,
    /// What it is called.
    pub name: String,
    /// `healthy`, `damaged` or `unreadable`.
    pub verdict: &'static str,
    /// How much is wrong with it.
    pub findings: usize,
    /// The first of it.
    pub first_finding: Option<String>,
    /// Size of its files.
    pub bytes: Option<u64>,
    /// Stored bits per weight.
    pub bits_per_weight: f64,
    /// What it is stored in, the most bytes first.
    pub types: Vec<TypeShare>,
    /// SQNR of all float tensors as one vector; infinite without an error.
    pub sqnr_db: f64,
    /// Its worst tensor.
    pub worst: Option<WorstTensor>,
    /// Distance from the rate-distortion limit in dB; NaN without an error.
    pub rd_gap_db: f64,
    /// Whether an importance matrix was used, as far as the file says.
    pub calibrated: bool,
    /// The expected damage, or why there is none.
    pub score: Result<Score, String>,
    /// The level of KLD to expect.
    pub level: Option<Level>,
}

/// Many quantized models of one reference, the least expected damage first.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// The models in order.
    pub models: Vec<Ranked>,
    /// Places of the models on the front of size against quality, the smallest first.
    pub front: Vec<usize>,
    /// What is odd.
    pub outliers: Vec<Outlier>,
    /// The model whose KLD is known, by its place in the ranking, and that KLD.
    pub anchor: Option<(usize, f64)>,
    /// What limits the comparison.
    pub notes: Vec<String>,
}

impl Ranking {
    /// Ranks judged pairs of one reference.
    pub fn of(subjects: &[Subject], anchor: Option<Anchor>) -> Self {
        let ranked = subjects.iter().enumerate().map(|(at, subject)| Ranked::of(at, subject));
        let mut models: Vec<Ranked> = ranked.collect();
        models.sort_by(by_damage);
        let place = |subject: usize| models.iter().position(|it| it.subject == subject);
        let anchor = anchor.and_then(|it| Some((place(it.subject)?, it.kld)));
        let mut notes = Vec::new();
        let of_anchor =
            anchor.and_then(|(at, kld)| Some((models[at].score.as_ref().ok()?.clone(), kld)));
        for model in &mut models {
            let Ok(score) = &model.score else { continue };
            model.level = match &of_anchor {
                Some((of_anchor, kld)) => anchored(score, of_anchor, *kld),
                None => level(score),
            };
        }
        if let Some((at, _)) = anchor.filter(|(at, _)| models[*at].level.is_none()) {
            let name = &models[at].name;
            notes.push(format!(
                "{name} cannot be an anchor: its score is not between 0.01 and 0.5, or a type of its is not \
                 in the evidence"
            ));
        }
        let reference = subjects.iter().find_map(|subject| subject.pair.reference.as_ref());
        if let Some(reference) = reference.filter(|it| it.bits_per_weight.0 < LEAST_REFERENCE_BITS)
        {
            notes.push(format!(
                "the reference itself has {:.2} bits per weight: what was lost before it does not show",
                reference.bits_per_weight.0
            ));
        }
        let front = front(&choices(&models));
        let outliers = outliers(subjects, &models, &front);
        Self { models, front, outliers, anchor, notes }
    }

    /// How sure it is that the first of two places is better than the second; `None` without scores.
    pub fn order(&self, better: usize, worse: usize) -> Option<Order> {
        let (better, worse) = (self.models.get(better)?, self.models.get(worse)?);
        let scores = better.score.as_ref().ok().zip(worse.score.as_ref().ok())?;
        Some(order(scores.0, scores.1, [better.calibrated, worse.calibrated]))
    }
}

/// References below are quantized themselves.
const LEAST_REFERENCE_BITS: f64 = 12.0;

/// What stands for a model's damage: its score; where one of the models has none, the relative error of all.
fn choices(models: &[Ranked]) -> Vec<Option<(u64, f64)>> {
    let healthy = |it: &&Ranked| it.verdict == "healthy";
    let scored = models.iter().filter(healthy).all(|it| it.score.is_ok());
    let damage = |model: &Ranked| match &model.score {
        Ok(score) if scored => score.value,
        _ => -model.sqnr_db,
    };
    models
        .iter()
        .map(|it| Some(it).filter(healthy).and_then(|it| Some((it.bytes?, damage(it)))))
        .collect()
}

/// Scores first, then errors; what cannot be read comes last.
fn by_damage(a: &Ranked, b: &Ranked) -> Ordering {
    let class = |it: &Ranked| match (&it.score, it.verdict) {
        (_, "unreadable") => 2,
        (Ok(_), _) => 0,
        (Err(_), _) => 1,
    };
    let score = |it: &Ranked| it.score.as_ref().map_or(0.0, |score| score.value);
    class(a)
        .cmp(&class(b))
        .then_with(|| score(a).total_cmp(&score(b)))
        .then_with(|| b.sqnr_db.total_cmp(&a.sqnr_db))
        .then_with(|| a.subject.cmp(&b.subject))
}

impl Ranked {
    fn of(at: usize, subject: &Subject) -> Self {
        let pair = subject.pair;
        let inputs: Vec<Input> = pair.tensors.iter().map(input).collect();
        let metrics = pair.global.as_ref().and_then(GlobalRow::metrics);
        let quantized = pair.quantized.as_ref();
        Self {
            subject: at,
            name: subject.name.to_owned(),
            verdict: subject.verdict,
            findings: subject.findings.len(),
            first_finding: subject.findings.first().map(|it| (*it).to_owned()),
            bytes: quantized.map(|model| model.files.iter().map(|file| file.size).sum()),
            bits_per_weight: quantized.map_or(f64::NAN, |model| model.bits_per_weight.0),
            types: types(&pair.tensors),
            sqnr_db: metrics.map_or(f64::NAN, |metrics| metrics.sqnr_db),
            worst: worst(&pair.tensors),
            rd_gap_db: pair.global.as_ref().map_or(f64::NAN, |global| global.rd_gap_db.0),
            calibrated: subject.calibrated,
            score: comparable(pair).and_then(|()| score(&inputs)),
            level: None,
        }
    }
}

/// A model that lacks tensors would lose less than one that has them all: such a pair has no score.
fn comparable(pair: &PairRecord) -> Result<(), String> {
    if pair.error.is_some() {
        return Err("the pair could not be read".to_owned());
    }
    let lacks = |kind: &str| matches!(kind, "missing" | "shape" | "type");
    match pair.findings.iter().find(|finding| !finding.allowed && lacks(&finding.kind)) {
        Some(finding) => Err(format!("{}: {}", finding.tensor, finding.message)),
        None => Ok(()),
    }
}

fn input(row: &TensorRow) -> Input<'_> {
    let finite = row.sums.as_ref().filter(|_| row.nonfinite == 0);
    Input {
        tensor: &row.tensor,
        qtype: &row.qtype,
        shape: &row.shape,
        sums: finite.map(|sums| (sums.ee.0, sums.rr.0)),
    }
}

fn types(rows: &[TensorRow]) -> Vec<TypeShare> {
    let mut types: BTreeMap<&str, TypeShare> = BTreeMap::new();
    for row in rows {
        let share = || TypeShare { qtype: row.qtype.clone(), tensors: 0, bytes: 0 };
        let share = types.entry(&row.qtype).or_insert_with(share);
        share.tensors += 1;
        share.bytes = share.bytes.saturating_add(row.stored_bytes);
    }
    let mut types: Vec<TypeShare> = types.into_values().collect();
    types.sort_by_key(|share| Reverse(share.bytes));
    types
}

fn worst(rows: &[TensorRow]) -> Option<WorstTensor> {
    let values = rows.iter().filter_map(|row| Some((row, row.metrics()?.sqnr_db)));
    let (row, sqnr_db) =
        values.min_by(|a, b| a.1.total_cmp(&b.1).then(a.0.tensor.cmp(&b.0.tensor)))?;
    let (tensor, qtype) = (row.tensor.clone(), row.qtype.clone());
    Some(WorstTensor { tensor, qtype, sqnr_db })
}

/// From this on, a tensor is below what its type gives: twice the error's energy.
const SHORTFALL_DB: f64 = 3.0;

fn outliers(subjects: &[Subject], models: &[Ranked], front: &[usize]) -> Vec<Outlier> {
    let mut outliers = Vec::new();
    for (at, model) in models.iter().enumerate() {
        let mut say = |message: String| outliers.push(Outlier { model: at, message });
        shortfalls(&subjects[model.subject].pair.tensors).into_iter().for_each(&mut say);
        if let Ok(score) = &model.score {
            of_score(score).into_iter().for_each(&mut say);
        }
        dominated(models, front, at).into_iter().for_each(&mut say);
    }
    outliers
}

/// Types that give less than they do on sound weights of this reference, one line a type.
fn shortfalls(rows: &[TensorRow]) -> Vec<String> {
    /// How many tensors there are of a type, and those that are short, with the dB that they lack.
    #[derive(Default)]
    struct OfType<'a> {
        all: usize,
        short: Vec<(f64, &'a str)>,
    }
    let mut by_type: BTreeMap<&str, OfType> = BTreeMap::new();
    for row in rows {
        let expected = row.expected_sqnr_db.0;
        let Some(metrics) = row.metrics().filter(|_| expected.is_finite()) else { continue };
        let of_type = by_type.entry(&row.qtype).or_default();
        of_type.all += 1;
        let shortfall = expected - metrics.sqnr_db;
        if shortfall >= SHORTFALL_DB {
            of_type.short.push((shortfall, &row.tensor));
        }
    }
    let line = |(qtype, OfType { all, short }): (&str, OfType)| {
        let (most, worst) = short.iter().copied().max_by(|a, b| a.0.total_cmp(&b.0))?;
        Some(match (short.len(), all) {
            (1, 1) => format!("{qtype} is {most:.1} dB below what the type gives here ({worst})"),
            (some, all) => format!(
                "{qtype} is up to {most:.1} dB below what the type gives here, in {some} of {all} tensors \
                 (most: {worst})"
            ),
        })
    };
    by_type.into_iter().filter_map(line).collect()
}

/// What the score had to take from the pair because the type alone does not explain it.
fn of_score(score: &Score) -> Vec<String> {
    let mut lines = Vec::new();
    let more =
        |names: usize| if names > 1 { format!(" and {} more", names - 1) } else { String::new() };
    if let Some(first) = score.worse_than_zero.first() {
        lines.push(format!(
            "worse than zeroing the tensor: {first}{}",
            more(score.worse_than_zero.len())
        ));
    }
    if let Some(fault) = score.faults.first() {
        lines.push(format!(
            "the error of {} is {:.1} times what {} gives on Gaussian weights{}; the score counts it as measured",
            fault.tensor,
            fault.measured / fault.nominal,
            fault.qtype,
            match score.faults.len() {
                1 => String::new(),
                all => format!(", the furthest off of {all} tensors"),
            }
        ));
    }
    lines
}

/// A healthy model that another one beats in size and quality.
fn dominated(models: &[Ranked], front: &[usize], at: usize) -> Option<String> {
    let model = models.get(at).filter(|it| it.verdict == "healthy" && !front.contains(&at))?;
    let mine = model.score.as_ref().ok()?;
    let better = front.iter().filter_map(|other| models.get(*other));
    let mut better =
        better.filter(|it| it.bytes.zip(model.bytes).is_some_and(|(it, mine)| it <= mine));
    let sure = |it: &&Ranked| {
        let Ok(score) = &it.score else { return false };
        order(score, mine, [it.calibrated, model.calibrated]).confidence
            >= super::Confidence::Likely
    };
    let better = better.rfind(sure)?;
    Some(format!("{} is no larger and loses less", better.name))
}
