//! Who is let in: whose key it is, and that no web page spends the quota behind its reader's back.
//!
//! Without keys only programs of this machine are let in, and among those are browsers that run other people's pages.
//! Such a page can send requests to 127.0.0.1 (its `Origin` tells on it) and can have its own name point there (its
//! `Host` does), but cannot send JSON as a simple request.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, StatusCode, Uri};

use crate::answer::Refusal;
use crate::keys::Key;
use crate::state::{Current, Shared};

/// What an endpoint asks of whoever calls it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// To spend quota.
    Call,
    /// To look at what the gateway says of itself.
    Look,
    /// To change it.
    Change,
}

/// Whose request this is; `None` while no keys are configured.
pub(crate) fn let_in(
    shared: &Shared,
    current: &Current,
    headers: &HeaderMap,
    uri: &Uri,
    right: Right,
) -> Result<Option<Arc<Key>>, Refusal> {
    if current.keys.is_empty() {
        guard_against_pages(shared, current, headers, uri)?;
        // Whoever forced the gateway open has said that something in front of it checks who calls; it cannot know what
        // may be looked at, and nobody needs to change this one from afar.
        if right == Right::Change && !shared.is_closed_to_others() {
            return Err(forbidden("without keys, only a gateway on a loopback address takes this"));
        }
        return Ok(None);
    }
    if right == Right::Look && shared.is_closed_to_others() {
        guard_against_pages(shared, current, headers, uri)?;
        return Ok(None);
    }
    let Some(secret) = secret(headers, uri) else {
        return Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "missing_api_key",
            "no key was sent; send the one you were given as `Authorization: Bearer`, `x-api-key` or `x-goog-api-key`",
        ));
    };
    let Some(key) = current.keys.find(&secret) else {
        return Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "invalid_api_key",
            "this key is not known here; a gateway's keys are not the providers' keys",
        ));
    };
    if right != Right::Call && !key.is_admin {
        return Err(forbidden("this needs a key with `admin: true`"));
    }
    Ok(Some(key))
}

fn forbidden(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "not_allowed", message)
}

/// A body must say that it is JSON: what a page can send without asking first never does.
pub(crate) fn require_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let is_json = essence.eq_ignore_ascii_case("application/json")
        || essence
            .get(essence.len().saturating_sub(5)..)
            .is_some_and(|end| end.eq_ignore_ascii_case("+json"));
    match is_json {
        true => Ok(()),
        false => Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_json",
            "the body must be JSON and say so: `content-type: application/json`",
        )),
    }
}

/// The secret a caller sends, wherever its SDK puts it.
pub(crate) fn secret(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, secret) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
    });
    let in_header = bearer.or_else(|| text("x-api-key")).or_else(|| text("x-goog-api-key"));
    let in_query = || uri.query()?.split('&').find_map(|pair| pair.strip_prefix("key="));
    in_header.or_else(in_query).filter(|secret| !secret.is_empty()).map(str::to_owned)
}

fn guard_against_pages(
    shared: &Shared,
    current: &Current,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<(), Refusal> {
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        if !current.settings.allowed_origins.contains(&origin) {
            return Err(forbidden(
                "web pages may not call this gateway; name the page's origin in gateway.allowed_origins if it may",
            ));
        }
    }
    // Behind something that checks who calls, it has whatever name that has.
    if !shared.is_closed_to_others() {
        return Ok(());
    }
    let host =
        headers.get(HOST).and_then(|host| host.to_str().ok()).or_else(|| uri.authority().map(|a| a.as_str()));
    let name = name_of(host.unwrap_or_default());
    let is_ours = name.eq_ignore_ascii_case("localhost")
        || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || current.settings.allowed_hosts.iter().any(|allowed| name.eq_ignore_ascii_case(allowed));
    match is_ours {
        true => Ok(()),
        false => Err(forbidden(
            "this gateway is not known under that name (`Host`); name it in gateway.allowed_hosts if it is",
        )),
    }
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().expect("a name"), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_secret_is_found_wherever_an_sdk_puts_it() {
        let here = Uri::from_static("/v1/models");
        for pair in [
            ("authorization", "Bearer s"),
            ("authorization", "bearer  s"),
            ("x-api-key", "s"),
            ("x-goog-api-key", "s"),
        ] {
            assert_eq!(secret(&headers(&[pair]), &here).as_deref(), Some("s"), "{pair:?}");
        }
        let in_query = Uri::from_static("/v1beta/models/m:generateContent?alt=sse&key=s");
        assert_eq!(secret(&HeaderMap::new(), &in_query).as_deref(), Some("s"));
        for pair in [("authorization", "Basic s"), ("authorization", "Bearer "), ("x-api-key", "")] {
            assert_eq!(secret(&headers(&[pair]), &here), None, "{pair:?}");
        }
    }

    #[test]
    fn a_body_must_say_that_it_is_json() {
        for kind in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"] {
            assert!(require_json(&headers(&[("content-type", kind)])).is_ok(), "{kind}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "json", ""] {
            assert!(require_json(&headers(&[("content-type", kind)])).is_err(), "{kind}");
        }
        assert!(require_json(&HeaderMap::new()).is_err());
    }

    #[test]
    fn a_host_is_compared_without_its_port() {
        for (host, name) in
            [("localhost:80", "localhost"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("a", "a")]
        {
            assert_eq!(name_of(host), name);
        }
    }
}
