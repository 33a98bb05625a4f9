/*!
The conversation of `qualm review`: one pending snapshot after the other, with cargo-insta's keys.
*/

use std::io::{self, BufRead, Write};
use std::path::Path;

use super::BaselineError;
use super::pending::Pending;
use super::review::{self, Accept, Reviewed};

/// What came of a review.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Accepted snapshots, by name.
    pub accepted: Vec<String>,
    /// Rejected snapshots.
    pub rejected: Vec<String>,
    /// Snapshots that stay pending.
    pub skipped: Vec<String>,
}

/// What the reviewer wants.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Accept,
    Reject,
    Skip,
}

/// What to say instead of asking when nobody can answer: input or output is no terminal.
pub fn how_to_act(pending: &[Pending]) -> String {
    format!(
        "{}\nnot a terminal, so nothing was asked; act with\n  \
         qualm accept [FILTER]... [--reason TEXT]\n  qualm reject [FILTER]...\n",
        review::list_text(pending).trim_end()
    )
}

/// Shows each pending snapshot and asks what to do about it.
///
/// Keys, each followed by Enter: `a` accept, `r` reject, `s` skip; `A`, `R`, `S` the same for this
/// and all that follow; `q` (or the end of input) leaves the rest pending. What `ratchet` forbids is
/// accepted only with a reason, which is asked for.
pub fn review(
    pending: &[Pending],
    options: &Accept,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
) -> Result<Tally, BaselineError> {
    let mut tally = Tally::default();
    let mut for_all = None;
    for (i, one) in pending.iter().enumerate() {
        let shown = match Reviewed::open(one) {
            Ok(reviewed) => reviewed.describe(),
            Err(error) => format!("{}: unreadable: {error}\n", one.name),
        };
        say(output, &format!("\n[{}/{}] {shown}", i + 1, pending.len()))?;
        let answer = match for_all {
            Some(answer) => answer,
            None => match ask(input, output)? {
                None => {
                    let rest = pending.get(i..).unwrap_or_default();
                    tally.skipped.extend(rest.iter().map(|p| p.name.clone()));
                    break;
                }
                Some((answer, all)) => {
                    for_all = all.then_some(answer);
                    answer
                }
            },
        };
        match answer {
            Answer::Accept if accept(one, options, input, output)? => {
                tally.accepted.push(one.name.clone());
            }
            Answer::Reject => {
                tally.rejected.extend(review::reject(std::slice::from_ref(one), false)?);
            }
            Answer::Accept | Answer::Skip => tally.skipped.push(one.name.clone()),
        }
    }
    Ok(tally)
}

/// Accepts one; false if it stays pending.
fn accept(
    one: &Pending,
    options: &Accept,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
) -> Result<bool, BaselineError> {
    let one = std::slice::from_ref(one);
    match review::accept(one, options) {
        Ok(_) => Ok(true),
        Err(error @ BaselineError::Ratchet { .. }) => {
            say(output, &format!("{error}\nreason to accept it (empty: leave it pending): "))?;
            match read(input)?.as_deref().map(str::trim) {
                None | Some("") => Ok(false),
                Some(reason) => {
                    let options = Accept {
                        reason: Some(reason.to_owned()),
                        allow_worse: true,
                        ..options.clone()
                    };
                    review::accept(one, &options).map(|_| true)
                }
            }
        }
        Err(BaselineError::Parse { .. }) => {
            say(output, "it cannot be accepted as it is and stays pending\n")?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Asks until there is an answer; true with it if it holds for all that follow. `None` to leave.
fn ask(
    input: &mut dyn BufRead,
    output: &mut dyn Write,
) -> Result<Option<(Answer, bool)>, BaselineError> {
    loop {
        say(output, "  a accept   r reject   s skip   A R S all that follow   q quit > ")?;
        let Some(line) = read(input)? else { return Ok(None) };
        let answer = match line.trim() {
            "a" => (Answer::Accept, false),
            "r" => (Answer::Reject, false),
            "s" => (Answer::Skip, false),
            "A" => (Answer::Accept, true),
            "R" => (Answer::Reject, true),
            "S" => (Answer::Skip, true),
            "q" => return Ok(None),
            _ => continue,
        };
        return Ok(Some(answer));
    }
}

fn say(output: &mut dyn Write, text: &str) -> Result<(), BaselineError> {
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .map_err(BaselineError::io("write", Path::new("the terminal")))
}

/// One line; `None` at the end of input.
fn read(input: &mut dyn BufRead) -> Result<Option<String>, BaselineError> {
    let mut line = String::new();
    match io::BufRead::read_line(input, &mut line) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(line)),
        Err(error) => Err(BaselineError::io("read", Path::new("the terminal"))(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::sample::Checkout;

    /// Reviews with these keys; gives the tally and what was shown.
    fn talk(checkout: &Checkout, keys: &str) -> (Tally, String) {
        let pending = checkout.places().pending().unwrap();
        let mut shown = Vec::new();
        let tally = review(&pending, &Accept::default(), &mut keys.as_bytes(), &mut shown).unwrap();
        (tally, String::from_utf8(shown).unwrap())
    }

    #[test]
    fn conversations() {
        // keys, accepted, rejected, skipped (of a, b, c), why
        for (keys, accepted, rejected, skipped, why) in [
            ("a\nr\ns\n", "a", "b", "c", "one key each"),
            ("A\n", "abc", "", "", "accept all"),
            ("s\nR\n", "", "bc", "a", "reject the rest"),
            ("a\nS\n", "a", "", "bc", "skip the rest"),
            ("a\nq\n", "a", "", "bc", "quit"),
            ("", "", "", "abc", "the end of input accepts nothing"),
            ("a", "a", "", "bc", "the end of input ends a line"),
            ("\nyes\nx\na\n", "a", "", "bc", "what is no key is asked again"),
        ] {
            let checkout = Checkout::new();
            for pair in ["a", "b", "c"] {
                checkout.pending(pair, 0.9, "");
            }
            let (tally, shown) = talk(&checkout, keys);
            let names = |letters: &str| -> Vec<String> {
                letters.chars().map(|c| format!("snapshots/tiny__{c}.snap")).collect()
            };
            assert_eq!(tally.accepted, names(accepted), "{why}");
            assert_eq!(tally.rejected, names(rejected), "{why}");
            assert_eq!(tally.skipped, names(skipped), "{why}");
            assert!(shown.contains("[1/3] snapshots/tiny__a.snap: new, 1 tensors"), "{shown}");
            let mut left = names(accepted);
            left.extend(names(skipped).into_iter().map(|name| name + ".new"));
            left.sort();
            assert_eq!(checkout.files(), left, "{why}");
        }
    }

    #[test]
    fn a_ratchet_asks_for_a_reason() {
        // keys, accepted, why
        for (keys, accepted, why) in [
            ("a\nnew rounding\n", true, "with a reason"),
            ("a\n \n", false, "without"),
            ("a\n", false, "at the end of input"),
        ] {
            let checkout = Checkout::new();
            checkout.accepted("a", 0.9, "ratchet");
            checkout.pending("a", 0.8, "ratchet");
            let (tally, shown) = talk(&checkout, keys);
            assert_eq!(!tally.accepted.is_empty(), accepted, "{why}");
            assert!(shown.contains("may only improve"), "{shown}");
            assert_eq!(checkout.read("a").contains("0.8"), accepted, "{why}");
            assert_eq!(
                checkout.read("a").contains("accepted_reason: new rounding"),
                accepted,
                "{why}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_stays_pending() {
        let checkout = Checkout::new();
        checkout.write("snapshots/tiny__a.snap.new", "<<<<<<< HEAD\n");
        checkout.pending("b", 0.9, "");
        let (tally, shown) = talk(&checkout, "A\n");
        assert_eq!(tally.skipped, ["snapshots/tiny__a.snap"]);
        assert_eq!(tally.accepted, ["snapshots/tiny__b.snap"]);
        assert!(shown.contains("merge conflict"), "{shown}");
        let (tally, _) = talk(&checkout, "r\n");
        assert_eq!(tally.rejected, ["snapshots/tiny__a.snap"], "but it can be rejected");
    }

    #[test]
    fn says_how_to_act_where_nobody_can_answer() {
        let checkout = Checkout::new();
        checkout.pending("a", 0.9, "");
        let text = how_to_act(&checkout.places().pending().unwrap());
        assert!(text.starts_with("snapshots/tiny__a.snap: new, 1 tensors\n"), "{text}");
        assert!(text.contains("qualm accept") && text.contains("qualm reject"), "{text}");
    }
}
