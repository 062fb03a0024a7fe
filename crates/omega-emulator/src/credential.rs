//! Who is asking: the ways each vendor takes a key, and the headers the journal keeps. Key values stay in here.

use http::HeaderMap;
use http::request::Parts;

use crate::problem::Problem;
use crate::provider::Provider;
use crate::record::SeenHeaders;

/// Anthropic's API versions. Source: platform.claude.com, Versions, read 2026-11-23.
pub(crate) const ANTHROPIC_VERSIONS: [&str; 2] = ["2023-06-01", "2026-10-21"];

/// The keys of a request, never printed.
pub(crate) struct Credential {
    keys: Vec<String>,
}

impl Credential {
    pub(crate) fn of(provider: Provider, parts: &Parts) -> Self {
        let header =
            |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let bearer = || {
            let value = header("authorization")?;
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        };
        let found = match provider {
            Provider::OpenAi | Provider::Grok => vec![bearer()],
            Provider::Anthropic => vec![header("x-api-key"), bearer()],
            Provider::Google => vec![header("x-goog-api-key"), query_key(parts), bearer()],
        };
        Self { keys: found.into_iter().flatten().filter(|key| !key.is_empty()).collect() }
    }

    /// The key, for quotas per key.
    pub(crate) fn key(&self) -> &str {
        self.keys.first().map_or("", String::as_str)
    }

    /// - `accepted`: the keys known; none means any.
    pub(crate) fn check(
        &self,
        provider: Provider,
        headers: &HeaderMap,
        accepted: &[String],
    ) -> Result<(), Problem> {
        let Some(key) = self.keys.first() else { return Err(Problem::MissingKey) };
        if provider == Provider::Anthropic {
            if self.keys.iter().any(|other| other != key) {
                return Err(Problem::TwoKeys);
            }
            check_version(headers)?;
        }
        if accepted.is_empty() || accepted.contains(key) { Ok(()) } else { Err(Problem::BadKey) }
    }
}

fn check_version(headers: &HeaderMap) -> Result<(), Problem> {
    let param = "anthropic-version".to_owned();
    match headers.get("anthropic-version").map(|value| value.to_str().unwrap_or_default()) {
        None => Err(Problem::InvalidValue { param, message: "header is required".into() }),
        Some(version) if ANTHROPIC_VERSIONS.contains(&version) => Ok(()),
        Some(version) => {
            Err(Problem::InvalidValue { param, message: format!("\"{version}\" is not a valid version") })
        }
    }
}

fn query_key(parts: &Parts) -> Option<String> {
    let query = parts.uri.query()?;
    query.split('&').find_map(|pair| pair.strip_prefix("key=")).map(str::to_owned)
}

/// The headers the journal keeps. Of credentials only the way they came.
pub(crate) fn seen(parts: &Parts) -> SeenHeaders {
    let header =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut auth: Vec<String> = ["authorization", "x-api-key", "x-goog-api-key"]
        .into_iter()
        .filter(|name| parts.headers.contains_key(*name))
        .map(str::to_owned)
        .collect();
    if query_key(parts).is_some() {
        auth.push("key".into());
    }
    SeenHeaders {
        user_agent: header("user-agent"),
        retry_count: header("x-stainless-retry-count"),
        anthropic_version: header("anthropic-version"),
        anthropic_beta: header("anthropic-beta"),
        client_request_id: header("x-client-request-id"),
        idempotency_key: header("idempotency-key"),
        auth,
        http_version: format!("{:?}", parts.version),
    }
}
