//! The rows of the gateway: where it listens, what it bounds, who may call it.

use std::net::{Ipv6Addr, SocketAddr};

use super::{DAY, Key, count, seconds, text};
use crate::value::{Kind, Value, shortened};

pub(super) static KEYS: [Key; 13] = [
    Key::new(
        "gateway.listen",
        text("an IP address and a port", check_address),
        "Where `omega serve` listens.",
        |c, _| Value::Text(c.gateway.listen.to_string()),
        |c, _, v| c.gateway.listen = v.text().parse().expect("the address was checked when it was read"),
    ),
    Key::new(
        "gateway.max_body_bytes",
        count(1_024, 1_024 * 1_024 * 1_024),
        "The largest request body; a larger one is answered 413 before it is read. 32 MiB is the most that Anthropic takes.",
        |c, _| Value::Count(c.gateway.max_body_bytes),
        |c, _, v| c.gateway.max_body_bytes = v.count(),
    ),
    Key::new(
        "gateway.max_header_bytes",
        count(4 * 1_024, 1_024 * 1_024),
        "The largest head of a request: its first line and headers together.",
        |c, _| Value::Count(c.gateway.max_header_bytes),
        |c, _, v| c.gateway.max_header_bytes = v.count(),
    ),
    Key::new(
        "gateway.header_timeout_seconds",
        seconds(SHORTEST, HOUR),
        "How long a caller may take to send a request's head.",
        |c, _| Value::Seconds(c.gateway.header_timeout),
        |c, _, v| c.gateway.header_timeout = v.seconds(),
    ),
    Key::new(
        "gateway.body_timeout_seconds",
        seconds(SHORTEST, HOUR),
        "The longest pause between two pieces of a request's body.",
        |c, _| Value::Seconds(c.gateway.body_timeout),
        |c, _, v| c.gateway.body_timeout = v.seconds(),
    ),
    Key::new(
        "gateway.write_timeout_seconds",
        seconds(SHORTEST, HOUR),
        "How long a caller may read nothing of its answer before it is left.",
        |c, _| Value::Seconds(c.gateway.write_timeout),
        |c, _, v| c.gateway.write_timeout = v.seconds(),
    ),
    Key::new(
        "gateway.max_requests",
        count(1, 1_000_000),
        "Requests being served at once, waiting ones included; more are answered 503 at once.",
        |c, _| Value::Count(c.gateway.max_requests),
        |c, _, v| c.gateway.max_requests = v.count(),
    ),
    Key::new(
        "gateway.drain_seconds",
        seconds(0.0, DAY),
        "How long requests may take to end after the gateway was told to stop. 0: they are ended at once.",
        |c, _| Value::Seconds(c.gateway.drain),
        |c, _, v| c.gateway.drain = v.seconds(),
    ),
    Key::new(
        "gateway.queue_keep_alive_seconds",
        seconds(SHORTEST, HOUR),
        "While a streaming caller waits for its turn, send a keep-alive comment this often. The first one commits the status 200 before the answer is known: an error then comes as an event.",
        |c, _| c.gateway.queue_keep_alive.map_or(Value::Absent, Value::Seconds),
        |c, _, v| {
            c.gateway.queue_keep_alive = match v {
                Value::Seconds(span) => Some(span),
                _ => None,
            };
        },
    )
    .or("none"),
    Key::new(
        "gateway.pass_through_keys",
        Kind::Switch,
        "Use the provider key a caller sends, while no `keys` are configured. Off: only the gateway's own.",
        |c, _| Value::Switch(c.gateway.pass_through_keys),
        |c, _, v| c.gateway.pass_through_keys = v.on(),
    ),
    Key::new(
        "gateway.allowed_hosts",
        Kind::List { shape: "a list of host names", check: check_host },
        "Names under which a gateway without `keys` may be addressed (`Host`), besides those of this computer.",
        |c, _| Value::List(c.gateway.allowed_hosts.clone()),
        |c, _, v| c.gateway.allowed_hosts = lower_case(v.list()),
    ),
    Key::new(
        "gateway.allowed_origins",
        Kind::List { shape: "a list of origins such as `https://chat.example.com`", check: check_origin },
        "Web pages that may call it (`Origin`).",
        |c, _| Value::List(c.gateway.allowed_origins.clone()),
        |c, _, v| c.gateway.allowed_origins = lower_case(v.list()),
    ),
    Key::new(
        "gateway.sticky",
        Kind::Switch,
        "Calls with the same beginning go to the same key or endpoint of a pool while it has room, so that the provider's cache of prompts is hit.",
        |c, _| Value::Switch(c.gateway.sticky),
        |c, _, v| c.gateway.sticky = v.on(),
    ),
];

/// Below this a slow network is taken for a dead caller.
const SHORTEST: f64 = 0.1;
const HOUR: f64 = 3_600.0;

fn check_address(text: &str) -> Result<(), String> {
    text.parse::<SocketAddr>().map(|_| ()).map_err(|_| {
        format!(
            "expected an IP address and a port such as `127.0.0.1:8080` or `[::1]:8080`, found `{}`",
            shortened(text)
        )
    })
}

/// A name as `Host` carries it, without the port, which is the gateway's own.
fn check_host(text: &str) -> Result<(), String> {
    if text.contains('*') {
        return Err(format!(
            "`{}`: hosts are named one by one; with a wildcard, any web page whose name is pointed at this computer could call the gateway",
            shortened(text)
        ));
    }
    let is_ipv6 = || {
        text.strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    const LONGEST: usize = 253;
    if text.is_empty() || text.len() > LONGEST || !(text.chars().all(fits) || is_ipv6()) {
        return Err(format!(
            "expected a host name without scheme or port such as `llm.example.com`, found `{}`",
            shortened(text)
        ));
    }
    Ok(())
}

/// An origin as browsers send it: scheme, host and port, nothing behind.
fn check_origin(text: &str) -> Result<(), String> {
    if text.contains('*') {
        return Err(format!(
            "`{}`: origins are named one by one; with a wildcard, any web page that somebody behind this gateway opens could spend your quota",
            shortened(text)
        ));
    }
    if text.eq_ignore_ascii_case("null") {
        return Err(String::from(
            "`null` is the origin of every sandboxed page and local file, so it would let any web page call; name an origin such as `https://chat.example.com`",
        ));
    }
    let fits_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let fits_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '[' | ']');
    let is_origin = text.split_once("://").is_some_and(|(scheme, host)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(fits_scheme)
            && !host.is_empty()
            && host.chars().all(fits_host)
    });
    const LONGEST: usize = 300;
    if !is_origin || text.len() > LONGEST {
        // It is an address people paste, and those may carry passwords: the text is not repeated.
        return Err(String::from(
            "expected an origin such as `https://chat.example.com` or `http://localhost:3000`: scheme, host and port, and no path",
        ));
    }
    Ok(())
}

/// Browsers and clients send these in lower case, or mean the same.
fn lower_case(mut names: Vec<String>) -> Vec<String> {
    names.iter_mut().for_each(|name| name.make_ascii_lowercase());
    names
}
