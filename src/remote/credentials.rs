/*! The hub's address and the user's token, by the conventions of the hub's own programs. */

use std::fmt;
use std::path::PathBuf;

/// A token: it is sent, and never printed.
#[derive(Clone)]
pub struct Token {
    secret: String,
    /// Where it is from.
    pub source: String,
}

impl Token {
    /// The value of the header.
    pub fn header(&self) -> String {
        format!("Bearer {}", self.secret)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(from {})", self.source)
    }
}

/// What the environment says about the hub.
#[derive(Debug)]
pub struct Hub {
    /// Scheme, host and port, without a slash at the end.
    pub endpoint: String,
    /// The token, if there is one.
    pub token: Option<Token>,
    /// Where files are kept.
    pub cache: Option<PathBuf>,
    /// Nothing is to be asked for.
    pub offline: bool,
}

impl Hub {
    /// Reads the environment.
    pub fn of(env: impl Fn(&str) -> Option<String>) -> Self {
        let word =
            |name: &str| env(name).map(|it| it.trim().to_owned()).filter(|it| !it.is_empty());
        let truthy = |name: &str| {
            let value = word(name).unwrap_or_default().to_ascii_uppercase();
            ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
        };
        let endpoint = word("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let caches = || {
            let beside = word("XDG_CACHE_HOME").map(PathBuf::from);
            let home = || word("HOME").or_else(|| word("USERPROFILE")).map(PathBuf::from);
            beside.or_else(|| home().map(|home| home.join(".cache")))
        };
        let home = word("HF_HOME").map(PathBuf::from);
        let home = home.or_else(|| caches().map(|caches| caches.join("huggingface")));
        let cache = word("HF_HUB_CACHE").or_else(|| word("HUGGINGFACE_HUB_CACHE"));
        let cache = cache.map(PathBuf::from).or_else(|| home.as_ref().map(|home| home.join("hub")));
        let named = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter();
        let mut tokens = named.filter_map(|name| Some((word(name)?, name.to_owned())));
        let file = || {
            let path = word("HF_TOKEN_PATH").map(PathBuf::from);
            let path = path.or_else(|| home.as_ref().map(|home| home.join("token")))?;
            let text = std::fs::read_to_string(&path).ok()?;
            let secret = text.trim();
            (!secret.is_empty()).then(|| (secret.to_owned(), path.display().to_string()))
        };
        let token = if truthy("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            None
        } else {
            tokens.next().or_else(file).map(|(secret, source)| Token { secret, source })
        };
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            cache,
            offline: truthy("HF_HUB_OFFLINE") || truthy("TRANSFORMERS_OFFLINE"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_read_as_the_hubs_own_programs_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().display().to_string();
        std::fs::write(directory.path().join("token"), "in-a-file\n").unwrap();
        let of = |set: &[(&str, &str)]| {
            let found = |name: &str| set.iter().find(|(known, _)| *known == name);
            Hub::of(|name| found(name).map(|(_, value)| (*value).to_owned()))
        };
        let secret = |hub: &Hub| hub.token.as_ref().map(Token::header);
        let hub = of(&[("HF_HOME", &home)]);
        assert_eq!(secret(&hub).as_deref(), Some("Bearer in-a-file"));
        assert_eq!(hub.endpoint, "https://huggingface.co");
        assert_eq!(hub.cache, Some(directory.path().join("hub")));
        let hub =
            of(&[("HF_HOME", &home), ("HF_TOKEN", " hf_secret "), ("HF_ENDPOINT", "http://m:1/")]);
        assert_eq!(secret(&hub).as_deref(), Some("Bearer hf_secret"));
        assert_eq!(hub.endpoint, "http://m:1");
        assert!(!format!("{hub:?}").contains("hf_secret"), "a token is never printed");
        let hub = of(&[("HF_TOKEN", "t"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "yes")]);
        assert_eq!(secret(&hub), None);
        assert!(of(&[("HF_HUB_OFFLINE", "1")]).offline);
    }
}
