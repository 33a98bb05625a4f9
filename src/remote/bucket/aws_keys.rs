/*!
Where keys for Amazon S3 come from, in the order of Amazon's own programs: the environment, a web identity, a profile,
the container, the instance; and if there is none, requests are not signed.
*/

use std::io::ErrorKind;
use std::time::SystemTime;

use serde::Deserialize;

use super::aws_profile::Profile;
use super::clock;
use super::env::{self, Env};
use super::lease::Leased;
use super::login;
use super::secret::Secret;
use super::sigv4::Key;
use super::xml::text_of;
use crate::remote::address::origin;
use crate::remote::client::{Client, Exchange, Fault};

/// Hosts beside a container that are asked without https, as Amazon's programs do.
const BESIDE: [&str; 6] =
    ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]", "localhost", "127.0.0.1", "[::1]"];

/// Where keys come from.
#[derive(Debug)]
pub enum Source {
    Nobody,
    /// A key, and where it stands.
    Fixed(Key, String),
    /// A token of somebody who vouches for this machine, in a file, is exchanged for keys of a role.
    WebIdentity {
        file: String,
        role: String,
        session: String,
        endpoint: String,
    },
    /// A server beside the container.
    Container {
        url: String,
        token: Option<String>,
        token_file: Option<String>,
    },
    /// A server beside the machine, if it is one of Amazon's.
    Instance {
        endpoint: String,
    },
}

/// Keys, as servers beside containers and machines give them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

impl Source {
    pub fn of(env: Env, profile: &Profile, region: &str) -> Result<Self, String> {
        let word = |name: &str| env.word(&[name]);
        if env.truthy("AWS_SKIP_SIGNATURE") {
            return Ok(Self::Nobody);
        }
        match (word("AWS_ACCESS_KEY_ID"), word("AWS_SECRET_ACCESS_KEY")) {
            (Some(id), Some(secret)) => {
                let session = word("AWS_SESSION_TOKEN").map(Secret::new);
                let key = Key { id, secret: Secret::new(secret), session };
                return Ok(Self::Fixed(key, "AWS_ACCESS_KEY_ID".to_owned()));
            }
            (None, None) => {}
            _ => {
                return Err(
                    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set together".to_owned()
                );
            }
        }
        if let (Some(file), Some(role)) =
            (word("AWS_WEB_IDENTITY_TOKEN_FILE"), word("AWS_ROLE_ARN"))
        {
            let session = word("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "qualm".to_owned());
            let usual = || format!("https://sts.{region}.{}", domain(region));
            let endpoint = env.url(&["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"])?;
            let endpoint = endpoint.unwrap_or_else(usual);
            return Ok(Self::WebIdentity { file, role, session, endpoint });
        }
        if let Some(key) = profile.key()? {
            return Ok(Self::Fixed(key, format!("the profile {}", profile.name)));
        }
        let beside =
            |path: String| format!("http://169.254.170.2/{}", path.trim_start_matches('/'));
        let url = word("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(beside);
        if let Some(url) = url.or_else(|| word("AWS_CONTAINER_CREDENTIALS_FULL_URI")) {
            let is_near = origin(&url).is_some_and(|(scheme, host, _)| {
                scheme == "https" || BESIDE.contains(&host.as_str())
            });
            if !is_near {
                let problem =
                    "AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https nor beside this machine";
                return Err(problem.to_owned());
            }
            let token = word("AWS_CONTAINER_AUTHORIZATION_TOKEN");
            let token_file = word("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
            return Ok(Self::Container { url, token, token_file });
        }
        if env.truthy("AWS_EC2_METADATA_DISABLED") {
            return Ok(Self::Nobody);
        }
        let endpoint = env.url(&["AWS_EC2_METADATA_SERVICE_ENDPOINT"])?;
        let endpoint = endpoint.unwrap_or_else(|| "http://169.254.169.254".to_owned());
        Ok(Self::Instance { endpoint })
    }

    /// Whose keys they are.
    pub fn who(&self) -> String {
        match self {
            Self::Nobody => "nobody".to_owned(),
            Self::Fixed(_, place) => format!("the key of {place}"),
            Self::WebIdentity { role, .. } => format!("the role {role} (AWS_ROLE_ARN)"),
            Self::Container { .. } => "the container's role".to_owned(),
            Self::Instance { .. } => "the instance's role".to_owned(),
        }
    }

    /// Keys; none if requests are not signed.
    pub fn fetch(&self, client: &Client) -> Result<Option<Leased<Key>>, Fault> {
        match self {
            Self::Nobody => Ok(None),
            Self::Fixed(key, _) => Ok(Some((key.clone(), None))),
            Self::WebIdentity { file, role, session, endpoint } => {
                let denied = |problem| Fault::last(ErrorKind::PermissionDenied, problem);
                let token = env::file(file).map_err(denied)?;
                let form = login::form(&[
                    ("Action", "AssumeRoleWithWebIdentity"),
                    ("RoleArn", role),
                    ("RoleSessionName", session),
                    ("Version", "2011-06-15"),
                    ("WebIdentityToken", token.trim()),
                ]);
                let url = &format!("{endpoint}/");
                let headers =
                    vec![("Content-Type", "application/x-www-form-urlencoded".to_owned())];
                let exchange = Exchange { method: "POST", url, headers, form, is_near: false };
                let body = login::body(client.exchange(&exchange)?)?;
                let text = |name| text_of(&body, name).filter(|it| !it.is_empty());
                let (Some(id), Some(secret)) = (text("AccessKeyId"), text("SecretAccessKey"))
                else {
                    return Err(denied("the login of the role gives no keys".to_owned()));
                };
                let session = text("SessionToken").map(Secret::new);
                let key = Key { id, secret: Secret::new(secret), session };
                Ok(Some((key, text("Expiration").and_then(|it| clock::parse(&it)))))
            }
            Self::Container { url, token, token_file } => {
                let denied = |problem| Fault::last(ErrorKind::PermissionDenied, problem);
                let read =
                    token_file.as_ref().map(|file| env::file(file).map_err(denied)).transpose()?;
                let token = read.as_ref().or(token.as_ref());
                let headers = token.map(|it| ("Authorization", it.trim().to_owned()));
                let body = login::near(client, "GET", url, headers.into_iter().collect());
                let body =
                    body.ok_or_else(|| denied("the container's role gives no keys".to_owned()))?;
                given(url, &body).map(Some)
            }
            Self::Instance { endpoint } => {
                let seconds = vec![("X-aws-ec2-metadata-token-ttl-seconds", "21600".to_owned())];
                let token =
                    login::near(client, "PUT", &format!("{endpoint}/latest/api/token"), seconds);
                let Some(token) = token.and_then(|it| String::from_utf8(it).ok()) else {
                    return Ok(None);
                };
                let ask = |url: &str| {
                    let headers = vec![("X-aws-ec2-metadata-token", token.clone())];
                    login::near(client, "GET", url, headers)
                };
                let roles = format!("{endpoint}/latest/meta-data/iam/security-credentials/");
                let role = ask(&roles).and_then(|it| String::from_utf8(it).ok());
                let role = role
                    .as_deref()
                    .and_then(|it| it.lines().next())
                    .filter(|it| login::is_word(it));
                let Some(role) = role else { return Ok(None) };
                let url = format!("{roles}{role}");
                ask(&url).map(|body| given(&url, &body)).transpose()
            }
        }
    }
}

fn given(url: &str, body: &[u8]) -> Result<Leased<Key>, Fault> {
    let given: Given = login::json(url, body)?;
    let (secret, session) = (Secret::new(given.secret_access_key), given.token.map(Secret::new));
    let until: Option<SystemTime> = given.expiration.and_then(|it| clock::parse(&it));
    Ok((Key { id: given.access_key_id, secret, session }, until))
}

/// Where a region is found.
pub fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}
