/*! Asking for what is sent to a store: tokens, and keys that run out. */

use std::io::ErrorKind;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::Value;

use super::lease::Leased;
use super::secret::Secret;
use super::xml::text_of;
use crate::remote::address::origin;
use crate::remote::client::{Answer, Client, Exchange, Fault, Headers, host};
use crate::shown::percent_encoded;

/// Longest answer.
const MOST: u64 = 64 << 10;

/// A token, as everybody's servers give it.
#[derive(Deserialize)]
struct Token {
    access_token: String,
    /// A number; of some of Azure's servers, in quotes.
    expires_in: Option<Value>,
}

/// What is sent in a form.
pub fn form(fields: &[(&str, &str)]) -> String {
    let fields =
        fields.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value, "")));
    fields.collect::<Vec<_>>().join("&")
}

/// Asks for a token with a form.
pub fn token(client: &Client, url: &str, fields: &[(&str, &str)]) -> Result<Leased<Secret>, Fault> {
    let is_safe = origin(url).is_some_and(|(scheme, host, _)| {
        scheme == "https" || ["localhost", "127.0.0.1", "[::1]"].contains(&host.as_str())
    });
    if !is_safe {
        let problem = format!("{} is asked for logins by https alone", host(url));
        return Err(Fault::last(ErrorKind::PermissionDenied, problem));
    }
    let headers = vec![("Content-Type", "application/x-www-form-urlencoded".to_owned())];
    let exchange = Exchange { method: "POST", url, headers, form: form(fields), is_near: false };
    parse_token(url, &body(client.exchange(&exchange)?)?)
}

/// Asks a server beside this machine for a token; none, if there is no such server or it gives none.
pub fn near_token(
    client: &Client,
    url: &str,
    headers: Headers,
) -> Result<Option<Leased<Secret>>, Fault> {
    near(client, "GET", url, headers).map(|body| parse_token(url, &body)).transpose()
}

/// What a server beside this machine says, if there is one.
pub fn near(client: &Client, method: &str, url: &str, headers: Headers) -> Option<Vec<u8>> {
    let exchange = Exchange { method, url, headers, form: String::new(), is_near: true };
    let answer = client.exchange(&exchange).ok().filter(|answer| answer.status == 200)?;
    Client::whole(answer, MOST).ok()
}

fn parse_token(url: &str, body: &[u8]) -> Result<Leased<Secret>, Fault> {
    let token: Token = json(url, body)?;
    let seconds = match token.expires_in {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let until = seconds.and_then(|it| SystemTime::now().checked_add(Duration::from_secs(it)));
    Ok((Secret::new(token.access_token), until))
}

/// The body of an answer that gives something; what it says otherwise.
pub fn body(answer: Answer) -> Result<Vec<u8>, Fault> {
    let (status, host) = (answer.status, host(&answer.url).to_owned());
    let body = Client::whole(answer, MOST)?;
    if status == 200 {
        return Ok(body);
    }
    let code = code(&body).map(|code| format!(" {code}")).unwrap_or_default();
    let problem = format!("the login at {host} failed ({status}{code})");
    Err(Fault::last(ErrorKind::PermissionDenied, problem))
}

/// What kind of error a body says it is: a word, or nothing.
pub fn code(body: &[u8]) -> Option<String> {
    let of_json = || {
        let value: Value = serde_json::from_slice(body).ok()?;
        let places = ["/error/errors/0/reason", "/error/status", "/error", "/code"];
        places.iter().find_map(|place| Some(value.pointer(place)?.as_str()?.to_owned()))
    };
    text_of(body, "Code").or_else(of_json).filter(|code| is_word(code))
}

/// Whether it may be printed as it is.
pub fn is_word(code: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=64).contains(&code.len()) && code.bytes().all(plain)
}

/// Parses what a server says. The error does not quote it.
pub fn json<'a, T: Deserialize<'a>>(url: &str, body: &'a [u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|_| {
        let problem = format!("the answer of {} to a login is not understood", host(url));
        Fault::last(ErrorKind::InvalidData, problem)
    })
}
