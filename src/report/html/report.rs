/*!
The page: head, verdict, and the order of everything else.

Nothing on it moves without the script but all of it can be read. A content security policy lets run
what is written here and nothing that a name in a model might smuggle in.
*/

use std::fmt::Write as _;

use super::markup::{Row, State, code, digest_source, esc, table};
use super::pairs::States;
use super::{decision, failures, pairs, plot};
use crate::metrics::DB_PER_BIT;
use crate::report::format::{Options, Rendered, Report, ReportError};
use crate::report::markdown;
use crate::report::numbers;
use crate::suite::record::{Contract, ObligationStatus, Verdict};

pub(super) const STYLE: &str = include_str!("report.css");
pub(super) const SCRIPT: &str = include_str!("report.js");

/// Renders `report.html`.
#[derive(Debug)]
pub struct ReportHtml;

impl Report for ReportHtml {
    fn name(&self) -> &'static str {
        "html"
    }

    fn file_name(&self) -> &'static str {
        "report.html"
    }

    fn about(&self) -> &'static str {
        "the contract report for people, as one page: verdict, failures, heat maps, tables"
    }

    fn render(&self, contract: &Contract, _: &Options) -> Result<Rendered, ReportError> {
        let states = States::of(contract);
        let mut page = String::with_capacity(256 * 1024);
        head(&mut page, contract);
        verdict(&mut page, contract);
        decision::decide(&mut page, contract);
        failures::failures(&mut page, contract);
        pairs::overview(&mut page, contract);
        plot::plot(&mut page, contract, |pair, tensor| states.tensor(pair, tensor));
        failures::warnings_and_waivers(&mut page, contract);
        pairs::details(&mut page, contract, &states);
        specs(&mut page, contract);
        obligations(&mut page, contract);
        foot(&mut page, contract);
        Ok(Rendered::from(page.into_bytes()))
    }
}

/// The class that colours the verdict.
fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => State::Passed.class(),
        Verdict::Failed => State::Failed.class(),
        Verdict::Error => State::Error.class(),
        Verdict::Pending | Verdict::Sampled => State::Warned.class(),
    }
}

fn head(page: &mut String, contract: &Contract) {
    let _ = writeln!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; \
         base-uri 'none'; form-action 'none'; style-src {}; script-src {}\"/>\n\
         <link rel=\"icon\" href=\"data:,\"/>\n\
         <title>qualm: {}, {}</title>\n<style>{STYLE}</style></head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">Skip to the verdict</a>",
        digest_source(STYLE),
        digest_source(SCRIPT),
        markdown::verdict_word(contract.verdict),
        markdown::summary(contract),
    );
    page.push_str("<header><span class=\"brand\">qualm</span><nav aria-label=\"Sections\">");
    let bad = contract.summary.failed + contract.summary.errors > 0;
    for (id, name) in [
        ("decision", "Decision"),
        ("failures", "Failures"),
        ("pairs", "Pairs"),
        ("bits", "Error against bits"),
        ("each", "Each pair"),
        ("obligations", "Obligations"),
    ] {
        if id != "failures" || bad {
            let _ = write!(page, "<a href=\"#{id}\">{name}</a>");
        }
    }
    page.push_str(
        "</nav><button type=\"button\" id=\"theme\" hidden=\"hidden\">Dark</button></header>\n\
         <main id=\"main\" tabindex=\"-1\">\n",
    );
}

/// The one word, the sentence, the numbers.
fn verdict(page: &mut String, contract: &Contract) {
    let harness = &contract.harness;
    let _ = write!(
        page,
        "<section class=\"verdict {}\" aria-labelledby=\"verdict\"><h1 id=\"verdict\">{}</h1>\n\
         <p>{}. Exit code {}.</p>\n<p class=\"of\">{} {}",
        class(contract.verdict),
        markdown::verdict_word(contract.verdict),
        markdown::summary(contract),
        contract.exit_code,
        esc(&harness.name),
        esc(&harness.version),
    );
    if let Some(time) = &contract.time {
        let _ = write!(page, ", {}, took {}", esc(&time.started), numbers::seconds(time.seconds));
    }
    if let Some(partition) = &contract.partition {
        let _ = write!(
            page,
            ". Shard {} of {} (<code>{}</code>) of a suite of {}",
            partition.index,
            partition.total,
            esc(&partition.mode),
            numbers::counted(partition.tests, "test")
        );
    }
    page.push_str("</p>\n</section>\n");
}

fn obligations(page: &mut String, contract: &Contract) {
    page.push_str(
        "<section aria-labelledby=\"obligations\"><h2 id=\"obligations\">Obligations of the contract \
         CRUX-B-20</h2>\n",
    );
    let _ = writeln!(page, "<p>{}</p>", esc(markdown::OBLIGATIONS));
    let rows: Vec<Row> = contract
        .obligations
        .iter()
        .map(|obligation| {
            let (state, word) = match obligation.status {
                ObligationStatus::Held => (State::Passed, "held"),
                ObligationStatus::Violated => (State::Failed, "violated"),
                ObligationStatus::NotExercised => (State::Ignored, "not exercised"),
            };
            let badge = format!("<span class=\"badge {}\">{word}</span>", state.class());
            Row::plain(vec![
                code(&obligation.id),
                badge,
                esc(&obligation.rule),
                evidence(&obligation.evidence),
            ])
        })
        .collect();
    table(page, "Obligations", &["obligation", "status", "rule", "evidence"], &rows);
    page.push_str("</section>\n");
}

/// The first pieces of evidence, and how many more there are.
fn evidence(all: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text: Vec<String> = all.iter().take(SHOWN).map(|piece| esc(piece)).collect();
    if all.len() > SHOWN {
        text.push(format!("and {} more", all.len() - SHOWN));
    }
    text.join("<br/>")
}

fn specs(page: &mut String, contract: &Contract) {
    page.push_str("<section aria-labelledby=\"specs\"><h2 id=\"specs\">Specs</h2>\n");
    let rows: Vec<Row> = contract
        .specs
        .iter()
        .map(|spec| {
            let description = spec.description.as_deref().map(esc).unwrap_or_default();
            Row::plain(vec![
                esc(&spec.name),
                code(&spec.path),
                spec.pairs.len().to_string(),
                code(&spec.sha256),
                description,
            ])
        })
        .collect();
    table(page, "Spec files", &["spec", "file", ">pairs", "SHA-256", "description"], &rows);
    page.push_str("</section>\n");
}

fn foot(page: &mut String, contract: &Contract) {
    let _ = writeln!(
        page,
        "</main>\n<footer>Made from <code>contract.json</code>, schema {}, which holds every number \
         in full. r is the reference, q the quantized value, e = q − r: SQNR is 10 log10(Σr²/Σe²), \
         cosine Σrq/(|r||q|), RMSE √(Σe²/n), gain √(Σq²/Σr²); “from limit” is {:.2} dB a bit minus \
         the SQNR.</footer>\n<script>{SCRIPT}</script>\n</body></html>",
        contract.schema, DB_PER_BIT,
    );
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;

    use super::*;
    use crate::report::sample::{self, HOSTILE, judged};
    use crate::suite::record::TestOutcome;

    fn render(contract: &Contract) -> String {
        let rendered = ReportHtml.render(contract, &Options::default()).unwrap();
        String::from_utf8(rendered.bytes).unwrap()
    }

    /// The page without its style and script, which are no XML.
    fn parsed(page: &str) -> String {
        let page = page.replace(STYLE, "").replace(SCRIPT, "");
        page.strip_prefix("<!doctype html>\n").unwrap().to_owned()
    }

    #[test]
    fn the_verdict_comes_first_then_the_worst() {
        let page = render(&sample::contract());
        let order = [
            "<h1 id=\"verdict\">ERROR</h1>",
            "Exit code 6.",
            "id=\"decision\"",
            "<b>Could not judge</b> <a href=\"#pair-2\"><code>minilm::gone</code></a>: models/gone.gguf: no such file",
            "<b>Do not ship</b> <a href=\"#pair-1\"><code>minilm::q4_0</code></a>: 4 of 7 tests fail; 1 not run.",
            "<li>1 × nan-scale (blk.0.attn_nan)</li>",
            "<dt>quantized</dt><dd>models/minilm-q4_0.gguf, Q4_0 ",
            "SHA-256 0f0f0f0f0f0f…",
            "% of the reference, 4.50 bits per weight",
            "changed; SQNR was 27.50 dB, now 14.20 dB: worse; 1 change beyond the tolerance",
            "<b>Undecided:</b> <a href=\"#pair-3\"><code>minilm::q8_0</code></a>: all 4 tests hold that were selected",
            "id=\"failures\">Failures, the worst first",
            "models/gone.gguf: no such file",
            "blk.0.ffn_down.weight</code></b>",
            "<dt>cosine</dt><dd><b>0.981200</b></dd>",
            "<dt>bound</dt><dd>0.990000</dd>",
            "was 0.995120, now 0.981200: worse",
            "<code>specs/minilm.toml:12:10</code>",
            "id=\"pairs\"",
            "id=\"bits\"",
            "id=\"waived\"",
            "class=\"heat\"",
            "id=\"obligations\"",
        ];
        let mut from = 0;
        for part in order {
            let at = page[from..].find(part);
            from += at.unwrap_or_else(|| panic!("{part:?} is not after the rest in\n{page}"));
        }
    }

    #[test]
    fn foreign_text_is_text() {
        let page = render(&sample::contract());
        let body = parsed(&page);
        let document = Document::parse(&body).unwrap();
        let allowed = ["script", "style"];
        for tag in allowed {
            assert_eq!(document.descendants().filter(|it| it.has_tag_name(tag)).count(), 1);
        }
        for node in document.descendants() {
            for attribute in node.attributes() {
                let name = attribute.name();
                assert!(!name.starts_with("on") && name != "style" && name != "src", "{name}");
            }
        }
        let shown: Vec<&str> = document.descendants().filter_map(|it| it.text()).collect();
        for name in HOSTILE {
            let line = crate::report::text::one_line(name);
            assert!(shown.contains(&line.as_ref()), "{name:?}");
        }
    }

    #[test]
    fn the_policy_names_what_the_page_holds() {
        let page = render(&sample::passing());
        for part in [STYLE, SCRIPT] {
            assert!(page.contains(&digest_source(part)));
            assert!(!part.contains("</s") && !part.contains("<!--"), "it would end its element");
        }
        for remote in ["http:", "https:", "url(", "@import", "fetch("] {
            assert!(!page.contains(remote), "{remote}");
        }
    }

    #[test]
    fn a_thousand_tensors_stay_below_a_megabyte() {
        let rows: Vec<_> = (0..1000)
            .map(|n| {
                let role = ["attn_q", "attn_k", "attn_v", "ffn_down"][n % 4];
                let name = format!("model.layers.{}.self_attn.{role}_proj.weight", n / 4);
                sample::row(&name, "Q4_0", 8, 0.01 + n as f32 / 4000.0)
            })
            .collect();
        let tests = rows
            .iter()
            .map(|row| {
                let id = format!("s::p::{}", row.tensor);
                sample::judged(&id, vec![sample::check("cosine", row.cosine.0, 0.999)])
            })
            .collect();
        let pair = sample::pair("s", "p", rows, tests);
        let failed = pair.tests.iter().filter(|it| it.outcome == TestOutcome::Failed).count();
        assert!(failed > 300, "{failed}");
        let page = render(&sample::run(vec![sample::spec("s", vec![pair])]));
        assert!(page.len() < 1_000_000, "{}", page.len());
        assert!(page.contains(&format!("{} failures more", failed - 100)), "the rest is counted");
    }

    #[test]
    fn ten_thousand_tensors_of_long_names_stay_below_three_megabytes() {
        let rows: Vec<_> = (0..10_000)
            .map(|n| {
                let role = "experts_of_a_mixture_whose_tensors_have_names_beyond_all_reason";
                let name = format!("model.layers.{}.{}_{role}.weight", n / 100, n % 100);
                sample::row(&name, "Q4_0", 8, 0.01 + n as f32 / 4000.0)
            })
            .collect();
        let tests = rows
            .iter()
            .map(|row| {
                let id = format!("s::p::{}", row.tensor);
                sample::judged(&id, vec![sample::check("cosine", row.cosine.0, 0.999)])
            })
            .collect();
        let pair = sample::pair("s", "p", rows, tests);
        let page = render(&sample::run(vec![sample::spec("s", vec![pair])]));
        assert!(page.len() < 3_000_000, "{}", page.len());
        assert!(page.contains(" tensors more: see <code>report.tsv</code>"), "the rest is counted");
        assert!(page.contains(" roles more: see <code>report.tsv</code>"), "the rest is counted");
    }

    #[test]
    fn a_closed_row_of_a_failure_says_value_expectation_and_cause() {
        let page = render(&sample::contract());
        let rows: Vec<&str> = page.split("<details class=\"entry failed").skip(1).collect();
        let row = |name: &str| {
            let row = rows.iter().find(|row| row.contains(&format!("<code>{name}</code>")));
            row.unwrap().split_once("</summary>").unwrap().0
        };
        assert!(row("blk.0.ffn_down.weight").contains("cosine 0.981200 &lt; 0.990000</span>"));
        let cause = "<span class=\"why\"><b>nan-scale</b>: the scale of block 0 is NaN</span>";
        assert!(row("blk.0.attn_nan.weight").contains(cause), "{}", row("blk.0.attn_nan.weight"));
    }

    #[test]
    fn an_excess_without_bound_is_no_number() {
        for excess in [f64::INFINITY, f64::NAN] {
            let check = sample::check("integrity.sqnr_expected", excess, 1.5);
            let pair = sample::pair("s", "p", Vec::new(), vec![judged("s::p::t", vec![check])]);
            let page = render(&sample::run(vec![sample::spec("s", vec![pair])]));
            let words =
                "<dt>integrity.sqnr_expected</dt><dd><b>without bound: no error at all is expected";
            assert!(page.contains(words), "{page}");
        }
    }

    #[test]
    fn whatever_the_run_the_page_is_well_formed() {
        let mut empty = sample::run(Vec::new());
        empty.time = None;
        let broken = sample::pair("s", "p", vec![sample::nan_row("blk.0.x")], Vec::new());
        let nothing = sample::run(vec![sample::spec("s", vec![broken])]);
        for contract in [empty, nothing, sample::passing(), sample::contract()] {
            let page = render(&contract);
            let body = parsed(&page);
            assert!(Document::parse(&body).is_ok(), "{:?}\n{body}", Document::parse(&body).err());
        }
    }
}
