/*! Azure Blob Storage. */

use std::io::ErrorKind;
use std::time::SystemTime;

use super::clock;
use super::env::{self, Env};
use super::lease::{Lease, Leased};
use super::login;
use super::secret::{Secret, base64, from_base64, hmac_sha256};
use super::sigv4::target;
use super::store::{Page, Store};
use super::xml::{self, Elements};
use crate::remote::client::{Client, Fault, Headers};
use crate::shown::percent_encoded;

/// Of the interface.
const VERSION: &str = "2023-11-03";
/// What tokens are for.
const RESOURCE: &str = "https://storage.azure.com";
/// The account of the emulator, and its key, which everybody knows.
const EMULATOR: (&str, &str) = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
);

/// Azure Blob Storage.
#[derive(Debug)]
pub struct Azure {
    account: String,
    /// Without a slash at its end.
    endpoint: String,
    source: Source,
    token: Lease<Secret>,
}

/// Where the right to read comes from.
#[derive(Debug)]
enum Source {
    Nobody,
    /// The account's key.
    Key(Secret),
    /// A signed query.
    Query(Secret),
    /// A token, as it is.
    Fixed(Secret),
    /// Somebody who has a secret, or a file with a token of who vouches for this machine.
    Client {
        id: String,
        secret: Result<Secret, String>,
        url: String,
    },
    /// A server beside the machine, with what goes along.
    Instance {
        url: String,
        header: (&'static str, Secret),
    },
}

impl Azure {
    pub fn of(env: Env) -> Result<Self, String> {
        let text = env.word(&["AZURE_STORAGE_CONNECTION_STRING"]).unwrap_or_default();
        let settings: Vec<(&str, &str)> =
            text.split(';').filter_map(|it| it.split_once('=')).collect();
        let setting = |name: &str| {
            let found = settings.iter().find(|(known, _)| known.trim().eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.trim().to_owned()).filter(|it| !it.is_empty())
        };
        let says = |name: &str| setting(name).is_some_and(|it| it.eq_ignore_ascii_case("true"));
        let is_emulator = env.truthy("AZURE_STORAGE_USE_EMULATOR") || says("UseDevelopmentStorage");
        let emulated = |value: &str| is_emulator.then(|| value.to_owned());
        let account = setting("AccountName");
        let account =
            account.or_else(|| env.word(&["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"]));
        let account = account.or_else(|| emulated(EMULATOR.0));
        let account =
            account.ok_or("az:// needs the name of the account: set AZURE_STORAGE_ACCOUNT")?;
        if !account.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err("AZURE_STORAGE_ACCOUNT is no name of an account".to_owned());
        }
        let usual = || {
            let scheme = setting("DefaultEndpointsProtocol").unwrap_or_else(|| "https".to_owned());
            let suffix = setting("EndpointSuffix").unwrap_or_else(|| "core.windows.net".to_owned());
            format!("{scheme}://{account}.blob.{suffix}")
        };
        let named = env.url(&["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"])?;
        let endpoint = match setting("BlobEndpoint").or(named) {
            Some(endpoint) => endpoint,
            None if is_emulator => {
                let host = env.url(&["AZURITE_BLOB_STORAGE_URL"])?;
                let host = host.unwrap_or_else(|| "http://127.0.0.1:10000".to_owned());
                format!("{host}/{account}")
            }
            None => usual(),
        };
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let keys = ["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY"];
        let key = setting("AccountKey").or_else(|| env.word(&keys));
        let queries = ["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"];
        let query = setting("SharedAccessSignature").or_else(|| env.word(&queries));
        let source = if env.truthy("AZURE_SKIP_SIGNATURE") {
            Source::Nobody
        } else if let Some(key) = key {
            Source::Key(Secret::new(key))
        } else if let Some(query) = query {
            Source::Query(Secret::new(query.trim_start_matches('?')))
        } else if let Some(token) = env.word(&["AZURE_STORAGE_TOKEN"]) {
            Source::Fixed(Secret::new(token))
        } else if let Some(key) = emulated(EMULATOR.1) {
            Source::Key(Secret::new(key))
        } else {
            Source::of_directory(env)?
        };
        if let Source::Key(key) = &source
            && from_base64(key.reveal()).is_none()
        {
            return Err("the key of the account (AZURE_STORAGE_KEY) is no base64".to_owned());
        }
        Ok(Self { account, endpoint, source, token: Lease::default() })
    }

    /// The signature of a request by the account's key.
    ///
    /// <https://learn.microsoft.com/en-us/rest/api/storageservices/authorize-with-shared-key>
    fn signature(&self, key: &Secret, url: &str, headers: &Headers) -> String {
        let header = |name: &str| {
            let found = headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map_or("", |(_, value)| value)
        };
        let mut own: Vec<_> =
            headers.iter().filter(|(name, _)| name.starts_with("x-ms-")).collect();
        own.sort_unstable();
        let own: Vec<String> =
            own.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let (path, query) = target(url);
        // `list_url` sorts them.
        let query = query.split('&').filter_map(|it| it.split_once('='));
        let query: Vec<String> =
            query.map(|(name, value)| format!("\n{name}:{}", decoded(value))).collect();
        let (own, query) = (own.concat(), query.concat());
        let (unchanged, range) = (header("If-Match"), header("Range"));
        let account = &self.account;
        let text =
            format!("GET\n\n\n\n\n\n\n\n{unchanged}\n\n\n{range}\n{own}/{account}{path}{query}");
        let key = from_base64(key.reveal()).unwrap_or_default();
        format!("SharedKey {account}:{}", base64(&hmac_sha256(&key, &text)))
    }

    /// A signed query after another query, or none.
    fn signed(&self, url: String) -> String {
        match &self.source {
            Source::Query(query) => {
                let joint = if url.contains('?') { '&' } else { '?' };
                format!("{url}{joint}{}", query.reveal())
            }
            _ => url,
        }
    }
}

impl Source {
    /// What Microsoft's directory of users knows.
    fn of_directory(env: Env) -> Result<Self, String> {
        let word = |name: &str| env.word(&[name]);
        if let (Some(tenant), Some(id)) = (word("AZURE_TENANT_ID"), word("AZURE_CLIENT_ID")) {
            let host = env.url(&["AZURE_AUTHORITY_HOST"])?;
            let host = host.unwrap_or_else(|| "https://login.microsoftonline.com".to_owned());
            let url = format!("{host}/{}/oauth2/v2.0/token", percent_encoded(&tenant, ""));
            let secret = word("AZURE_CLIENT_SECRET").map(|secret| Ok(Secret::new(secret)));
            let secret = secret.or_else(|| word("AZURE_FEDERATED_TOKEN_FILE").map(Err));
            if let Some(secret) = secret {
                return Ok(Self::Client { id, secret, url });
            }
        }
        let resource = percent_encoded(RESOURCE, "");
        let who =
            word("AZURE_CLIENT_ID").map(|id| format!("&client_id={}", percent_encoded(&id, "")));
        let who = who.unwrap_or_default();
        if let (Some(host), Some(secret)) =
            (env.url(&["IDENTITY_ENDPOINT"])?, word("IDENTITY_HEADER"))
        {
            let url = format!("{host}?api-version=2019-08-01&resource={resource}{who}");
            return Ok(Self::Instance { url, header: ("X-IDENTITY-HEADER", Secret::new(secret)) });
        }
        let host = env.url(&["AZURE_POD_IDENTITY_AUTHORITY_HOST"])?;
        let host = host.unwrap_or_else(|| "http://169.254.169.254".to_owned());
        let url = format!(
            "{host}/metadata/identity/oauth2/token?api-version=2018-02-01&resource={resource}{who}"
        );
        Ok(Self::Instance { url, header: ("Metadata", Secret::new("true")) })
    }

    fn who(&self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Key(_) => "the account's key",
            Self::Query(_) => "the shared access signature",
            Self::Fixed(_) => "the token of AZURE_STORAGE_TOKEN",
            Self::Client { .. } => "the application of AZURE_CLIENT_ID",
            Self::Instance { .. } => "the managed identity",
        }
    }

    /// A token; none if requests need none.
    fn fetch(&self, client: &Client) -> Result<Option<Leased<Secret>>, Fault> {
        match self {
            Self::Nobody | Self::Key(_) | Self::Query(_) => Ok(None),
            Self::Fixed(token) => Ok(Some((token.clone(), None))),
            Self::Client { id, secret, url } => {
                let scope = format!("{RESOURCE}/.default");
                let mut form = vec![
                    ("grant_type", "client_credentials"),
                    ("client_id", id),
                    ("scope", &scope),
                ];
                let token = match secret {
                    Ok(secret) => {
                        form.push(("client_secret", secret.reveal()));
                        return login::token(client, url, &form).map(Some);
                    }
                    Err(path) => env::file(path),
                };
                let token =
                    token.map_err(|problem| Fault::last(ErrorKind::PermissionDenied, problem))?;
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                form.extend([("client_assertion_type", kind), ("client_assertion", token.trim())]);
                login::token(client, url, &form).map(Some)
            }
            Self::Instance { url, header: (name, value) } => {
                login::near_token(client, url, vec![(*name, value.reveal().to_owned())])
            }
        }
    }
}

impl Store for Azure {
    fn url(&self, bucket: &str, key: &str) -> String {
        let (bucket, key) = (percent_encoded(bucket, "$"), percent_encoded(key, "/"));
        self.signed(format!("{}/{bucket}/{key}", self.endpoint))
    }

    fn list_url(&self, bucket: &str, prefix: &str, next: Option<&str>) -> String {
        // Sorted, as they are signed.
        let next = next.map(|it| format!("&marker={}", percent_encoded(it, "")));
        let (bucket, next) = (percent_encoded(bucket, "$"), next.unwrap_or_default());
        let prefix = percent_encoded(prefix, "");
        self.signed(format!(
            "{}/{bucket}?comp=list&delimiter=%2F{next}&prefix={prefix}&restype=container",
            self.endpoint
        ))
    }

    fn page(&self, body: &[u8]) -> Result<Page, String> {
        let (file, folder) = (("Blob", "Name"), ("BlobPrefix", "Name"));
        xml::page(body, Elements { file, folder, next: "NextMarker" })
    }

    fn sign(
        &self,
        client: &Client,
        _: &str,
        url: &str,
        headers: &Headers,
    ) -> Result<Headers, Fault> {
        let mut own = vec![("x-ms-version", VERSION.to_owned())];
        if let Source::Key(key) = &self.source {
            own.push(("x-ms-date", clock::http(SystemTime::now())));
            let all = headers.iter().chain(&own).cloned().collect();
            own.push(("Authorization", self.signature(key, url, &all)));
        }
        let token = self.token.get(|| self.source.fetch(client))?;
        own.extend(token.map(|token| ("Authorization", format!("Bearer {}", token.reveal()))));
        Ok(own)
    }

    fn who(&self) -> Option<String> {
        match &self.source {
            Source::Nobody => None,
            Source::Instance { .. } if !self.token.is_held() => None,
            source => Some(format!("{} ({})", source.who(), self.account)),
        }
    }

    fn variables(&self) -> &'static str {
        "AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_TOKEN, AZURE_TENANT_ID \
         with AZURE_CLIENT_ID and AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE, and the managed identity"
    }
}

/// What percent-encoded text stands for.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|it| std::str::from_utf8(it).ok());
        let byte = digits.filter(|_| first == b'%').and_then(|it| u8::from_str_radix(it, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::bucket::env::tests::with;

    #[test]
    fn an_account_and_its_blobs_have_their_urls() {
        let text = "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=aGlkZGVu;EndpointSuffix=core.test";
        let emulator = "UseDevelopmentStorage=true";
        for (set, url, who) in [
            (
                &[("AZURE_STORAGE_CONNECTION_STRING", text)][..],
                "https://acc.blob.core.test/c/a%20b/x",
                "the account's key (acc)",
            ),
            (
                &[("AZURE_STORAGE_CONNECTION_STRING", emulator)],
                "http://127.0.0.1:10000/devstoreaccount1/c/a%20b/x",
                "the account's key (devstoreaccount1)",
            ),
            (
                &[("AZURE_STORAGE_ACCOUNT", "acc"), ("AZURE_STORAGE_SAS_TOKEN", "?sv=1&sig=a%3D")],
                "https://acc.blob.core.windows.net/c/a%20b/x?sv=1&sig=a%3D",
                "the shared access signature (acc)",
            ),
            (
                &[
                    ("AZURE_STORAGE_ACCOUNT_NAME", "acc"),
                    ("AZURE_TENANT_ID", "t"),
                    ("AZURE_CLIENT_ID", "i"),
                    ("AZURE_CLIENT_SECRET", "aGlkZGVu"),
                ],
                "https://acc.blob.core.windows.net/c/a%20b/x",
                "the application of AZURE_CLIENT_ID (acc)",
            ),
        ] {
            let azure = with(set, Azure::of).unwrap();
            assert_eq!(azure.url("c", "a b/x"), url);
            assert_eq!(azure.who().as_deref(), Some(who));
            assert!(!format!("{azure:?}").contains("aGlkZGVu"), "a secret is never printed");
        }
        assert!(with(&[], Azure::of).unwrap_err().contains("AZURE_STORAGE_ACCOUNT"));
        let bad = [("AZURE_STORAGE_ACCOUNT", "a"), ("AZURE_STORAGE_KEY", "?")];
        assert!(with(&bad, Azure::of).unwrap_err().contains("base64"));
        assert_eq!(decoded("a%20b%2F%C3%BC%zz%"), "a b/ü%zz%");
    }
}
