/*! Google Cloud Storage: objects by its XML interface, which gives ranges, and listings by its JSON interface. */

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::json;

use super::clock;
use super::env::{self, Env};
use super::lease::{Lease, Leased};
use super::login;
use super::secret::{Secret, base64_for_urls};
use super::store::{Page, Store};
use crate::remote::client::{Client, Fault, Headers};
use crate::shown::percent_encoded;

const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_only";
const TOKENS: &str = "https://oauth2.googleapis.com/token";

/// Google Cloud Storage.
#[derive(Debug)]
pub struct Google {
    endpoint: String,
    source: Source,
    token: Lease<Secret>,
}

/// Where tokens come from.
#[derive(Debug)]
enum Source {
    Nobody,
    /// A token, of this variable.
    Fixed(Secret, &'static str),
    ServiceAccount(Account),
    User {
        id: String,
        secret: Secret,
        refresh: Secret,
        tokens: String,
        place: String,
    },
    /// A server beside the machine, if it is one of Google's.
    Instance {
        host: String,
    },
}

/// A service account with its key.
#[derive(Clone)]
struct Account {
    email: String,
    key: Arc<RsaKeyPair>,
    key_id: Option<String>,
    tokens: String,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.email)
    }
}

/// A file of credentials.
#[derive(Deserialize)]
struct File {
    #[serde(rename = "type")]
    kind: Option<String>,
    client_email: Option<String>,
    private_key: Option<String>,
    private_key_id: Option<String>,
    token_uri: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    refresh_token: Option<String>,
}

/// A page of a listing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    #[serde(default)]
    items: Vec<Item>,
    #[serde(default)]
    prefixes: Vec<String>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    name: String,
}

impl Google {
    pub fn of(env: Env) -> Result<Self, String> {
        let emulator = env.word(&["STORAGE_EMULATOR_HOST"]).map(|it| {
            let url = if it.contains("://") { it } else { format!("http://{it}") };
            url.trim_end_matches('/').to_owned()
        });
        let source = Source::of(env, emulator.is_some())?;
        let endpoint = emulator.unwrap_or_else(|| "https://storage.googleapis.com".to_owned());
        Ok(Self { endpoint, source, token: Lease::default() })
    }
}

impl Source {
    fn of(env: Env, is_emulator: bool) -> Result<Self, String> {
        let token = "CLOUDSDK_AUTH_ACCESS_TOKEN";
        if let Some(secret) = env.word(&[token]) {
            return Ok(Self::Fixed(Secret::new(secret), token));
        }
        if let Some((text, name)) = env.named(&["GOOGLE_SERVICE_ACCOUNT_KEY"]) {
            return Self::parse(&text, name);
        }
        let files = [
            "GOOGLE_SERVICE_ACCOUNT",
            "GOOGLE_SERVICE_ACCOUNT_PATH",
            "GOOGLE_APPLICATION_CREDENTIALS",
        ];
        if let Some((path, name)) = env.named(&files) {
            return Self::parse(&env::file(path)?, name);
        }
        if is_emulator {
            return Ok(Self::Nobody);
        }
        let settings = env.word(&["CLOUDSDK_CONFIG"]).map(PathBuf::from);
        let settings = settings.or_else(|| match env.word(&["APPDATA"]) {
            Some(folder) if cfg!(windows) => Some(PathBuf::from(folder).join("gcloud")),
            _ => Some(env.home()?.join(".config/gcloud")),
        });
        let path = settings.map(|it| it.join("application_default_credentials.json"));
        if let Some(path) = path
            && let Some(text) = env::file_if_present(&path)?
        {
            return Self::parse(&text, "gcloud auth application-default login");
        }
        if env.truthy("NO_GCE_CHECK") {
            return Ok(Self::Nobody);
        }
        let host = env.word(&["GCE_METADATA_HOST"]).unwrap_or_else(|| "169.254.169.254".to_owned());
        Ok(Self::Instance { host })
    }

    /// Reads a file of credentials. The error quotes nothing of it.
    fn parse(text: &str, place: &str) -> Result<Self, String> {
        let odd = |what: &str| format!("the credentials of {place} {what}");
        let file: File = serde_json::from_str(text).map_err(|_| odd("are not understood"))?;
        let tokens = file.token_uri.unwrap_or_else(|| TOKENS.to_owned());
        match file.kind.as_deref() {
            Some("service_account") => {
                let (Some(email), Some(key)) = (file.client_email, file.private_key) else {
                    return Err(odd("have no client_email or no private_key"));
                };
                let key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).ok();
                let key = key.and_then(|key| RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).ok());
                let key =
                    Arc::new(key.ok_or_else(|| odd("have a private_key that is no RSA key"))?);
                Ok(Self::ServiceAccount(Account {
                    email,
                    key,
                    key_id: file.private_key_id,
                    tokens,
                }))
            }
            Some("authorized_user") => {
                let (Some(id), Some(secret), Some(refresh)) =
                    (file.client_id, file.client_secret, file.refresh_token)
                else {
                    return Err(odd("have no client_id, client_secret or refresh_token"));
                };
                let (secret, refresh) = (Secret::new(secret), Secret::new(refresh));
                Ok(Self::User { id, secret, refresh, tokens, place: place.to_owned() })
            }
            other => Err(odd(&format!(
                "are of the type {:?}, which qualm does not use: set CLOUDSDK_AUTH_ACCESS_TOKEN to what `gcloud \
                 auth print-access-token` prints",
                other.filter(|it| login::is_word(it)).unwrap_or_default()
            ))),
        }
    }

    fn who(&self) -> String {
        match self {
            Self::Nobody => "nobody".to_owned(),
            Self::Fixed(_, name) => format!("the token of {name}"),
            Self::ServiceAccount(account) => format!("the service account {}", account.email),
            Self::User { place, .. } => format!("the user of {place}"),
            Self::Instance { .. } => "the machine's service account".to_owned(),
        }
    }

    fn fetch(&self, client: &Client) -> Result<Option<Leased<Secret>>, Fault> {
        match self {
            Self::Nobody => Ok(None),
            Self::Fixed(token, _) => Ok(Some((token.clone(), None))),
            Self::ServiceAccount(account) => {
                let assertion = account.assertion(SystemTime::now())?;
                let kind = "urn:ietf:params:oauth:grant-type:jwt-bearer";
                let form = [("grant_type", kind), ("assertion", &*assertion)];
                login::token(client, &account.tokens, &form).map(Some)
            }
            Self::User { id, secret, refresh, tokens, .. } => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("client_id", id),
                    ("client_secret", secret.reveal()),
                    ("refresh_token", refresh.reveal()),
                ];
                login::token(client, tokens, &form).map(Some)
            }
            Self::Instance { host } => {
                let url = format!(
                    "http://{host}/computeMetadata/v1/instance/service-accounts/default/token?scopes={}",
                    percent_encoded(SCOPE, "")
                );
                login::near_token(client, &url, vec![("Metadata-Flavor", "Google".to_owned())])
            }
        }
    }
}

impl Account {
    /// What the account says of itself, signed with its key (RFC 7523).
    fn assertion(&self, now: SystemTime) -> Result<String, Fault> {
        let mut header = json!({ "alg": "RS256", "typ": "JWT" });
        if let Some(id) = &self.key_id {
            header["kid"] = json!(id);
        }
        let now = clock::seconds(now);
        let claims = json!({
            "iss": self.email, "scope": SCOPE, "aud": self.tokens, "iat": now, "exp": now + 3600,
        });
        let part = |value: &serde_json::Value| base64_for_urls(value.to_string().as_bytes());
        let text = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| {
                Fault::last(ErrorKind::InvalidInput, "the key of the service account does not sign")
            })?;
        Ok(format!("{text}.{}", base64_for_urls(&signature)))
    }
}

impl Store for Google {
    fn url(&self, bucket: &str, key: &str) -> String {
        format!("{}/{}/{}", self.endpoint, percent_encoded(bucket, ""), percent_encoded(key, "/"))
    }

    fn list_url(&self, bucket: &str, prefix: &str, next: Option<&str>) -> String {
        let next =
            next.map(|it| format!("&pageToken={}", percent_encoded(it, ""))).unwrap_or_default();
        let (bucket, prefix) = (percent_encoded(bucket, ""), percent_encoded(prefix, ""));
        let fields = "items(name),prefixes,nextPageToken";
        format!(
            "{}/storage/v1/b/{bucket}/o?delimiter=%2F&prefix={prefix}&fields={fields}{next}",
            self.endpoint
        )
    }

    fn page(&self, body: &[u8]) -> Result<Page, String> {
        let listing: Listing = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let files = listing.items.into_iter().map(|item| item.name).collect();
        let next = listing.next_page_token.filter(|it| !it.is_empty());
        Ok(Page { files, folders: listing.prefixes, next })
    }

    fn sign(&self, client: &Client, _: &str, _: &str, _: &Headers) -> Result<Headers, Fault> {
        let token = self.token.get(|| self.source.fetch(client))?;
        let token = token.map(|token| ("Authorization", format!("Bearer {}", token.reveal())));
        Ok(token.into_iter().collect())
    }

    fn who(&self) -> Option<String> {
        match &self.source {
            Source::Nobody => None,
            Source::Instance { .. } if !self.token.is_held() => None,
            source => Some(source.who()),
        }
    }

    fn variables(&self) -> &'static str {
        "GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_SERVICE_ACCOUNT, CLOUDSDK_AUTH_ACCESS_TOKEN, the login of `gcloud auth \
         application-default login`, and the machine's service account"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::bucket::env::tests::with;

    #[test]
    fn an_object_and_a_listing_have_their_urls() {
        let google = with(&[("NO_GCE_CHECK", "true")], Google::of).unwrap();
        assert_eq!(google.url("b", "a b/ü"), "https://storage.googleapis.com/b/a%20b/%C3%BC");
        let google = with(&[("STORAGE_EMULATOR_HOST", "127.0.0.1:1/")], Google::of).unwrap();
        let listed = google.list_url("b", "m/", Some("x="));
        let expected = "http://127.0.0.1:1/storage/v1/b/b/o?delimiter=%2F&prefix=m%2F&fields=\
                        items(name),prefixes,nextPageToken&pageToken=x%3D";
        assert_eq!(listed, expected);
        // As the interface's documentation has it.
        let body = br#"{"kind": "storage#objects", "nextPageToken": "t", "prefixes": ["m/d/"],
            "items": [{"kind": "storage#object", "name": "m/a.gguf", "size": "1"}]}"#;
        let (files, folders) = (vec!["m/a.gguf".to_owned()], vec!["m/d/".to_owned()]);
        assert_eq!(google.page(body), Ok(Page { files, folders, next: Some("t".to_owned()) }));
        assert_eq!(google.page(b"{}"), Ok(Page::default()));
        assert!(google.page(b"no").is_err());
    }

    #[test]
    fn credentials_are_looked_for_and_never_printed() {
        let user = r#"{"type": "authorized_user", "client_id": "i", "client_secret": "hidden", "refresh_token": "hidden"}"#;
        let federated = r#"{"type": "external_account", "audience": "a"}"#;
        let off = ("NO_GCE_CHECK", "1");
        for (set, who) in [
            (&[off][..], None),
            (
                &[("CLOUDSDK_AUTH_ACCESS_TOKEN", "hidden")],
                Some("the token of CLOUDSDK_AUTH_ACCESS_TOKEN"),
            ),
            (
                &[("GOOGLE_SERVICE_ACCOUNT_KEY", user)],
                Some("the user of GOOGLE_SERVICE_ACCOUNT_KEY"),
            ),
        ] {
            let google = with(set, Google::of).unwrap();
            assert_eq!(google.who().as_deref(), who);
            assert!(!format!("{google:?}").contains("hidden"));
        }
        for (name, text, words) in [
            ("GOOGLE_SERVICE_ACCOUNT_KEY", federated, "print-access-token"),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", "{", "not understood"),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", r#"{"type": "service_account"}"#, "no client_email"),
            ("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json", "not there"),
        ] {
            let said = with(&[(name, text)], Google::of).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }
}
