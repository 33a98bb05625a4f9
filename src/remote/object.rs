/*!
A file behind an address: pinned when it is opened, read in ranges, every answer held against the pin.
*/

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::bucket::BucketFile;
use super::client::{Again, Answer, Ask, Client, Fault, Login, host, persist};
use super::hub::{self, HubFile};
use super::session::session;

/// How long the target of a redirect is used; signed ones live for an hour.
const FRESH: Duration = Duration::from_secs(40 * 60);

/// A file that is read in ranges.
#[derive(Debug)]
pub struct Object {
    /// Its number in this process.
    pub(super) id: usize,
    source: Source,
    len: u64,
    state: Mutex<State>,
}

/// Where it is.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A URL, with all that belongs to it.
    Web(String),
    /// A file of the hub at a commit.
    Hub(HubFile),
    /// An object of a bucket.
    Bucket(BucketFile),
}

impl Source {
    fn url(&self, client: &Client) -> String {
        match self {
            Self::Web(url) => url.clone(),
            Self::Hub(file) => file.url(&client.hub.endpoint),
            Self::Bucket(file) => file.url(),
        }
    }

    fn login(&self) -> Login<'_> {
        match self {
            Self::Web(_) => Login::Nobody,
            Self::Hub(_) => Login::Hub,
            Self::Bucket(file) => Login::Signed(file),
        }
    }

    /// What an answer says that does not give the file.
    fn refused(&self, answer: Answer) -> Fault {
        match self {
            Self::Web(_) => refused(answer),
            Self::Hub(file) => hub::refused(answer, &file.repo),
            Self::Bucket(file) => file.refused(answer),
        }
    }
}

/// Headers in which stores of buckets number the versions of an object.
const VERSIONS: [&str; 3] = ["x-amz-version-id", "x-goog-generation", "x-ms-version-id"];

/// What was learnt.
#[derive(Debug, Default)]
struct State {
    /// The target of the redirects, since when.
    direct: Option<(String, Instant)>,
    /// What the server that has the bytes calls this version of the file.
    etag: Option<String>,
    /// The number of this version, of a store that numbers them.
    version: Option<String>,
}

impl Object {
    pub(super) fn of_hub(id: usize, file: HubFile) -> Self {
        let len = file.len;
        Self { id, source: Source::Hub(file), len, state: Mutex::default() }
    }

    /// Asks for the first bytes of a file, and with them for its length and version.
    pub(super) fn ask_first(
        client: &Client,
        id: usize,
        source: &Source,
        first: u64,
    ) -> io::Result<(Self, Vec<u8>)> {
        persist(|| {
            let url = &source.url(client);
            let login = source.login();
            let answer =
                client.ask(Ask { url, range: Some((0, first)), login, unchanged: None })?;
            let object = |len| Self { id, source: source.clone(), len, state: Mutex::default() };
            let total = answer.header("content-range").and_then(|it| it.rsplit_once('/'));
            let total = total.and_then(|(_, total)| total.parse::<u64>().ok());
            match (answer.status, total) {
                (206, Some(total)) => {
                    let object = object(total);
                    let mut bytes = vec![0; total.min(first) as usize];
                    object.accept(&answer, 0, bytes.len() as u64)?;
                    Client::fill(answer, &mut bytes)?;
                    Ok((object, bytes))
                }
                // Of what has a first byte, a range from there can be given.
                (416, None | Some(0)) => Ok((object(0), Vec::new())),
                (206 | 200, _) => Err(no_ranges(&answer)),
                _ => Err(source.refused(answer)),
            }
        })
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// What pins it: a commit, or what the server calls this version; empty if the server does not say.
    pub fn revision(&self) -> String {
        match &self.source {
            Source::Hub(file) => file.commit.clone(),
            Source::Web(_) | Source::Bucket(_) => {
                let state = self.state();
                state.version.as_ref().or(state.etag.as_ref()).cloned().unwrap_or_default()
            }
        }
    }

    /// Fills `buffer` from `offset`.
    pub fn read_exact_at(self: &Arc<Self>, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        session().parts.read(self, offset, buffer)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches a range, in as many tries as it takes.
    pub(super) fn fetch(&self, client: &Client, start: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut got = 0;
        persist(|| {
            let at = start + got as u64;
            let rest = &mut buffer[got..];
            let fetched = self.ask(client, at, rest.len() as u64);
            fetched
                .and_then(|answer| Client::fill(answer, rest))
                .inspect_err(|fault| got += fault.got)
        })
    }

    /// Asks for a range, of the target of a redirect that is known, or anew.
    fn ask(&self, client: &Client, start: u64, len: u64) -> Result<Answer, Fault> {
        let direct = {
            let state = self.state();
            let fresh = state.direct.as_ref().filter(|(_, since)| since.elapsed() < FRESH);
            fresh.map(|(url, _)| (url.clone(), state.etag.clone()))
        };
        if let Some((url, etag)) = direct {
            let ask = Ask {
                url: &url,
                range: Some((start, len)),
                login: Login::Nobody,
                unchanged: etag.as_deref().filter(|etag| strong(etag)),
            };
            let answer = client.ask(ask)?;
            if ![400, 401, 403, 404, 410].contains(&answer.status) {
                return self.accepted(answer, start, len);
            }
            // A signed address runs out; the next is asked for where the first came from.
            answer.discard();
            self.state().direct = None;
        }
        let (url, login) = (self.source.url(client), self.source.login());
        let etag = self.state().etag.clone().filter(|etag| strong(etag));
        let unchanged = etag.as_deref();
        let answer = client.ask(Ask { url: &url, range: Some((start, len)), login, unchanged })?;
        self.accepted(answer, start, len)
    }

    fn accepted(&self, answer: Answer, start: u64, len: u64) -> Result<Answer, Fault> {
        match answer.status {
            206 => self.accept(&answer, start, len).map(|()| answer),
            // An empty range cannot be asked for, so that a whole file is one that is as long as asked.
            200 if start == 0 && len == self.len && length(&answer) == Some(len) => {
                self.same(&answer).map(|()| answer)
            }
            200 => {
                self.same(&answer)?;
                Err(no_ranges(&answer))
            }
            412 => Err(changed("the server has another version now")),
            416 => Err(changed("it is shorter now")),
            _ => Err(self.source.refused(answer)),
        }
    }

    /// Holds a partial answer against what was asked for and what the file was.
    fn accept(&self, answer: &Answer, start: u64, len: u64) -> Result<(), Fault> {
        let host = host(&answer.url);
        if let Some(coding) = answer.header("content-encoding").filter(|it| *it != "identity") {
            let problem =
                format!("{host} sends it compressed ({coding}): its parts cannot be used");
            return Err(Fault::last(ErrorKind::Unsupported, problem));
        }
        let said = answer.header("content-range").unwrap_or_default();
        let parse = || {
            let (range, total) = said.strip_prefix("bytes ")?.split_once('/')?;
            let (first, last) = range.split_once('-')?;
            let number = |it: &str| it.trim().parse::<u64>().ok();
            Some((number(first)?, number(last)?, number(total)))
        };
        let Some((first, last, total)) = parse() else {
            return Err(Fault::passing(format!("{host} says not which bytes it sends ({said:?})")));
        };
        if total.is_some_and(|total| total != self.len) {
            return Err(changed(&format!("it had {} bytes, {said}", self.len)));
        }
        self.same(answer)?;
        if (first, last.wrapping_add(1)) != (start, start + len) {
            let problem =
                format!("{host} sends bytes {first}-{last}, asked for {start}-{}", start + len - 1);
            return Err(Fault::passing(problem));
        }
        Ok(())
    }

    /// Whether the file is still the one that was opened; remembers what says so.
    fn same(&self, answer: &Answer) -> Result<(), Fault> {
        let mut linked = false;
        if let Source::Hub(file) = &self.source {
            linked = file.check(answer)?;
        }
        let etag = answer.header("etag").or_else(|| answer.header("last-modified"));
        let version = VERSIONS.iter().find_map(|name| answer.header(name));
        let version =
            version.filter(|it| matches!(self.source, Source::Bucket(_)) && *it != "null");
        let mut state = self.state();
        match (&state.version, version) {
            (Some(old), Some(new)) if old != new => {
                return Err(changed(&format!("it was version {old}, now it is {new}")));
            }
            (None, Some(new)) => state.version = Some(new.to_owned()),
            _ => {}
        }
        let redirected = !answer.redirects.is_empty();
        // The hub vouches for the content; what each of its servers calls it may differ.
        match (&state.etag, etag) {
            (Some(old), Some(new)) if old != new && !(linked && redirected) => {
                return Err(changed(&format!("it was {old}, now it is {new}")));
            }
            (Some(old), None) if !linked => {
                return Err(changed(&format!("it was {old}, now the server does not say")));
            }
            (_, Some(new)) => state.etag = Some(new.to_owned()),
            _ => {}
        }
        if redirected {
            state.direct = Some((answer.url.clone(), Instant::now()));
        }
        Ok(())
    }
}

/// Whether `If-Match` may be asked with it.
fn strong(etag: &str) -> bool {
    etag.starts_with('"')
}

fn length(answer: &Answer) -> Option<u64> {
    answer.header("content-length")?.parse().ok()
}

fn changed(how: &str) -> Fault {
    let problem =
        format!("the file changed while it was read ({how}); run again, or pin a revision");
    Fault::last(ErrorKind::InvalidData, problem)
}

fn no_ranges(answer: &Answer) -> Fault {
    let problem = format!(
        "{} sends whole files only (it does not answer range requests); download the file and name the \
         local copy",
        host(&answer.url)
    );
    Fault::last(ErrorKind::Unsupported, problem)
}

/// What a server says that does not give the file.
pub(super) fn refused(answer: Answer) -> Fault {
    let (status, host) = (answer.status, host(&answer.url).to_owned());
    answer.discard();
    let (kind, problem) = match status {
        404 | 410 => {
            (ErrorKind::NotFound, format!("{host} has no such file ({status}); check the address"))
        }
        401 | 403 | 407 => (
            ErrorKind::PermissionDenied,
            format!(
                "{host} refuses it ({status}); qualm sends no login to a plain address: use one that is \
                 signed, or hf:// with HF_TOKEN"
            ),
        ),
        _ => (ErrorKind::Other, format!("{host} answers {status}")),
    };
    Fault { error: io::Error::new(kind, problem), again: Again::No, got: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::client::tests::answer;

    #[test]
    fn an_answer_must_be_what_was_asked_for() {
        let (url, state) = ("http://h/x".to_owned(), Mutex::default());
        let object = Object { id: 0, source: Source::Web(url), len: 100, state };
        let range = |said: &str| answer(206, &[("content-range", said), ("etag", "\"a\"")]);
        assert!(object.accepted(range("bytes 10-19/100"), 10, 10).is_ok());
        for (bad, words, again) in [
            (range("bytes 11-20/100"), "sends bytes 11-20", Again::Soon),
            (range("bytes 10-18/100"), "sends bytes 10-18", Again::Soon),
            (range("bytes 10-18446744073709551615/100"), "sends bytes", Again::Soon),
            (range("lines 10-19/100"), "says not which bytes", Again::Soon),
            (range("bytes 10-19/101"), "changed while it was read", Again::No),
            (
                answer(206, &[("content-range", "bytes 10-19/100"), ("etag", "\"b\"")]),
                "it was \"a\", now it is \"b\"",
                Again::No,
            ),
            (answer(206, &[("content-range", "bytes 10-19/100")]), "does not say", Again::No),
            (answer(412, &[]), "changed while it was read", Again::No),
            (answer(416, &[]), "changed while it was read", Again::No),
            (answer(200, &[("etag", "\"a\"")]), "whole files only", Again::No),
            (answer(200, &[("etag", "\"b\"")]), "changed while it was read", Again::No),
            (answer(404, &[]), "no such file", Again::No),
            (answer(403, &[]), "refuses it", Again::No),
        ] {
            let Err(fault) = object.accepted(bad, 10, 10) else { panic!("{words}") };
            assert!(fault.error.to_string().contains(words), "{words}: {}", fault.error);
            assert_eq!(fault.again, again, "{words}");
        }
    }
}
