/*!
One request after the other over HTTP: redirects, credentials, and what is worth another try.

Redirects are followed by hand, so that a token goes to no other scheme, host or port than the hub's, and
so that what a redirect says of a file can be read. Retries are here alone.
*/

use std::io::{self, ErrorKind, Read as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::http::HeaderMap;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::address::{origin, resolve, shown};
use super::credentials::Hub;

/// Most redirects of one request.
const HOPS: usize = 10;
/// Tries that bring nothing before it is given up.
const BARREN: u32 = 6;
/// The longest wait that a server may ask for.
const LONGEST: Duration = Duration::from_secs(300);
/// A body of so many bytes is progress: tries are counted anew.
const PROGRESS: usize = 256 << 10;

/// Bytes that were asked for: the first, and how many.
pub type Range = (u64, u64);

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    pub url: &'a str,
    pub range: Option<Range>,
    pub login: Login<'a>,
    /// Only if the file is still this one.
    pub unchanged: Option<&'a str>,
}

/// Who asks.
#[derive(Clone, Copy)]
pub enum Login<'a> {
    Nobody,
    /// The hub's token goes along, as far as the origin is the hub's.
    Hub,
    /// The request is signed for this URL alone: redirects are not followed.
    Signed(&'a dyn Sign),
}

/// Headers of a request.
pub type Headers = Vec<(&'static str, String)>;

/// Who signs requests.
pub trait Sign {
    /// The headers that say who asks; `headers` are those that say what is asked for.
    fn sign(&self, client: &Client, url: &str, headers: &Headers) -> Result<Headers, Fault>;
}

/// A request for a login, which is no file.
#[cfg(feature = "cloud")]
pub struct Exchange<'a> {
    pub method: &'a str,
    pub url: &'a str,
    pub headers: Headers,
    /// The body.
    pub form: String,
    /// Who is asked is on this machine or in its network, if it is there at all: no proxy, and little patience.
    pub is_near: bool,
}

/// What came.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// Where it came from, after redirects.
    pub url: String,
    /// The headers of the redirects on the way.
    pub redirects: Vec<HeaderMap>,
    body: Body,
}

/// What went wrong, and whether another try may help.
pub struct Fault {
    pub error: io::Error,
    pub again: Again,
    /// Bytes that arrived all the same.
    pub got: usize,
}

/// Whether another try may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    No,
    Soon,
    After(Duration),
}

impl Fault {
    pub fn last(kind: ErrorKind, problem: impl Into<String>) -> Self {
        Self { error: io::Error::new(kind, problem.into()), again: Again::No, got: 0 }
    }

    pub fn passing(problem: impl Into<String>) -> Self {
        Self { error: io::Error::other(problem.into()), again: Again::Soon, got: 0 }
    }
}

/// The client.
pub struct Client {
    agent: Agent,
    pub hub: Hub,
}

impl Client {
    pub fn new(hub: Hub) -> Self {
        let seconds = std::env::var("HF_HUB_DOWNLOAD_TIMEOUT").ok();
        let seconds = seconds.and_then(|it| it.trim().parse().ok()).filter(|it| *it > 0);
        let patience = Some(Duration::from_secs(seconds.unwrap_or(20)));
        let tls = TlsConfig::builder().root_certs(roots()).build();
        let agent = Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .tls_config(tls)
            .user_agent(concat!("qualm/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_resolve(Some(Duration::from_secs(10)))
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(patience)
            .timeout_per_read(patience)
            .max_idle_connections_per_host(16)
            .max_idle_connections(32)
            .max_idle_age(Duration::from_secs(15))
            .build()
            .new_agent();
        Self { agent, hub }
    }

    /// Asks once, and follows redirects.
    pub fn ask(&self, ask: Ask) -> Result<Answer, Fault> {
        let mut url = ask.url.to_owned();
        let mut redirects = Vec::new();
        for _ in 0..=HOPS {
            let answer = self.hop(&url, ask)?;
            let redirects_on = [301, 302, 303, 307, 308].contains(&answer.status().as_u16());
            if !redirects_on || matches!(ask.login, Login::Signed(_)) {
                let (parts, body) = answer.into_parts();
                let (status, headers) = (parts.status.as_u16(), parts.headers);
                let answer = Answer { status, headers, url, redirects, body };
                return answer.or_passing();
            }
            let (parts, body) = answer.into_parts();
            drain(body);
            let target = text(&parts.headers, "location").and_then(|it| resolve(&url, it));
            let Some(target) = target else {
                let problem = format!("{} redirects, but says not where to", host(&url));
                return Err(Fault::last(ErrorKind::InvalidData, problem));
            };
            let secure = |url: &str| origin(url).is_some_and(|(scheme, ..)| scheme == "https");
            if secure(&url) && !secure(&target) {
                let problem = format!(
                    "{} redirects from https to {}, which is not followed",
                    host(&url),
                    shown(&target)
                );
                return Err(Fault::last(ErrorKind::PermissionDenied, problem));
            }
            redirects.push(parts.headers);
            url = target;
        }
        let problem = format!("{} redirects more than {HOPS} times", host(ask.url));
        Err(Fault::last(ErrorKind::InvalidData, problem))
    }

    fn hop(&self, url: &str, ask: Ask) -> Result<ureq::http::Response<Body>, Fault> {
        let mut headers = Headers::new();
        if let Some((start, len)) = ask.range {
            headers.push(("Range", format!("bytes={start}-{}", start + len - 1)));
        }
        // A validator belongs to the server that gave it.
        if let Some(etag) = ask.unchanged.filter(|_| url == ask.url) {
            headers.push(("If-Match", etag.to_owned()));
        }
        match ask.login {
            Login::Nobody => {}
            Login::Hub => {
                let is_hub = origin(url).is_some_and(|it| Some(it) == origin(&self.hub.endpoint));
                let token = self.hub.token.as_ref().filter(|_| is_hub);
                headers.extend(token.map(|token| ("Authorization", token.header())));
            }
            Login::Signed(who) => headers.extend(who.sign(self, url, &headers)?),
        }
        let request = headers
            .into_iter()
            .fold(self.agent.get(url), |request, (name, value)| request.header(name, value));
        request.call().map_err(|error| fault(url, &error))
    }

    /// Asks for a login, once.
    #[cfg(feature = "cloud")]
    pub fn exchange(&self, exchange: &Exchange) -> Result<Answer, Fault> {
        let Exchange { method, url, headers, form, is_near } = exchange;
        let request = ureq::http::Request::builder().method(*method).uri(*url);
        let request = headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, value.as_str()));
        let invalid = |_| Fault::last(ErrorKind::InvalidInput, "a login is no valid request");
        let request = request.body(form.as_str()).map_err(invalid)?;
        let answer = if *is_near {
            let request = self.agent.configure_request(request).proxy(None);
            let request = request.timeout_connect(Some(Duration::from_secs(1)));
            self.agent.run(request.timeout_global(Some(Duration::from_secs(10))).build())
        } else {
            self.agent.run(request)
        };
        let (parts, body) = answer.map_err(|error| fault(url, &error))?.into_parts();
        let (status, headers) = (parts.status.as_u16(), parts.headers);
        Answer { status, headers, url: (*url).to_owned(), redirects: Vec::new(), body }.or_passing()
    }

    /// Reads the whole of a small answer.
    pub fn whole(answer: Answer, most: u64) -> Result<Vec<u8>, Fault> {
        let (host, mut bytes) = (host(&answer.url).to_owned(), Vec::new());
        let claimed = text(&answer.headers, "content-length").and_then(|it| it.parse::<u64>().ok());
        let read = answer.body.into_reader().take(most + 1).read_to_end(&mut bytes);
        match read {
            Err(error) => Err(cut(&host, 0, &error)),
            Ok(_) if bytes.len() as u64 > most => {
                let problem = format!("{host} sends more than {most} bytes");
                Err(Fault::last(ErrorKind::FileTooLarge, problem))
            }
            Ok(_) if claimed.is_some_and(|claimed| claimed != bytes.len() as u64) => {
                Err(Fault::passing(format!("{host} closed the connection before the end")))
            }
            Ok(_) => Ok(bytes),
        }
    }

    /// Fills a buffer from an answer; how far it came is in the fault.
    pub fn fill(answer: Answer, buffer: &mut [u8]) -> Result<(), Fault> {
        let host = host(&answer.url).to_owned();
        let mut reader = answer.body.into_reader();
        let mut got = 0;
        while got < buffer.len() {
            match reader.read(&mut buffer[got..]) {
                Ok(0) => {
                    let end = io::Error::from(ErrorKind::UnexpectedEof);
                    return Err(cut(&host, got, &end));
                }
                Ok(n) => got += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(cut(&host, got, &error)),
            }
        }
        // A connection is used again only if its body was read to the end.
        let _ = io::copy(&mut reader.take(1), &mut io::sink());
        Ok(())
    }
}

/// Asks until an answer has come that no other try would better.
pub fn persist<T>(mut attempt: impl FnMut() -> Result<T, Fault>) -> io::Result<T> {
    let mut barren = 0;
    loop {
        let fault = match attempt() {
            Ok(answer) => return Ok(answer),
            Err(fault) => fault,
        };
        barren = if fault.got >= PROGRESS { 1 } else { barren + 1 };
        if fault.again == Again::No {
            return Err(fault.error);
        }
        if barren >= BARREN {
            let problem = format!("given up after {barren} tries: {}", fault.error);
            return Err(io::Error::new(fault.error.kind(), problem));
        }
        std::thread::sleep(match fault.again {
            Again::After(wait) => wait.min(LONGEST),
            // A kept connection that the server has closed is no reason to wait.
            _ if barren == 1 => Duration::ZERO,
            _ => backoff(barren),
        });
    }
}

impl Answer {
    /// Statuses that may be others the next time.
    fn or_passing(self) -> Result<Self, Fault> {
        let after = || {
            let seconds = text(&self.headers, "retry-after").and_then(|it| it.trim().parse().ok());
            let window = text(&self.headers, "ratelimit").and_then(|it| {
                let left = it.split(';').find_map(|part| part.trim().strip_prefix("t="))?;
                left.parse::<u64>().ok().map(|it| it + 1)
            });
            seconds.or(window).map(Duration::from_secs)
        };
        let again = match self.status {
            429 | 503 => after().map_or(Again::Soon, Again::After),
            408 | 425 | 500 | 502 | 504 => Again::Soon,
            _ => return Ok(self),
        };
        let mut problem = format!("{} answers {}", host(&self.url), self.status);
        if self.status == 429 {
            problem.push_str(" (too many requests)");
        }
        drain(self.body);
        Err(Fault { error: io::Error::other(problem), again, got: 0 })
    }

    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        text(&self.headers, name)
    }

    /// A header of a redirect on the way, the last first.
    pub fn on_the_way(&self, name: &str) -> Option<&str> {
        self.redirects.iter().rev().find_map(|headers| text(headers, name))
    }

    /// The body is of no use.
    pub fn discard(self) {
        drain(self.body);
    }
}

/// A short body is read to its end, so that its connection can be used again.
fn drain(body: Body) {
    let _ = io::copy(&mut body.into_reader().take(64 << 10), &mut io::sink());
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Host and port, for people.
pub fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// A body that ended before its end.
fn cut(host: &str, got: usize, error: &io::Error) -> Fault {
    let problem = format!("the connection to {host} was lost after {got} bytes: {error}");
    Fault { error: io::Error::other(problem), again: Again::Soon, got }
}

/// A request that got no answer.
fn fault(url: &str, error: &ureq::Error) -> Fault {
    let host = host(url);
    let said = error.to_string();
    let untrusted = said.to_ascii_lowercase().contains("certificate");
    let (again, problem) = match error {
        _ if untrusted => (Again::No, format!("the certificate of {host} is not trusted: {said}")),
        ureq::Error::HostNotFound => (Again::Soon, format!("the host {host} is not found")),
        ureq::Error::ConnectionFailed => (Again::Soon, format!("cannot connect to {host}")),
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => {
            (Again::Soon, format!("{host} does not answer: {said}"))
        }
        // What says more may quote the address and its secrets.
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            (Again::No, "it is no valid address".to_owned())
        }
        _ => (Again::No, format!("cannot ask {host}: {said}")),
    };
    Fault { error: io::Error::other(problem), again, got: 0 }
}

/// Half a second, then twice as long each time, up to eight, of which a part is left to chance.
fn backoff(tries: u32) -> Duration {
    let whole = 500u64 << tries.saturating_sub(2).min(4);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let chance = u64::from(now.subsec_micros()) % (whole / 2);
    Duration::from_millis(whole / 2 + chance)
}

/// The system's certificates, if it has any: a company's own are among them.
fn roots() -> RootCerts {
    let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|it| std::env::var_os(it).is_some());
    let known =
        ["/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem"];
    let there = |path: &&str| std::path::Path::new(path).exists();
    if cfg!(any(windows, target_os = "macos")) || named || known.iter().any(there) {
        RootCerts::PlatformVerifier
    } else {
        RootCerts::WebPki
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An answer of a server, without a body.
    pub fn answer(status: u16, headers: &[(&'static str, &str)]) -> Answer {
        let headers = headers.iter().map(|(name, value)| {
            (ureq::http::HeaderName::from_static(name), value.parse().unwrap())
        });
        let body = Body::builder().data("");
        let (url, redirects) = ("http://h/x".to_owned(), Vec::new());
        Answer { status, headers: headers.collect(), url, redirects, body }
    }

    #[test]
    fn what_may_pass_is_waited_for_as_long_as_the_server_says() {
        for (status, headers, again) in [
            (429, &[("retry-after", "7")][..], Again::After(Duration::from_secs(7))),
            (429, &[("ratelimit", "\"resolvers\";r=0;t=2")], Again::After(Duration::from_secs(3))),
            (503, &[], Again::Soon),
            (500, &[], Again::Soon),
        ] {
            let Err(fault) = answer(status, headers).or_passing() else { panic!("{status}") };
            assert_eq!(fault.again, again, "{status}");
        }
        assert!(answer(404, &[]).or_passing().is_ok());
    }
}
