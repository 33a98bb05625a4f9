/*! `qualm rank REF QUANT…`: one table for many quantized models of a reference. */

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{AnchorArg, RankArgs};
use super::progress::watched;
use super::{Failure, streams};
use crate::model;
use crate::pairs::{self, Judged, Object, Request};
use crate::rank::{Anchor, CREDIT, NOT_CLAIMED, Outlier, Ranked, Ranking, RoleShare, Subject};
use crate::report;
use crate::suite::exit::Exit;
use crate::suite::record::Number;

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    reference: String,
    /// The least expected damage first.
    models: Vec<Entry<'a>>,
    /// Names of the models on the front of size against quality, the smallest first.
    front: Vec<&'a str>,
    /// How sure the order of each two models is.
    orders: Vec<OrderEntry<'a>>,
    outliers: Vec<OutlierEntry<'a>>,
    notes: &'a [String],
    /// The ranking for a model card.
    markdown: &'a str,
    not_claimed: &'a [&'a str],
    credit: &'a str,
}

/// A model: what `check --json` says of it, and what the ranking adds.
#[derive(Serialize)]
struct Entry<'a> {
    rank: usize,
    name: &'a str,
    #[serde(flatten)]
    judged: Object<'a>,
    size_bytes: Option<u64>,
    bits_per_weight: Number,
    sqnr_db: Number,
    rd_gap_db: Number,
    imatrix: bool,
    types: Vec<TypeEntry<'a>>,
    worst_tensor: Option<WorstEntry<'a>>,
    score: Option<ScoreEntry<'a>>,
    /// Why there is no score.
    no_score: Option<&'a str>,
}

#[derive(Serialize)]
struct TypeEntry<'a> {
    qtype: &'a str,
    tensors: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct WorstEntry<'a> {
    tensor: &'a str,
    qtype: &'a str,
    sqnr_db: Number,
}

#[derive(Serialize)]
struct ScoreEntry<'a> {
    value: f64,
    zone: &'a str,
    basis: &'a str,
    evidence: bool,
    layers: u64,
    roles: Vec<RoleEntry<'a>>,
    /// The level of KLD, in nats; none where it is not known.
    kld: Option<KldEntry<'a>>,
}

#[derive(Serialize)]
struct RoleEntry<'a> {
    role: &'a str,
    tensors: u64,
    contribution: f64,
    share: f64,
}

#[derive(Serialize)]
struct KldEntry<'a> {
    /// `anchor`, or `typical`: the median over other models.
    from: &'a str,
    estimate: f64,
    low: f64,
    high: f64,
}

#[derive(Serialize)]
struct OrderEntry<'a> {
    better: &'a str,
    worse: &'a str,
    ratio: Number,
    confidence: &'a str,
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct OutlierEntry<'a> {
    model: &'a str,
    message: &'a str,
}

/// Ranks models; exits as `check` does.
pub fn run(args: &RankArgs) -> Result<Exit, Failure> {
    let names = names(&args.quantized)?;
    let anchor = args.anchor.as_ref().map(|anchor| find(anchor, &names, &args.quantized));
    let anchor = anchor.transpose()?;
    let judged = pairs::judge(
        &Request { qtype: &args.qtype, ..args.reading.request(&args.reference, &args.quantized) },
        &watched,
    )?;
    let messages: Vec<Vec<&str>> = judged
        .iter()
        .map(|it| it.findings.iter().map(|it| it.message.as_str()).collect())
        .collect();
    let subjects: Vec<Subject> = judged
        .iter()
        .zip(&names)
        .zip(&messages)
        .map(|((one, name), findings)| Subject {
            name,
            pair: &one.pair,
            verdict: one.verdict(),
            findings,
            calibrated: calibrated(&one.quantized),
        })
        .collect();
    let ranking = Ranking::of(&subjects, anchor);
    let reference = shown(&args.reference);
    if let Some(html) = &args.html {
        let page = report::ranking_page(&ranking, &reference);
        report::write_file(html, page.as_bytes()).map_err(|e| Failure::new(Exit::Internal, e))?;
    }
    let markdown = report::ranking_markdown(&ranking, &reference);
    Ok(streams::printed(print(args, &judged, &ranking, &markdown), pairs::exit(&judged)))
}

/// A name for each path, the shortest that tells it from the others: the file's without its ending, the
/// file's, or the path.
fn names(paths: &[PathBuf]) -> Result<Vec<String>, Failure> {
    for (at, path) in paths.iter().enumerate() {
        if paths[..at].contains(path) {
            let problem = format!("{} is given twice", path.display());
            return Err(Failure::new(Exit::Usage, problem));
        }
    }
    let mut uses: HashMap<String, usize> = HashMap::new();
    for path in paths {
        let spellings = spellings(path);
        for (at, spelling) in spellings.iter().enumerate() {
            if !spellings[..at].contains(spelling) {
                *uses.entry(spelling.clone()).or_default() += 1;
            }
        }
    }
    let name = |path: &PathBuf| {
        let [shortest, .., whole] = spellings(path);
        let unique = spellings(path).into_iter().find(|it| uses.get(it) == Some(&1));
        if shortest.is_empty() { whole } else { unique.unwrap_or(whole) }
    };
    Ok(paths.iter().map(name).collect())
}

/// How a model may be called, the shortest first.
fn spellings(path: &Path) -> [String; 3] {
    let text = |part: Option<&std::ffi::OsStr>| {
        part.map_or_else(String::new, |part| part.to_string_lossy().into_owned())
    };
    let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
    [text(stem), text(path.file_name()), path.to_string_lossy().into_owned()]
}

/// The reference as the ranking calls it.
fn shown(path: &Path) -> String {
    let [stem, _, whole] = spellings(path);
    if stem.is_empty() { whole } else { stem }
}

/// The model that an anchor names.
fn find(anchor: &AnchorArg, names: &[String], paths: &[PathBuf]) -> Result<Anchor, Failure> {
    let matches =
        |at: &usize| names[*at] == anchor.name || spellings(&paths[*at]).contains(&anchor.name);
    let found: Vec<usize> = (0..paths.len()).filter(matches).collect();
    match found.as_slice() {
        [subject] => Ok(Anchor { subject: *subject, kld: anchor.kld }),
        several => {
            let word = if several.is_empty() { "none" } else { "several" };
            let problem = format!(
                "--anchor {}: {word} of the models has this name; they are {}",
                anchor.name,
                names.join(", ")
            );
            Err(Failure::new(Exit::Usage, problem))
        }
    }
}

/// Whether a file says that it was made with an importance matrix, as llama-quantize writes it.
fn calibrated(path: &Path) -> bool {
    let keys =
        |model: model::Model| model.metadata.into_iter().any(|(key, _)| key.starts_with(IMATRIX));
    model::open(path).is_ok_and(keys)
}

/// What the keys of an importance matrix begin with.
const IMATRIX: &str = "quantize.imatrix.";

fn print(args: &RankArgs, judged: &[Judged], ranking: &Ranking, markdown: &str) -> io::Result<()> {
    let mut out = streams::text_or_json(args.json);
    if args.json {
        let report = Report {
            reference: args.reference.to_string_lossy().into_owned(),
            models: entries(judged, ranking),
            front: ranking.front.iter().map(|at| ranking.models[*at].name.as_str()).collect(),
            orders: orders(ranking),
            outliers: outliers(ranking),
            notes: &ranking.notes,
            markdown,
            not_claimed: NOT_CLAIMED,
            credit: CREDIT,
        };
        serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        out.write_all(markdown.as_bytes())?;
    }
    out.flush()
}

fn entries<'a>(judged: &'a [Judged], ranking: &'a Ranking) -> Vec<Entry<'a>> {
    let entry = |(at, model): (usize, &'a Ranked)| Entry {
        rank: at + 1,
        name: &model.name,
        judged: judged[model.subject].object(),
        size_bytes: model.bytes,
        bits_per_weight: Number(model.bits_per_weight),
        sqnr_db: Number(model.sqnr_db),
        rd_gap_db: Number(model.rd_gap_db),
        imatrix: model.calibrated,
        types: model
            .types
            .iter()
            .map(|it| TypeEntry { qtype: &it.qtype, tensors: it.tensors, bytes: it.bytes })
            .collect(),
        worst_tensor: model.worst.as_ref().map(|it| WorstEntry {
            tensor: &it.tensor,
            qtype: &it.qtype,
            sqnr_db: Number(it.sqnr_db),
        }),
        score: score(model, ranking),
        no_score: model.score.as_ref().err().map(String::as_str),
    };
    ranking.models.iter().enumerate().map(entry).collect()
}

fn score<'a>(model: &'a Ranked, ranking: &Ranking) -> Option<ScoreEntry<'a>> {
    let score = model.score.as_ref().ok()?;
    let role = |share: &RoleShare| RoleEntry {
        role: share.role.name,
        tensors: share.tensors,
        contribution: share.value,
        share: share.share,
    };
    Some(ScoreEntry {
        value: score.value,
        zone: score.zone().name(),
        basis: score.basis.name(),
        evidence: score.evidence,
        layers: score.layers,
        roles: score.roles.iter().map(role).collect(),
        kld: model.level.map(|level| KldEntry {
            from: if ranking.anchor.is_some() { "anchor" } else { "typical" },
            estimate: level.kld,
            low: level.low,
            high: level.high,
        }),
    })
}

fn orders(ranking: &Ranking) -> Vec<OrderEntry<'_>> {
    let count = ranking.models.len();
    let pairs = (0..count).flat_map(|better| (better + 1..count).map(move |worse| (better, worse)));
    pairs
        .filter_map(|(better, worse)| {
            let order = ranking.order(better, worse)?;
            Some(OrderEntry {
                better: &ranking.models[better].name,
                worse: &ranking.models[worse].name,
                ratio: Number(order.ratio),
                confidence: order.confidence.name(),
                reason: order.reason,
            })
        })
        .collect()
}

fn outliers<'a>(ranking: &'a Ranking) -> Vec<OutlierEntry<'a>> {
    let entry = |outlier: &'a Outlier| OutlierEntry {
        model: &ranking.models[outlier.model].name,
        message: &outlier.message,
    };
    ranking.outliers.iter().map(entry).collect()
}
