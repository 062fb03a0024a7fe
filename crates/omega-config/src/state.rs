//! Where limits and breakers live, and what a process does when it cannot get there.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::value::shortened;

/// Where limits and breakers live.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// In this process, or in a store that others use too.
    pub store: StoreAddress,
    /// The part of every limit that a process which has never reached the store allows itself, from 0 to 1.
    pub offline_share: f64,
    /// How long an answer of the store is waited for.
    pub timeout: Duration,
    /// What the names of everything in the store begin with: processes share what has the same.
    pub namespace: String,
}

impl Default for State {
    fn default() -> Self {
        Self {
            store: StoreAddress::Memory,
            offline_share: 0.1,
            timeout: Duration::from_millis(25),
            namespace: String::from("omega"),
        }
    }
}

/// What `state` says.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreAddress {
    /// `memory`: in this process.
    Memory,
    /// `sqlite:///path`: in a file that the processes of one machine share.
    Sqlite(PathBuf),
    /// `redis://…` and its kin: in Redis or Valkey. May hold a password.
    Redis(String),
}

/// The address without its password.
impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The address without its password.
impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Redis(url) => {
                let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
                let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
                match user.split_once(':') {
                    Some((user, _)) => write!(f, "{scheme}://{user}:[redacted]@{host}"),
                    None if user.is_empty() => write!(f, "{scheme}://{host}"),
                    None => write!(f, "{scheme}://{user}@{host}"),
                }
            }
        }
    }
}

/// Schemes that Redis and Valkey go by: with `s` over TLS, with `+cluster` for a cluster.
const REDIS: [&str; 8] = [
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "redis+cluster",
    "rediss+cluster",
    "valkey+cluster",
    "valkeys+cluster",
];

impl StoreAddress {
    /// Reads what `state` says. An address may carry a password, so only its scheme is repeated.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected `memory`, `sqlite:///path` or `redis://host:port`";
        if text == "memory" {
            return Ok(Self::Memory);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            let kind = text.split(':').next().unwrap_or_default();
            return Err(format!("{EXPECTED}, found `{}`", shortened(kind)));
        };
        if rest.is_empty() || rest.chars().any(|letter| letter.is_control() || letter == ' ') {
            return Err(format!("{EXPECTED}; nothing usable follows `{}://`", shortened(scheme)));
        }
        match scheme {
            "sqlite" if rest.ends_with('/') => {
                Err(format!("{EXPECTED}; `sqlite://` wants a file, not a folder"))
            }
            "sqlite" => Ok(Self::Sqlite(Path::new(rest).to_owned())),
            scheme if REDIS.contains(&scheme) => {
                let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                if host.starts_with('/') || host.starts_with(':') {
                    return Err(format!("{EXPECTED}; `{scheme}://` wants a host"));
                }
                Ok(Self::Redis(text.to_owned()))
            }
            other => Err(format!("{EXPECTED}, found `{}://`", shortened(other))),
        }
    }

    /// Is it in this process alone?
    pub fn is_memory(&self) -> bool {
        *self == Self::Memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_their_password() {
        for (text, shown) in [
            ("memory", "memory"),
            ("sqlite:///var/lib/omega/state.db", "sqlite:///var/lib/omega/state.db"),
            ("sqlite://state.db", "sqlite://state.db"),
            ("redis://store:6379/2", "redis://store:6379/2"),
            ("rediss://omega:hunter2@store", "rediss://omega:[redacted]@store"),
            ("redis://:hunter2@store", "redis://:[redacted]@store"),
            ("valkey+cluster://one,two", "valkey+cluster://one,two"),
        ] {
            let address = StoreAddress::read(text).expect(text);
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.into(), shown.into()));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_being_repeated() {
        for text in
            ["", "mysql://a:hunter2@b", "redis://", "redis://:6379", "sqlite://", "sqlite:///tmp/", "hunter2"]
        {
            let message = StoreAddress::read(text).expect_err(text);
            assert!(message.starts_with("expected `memory`, `sqlite:///path` or"), "{message}");
            assert!(!message.contains("hunter2@"), "{message}");
        }
    }
}
