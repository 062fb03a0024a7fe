//! The tables of docs/configuration.md, written from the table of settings so that a test can compare them.

use std::fmt::Write as _;

use crate::config::Config;
use crate::explain::shown;
use crate::keys::{self, Key, Place};

/// The heading and introduction of each section, in the order of the document.
const SECTIONS: [(&str, &str); 14] = [
    ("", "Top level"),
    ("state", "state"),
    ("resilience", "resilience"),
    ("circuit_breaker", "circuit_breaker"),
    ("backoff", "backoff"),
    ("retry_budget", "retry_budget"),
    ("hedging", "hedging"),
    ("rate_limiting", "rate_limiting"),
    ("streaming", "streaming"),
    ("estimates", "estimates"),
    ("providers", "providers"),
    ("gateway", "gateway"),
    ("keys", "keys"),
    ("aliases", "aliases"),
];

/// Every key in tables by section.
pub(crate) fn tables() -> String {
    let mut text = String::new();
    for (section, heading) in SECTIONS.into_iter().chain([("tls", "tls")]) {
        let _ = writeln!(text, "### {heading}\n");
        text.push_str("| Key | Default | Range | Variable | Meaning |\n| --- | --- | --- | --- | --- |\n");
        for key in keys::all().filter(|key| section_of(key.path) == section) {
            text.push_str(&row(key));
        }
        text.push('\n');
    }
    text
}

fn section_of(path: &str) -> &str {
    path.split_once('.').map_or("", |(section, _)| section)
}

fn row(key: &Key) -> String {
    let variables: Vec<String> =
        key.variables_documented().iter().map(|name| format!("`{}`", name.replace('|', "\\|"))).collect();
    let variables = if variables.is_empty() { String::from("none") } else { variables.join(", ") };
    let note = key.note.map(|note| format!(" ({note})")).unwrap_or_default();
    format!(
        "| `{}` | {} | {}{note} | {variables} | {} |\n",
        key.path,
        default(key),
        key.kind.range(key.absent),
        key.meaning
    )
}

/// The default, or each provider's where they differ.
fn default(key: &Key) -> String {
    let mut config = Config::default();
    config.keys.push(crate::callers::CallerKey::new(""));
    if key.per_model() {
        return String::from("`unlimited`");
    }
    let mut values: Vec<(String, String)> = Vec::new();
    for place in key.places(&config) {
        let value = match shown(&(key.get)(&config, &place).to_json(key.absent)).as_str() {
            "-" => String::from("not set"),
            value => format!("`{value}`"),
        };
        values.push((place.provider, value));
    }
    match values.as_slice() {
        [] => String::from("not set"),
        [(_, first), rest @ ..] if rest.iter().all(|(_, value)| value == first) => first.clone(),
        each => {
            each.iter().map(|(provider, value)| format!("{provider} {value}")).collect::<Vec<_>>().join(", ")
        }
    }
}

/// The provider table: limits, and the variables of keys.
pub(crate) fn provider_table() -> String {
    let config = Config::default();
    let mut text = String::from(
        "| Provider | Key from | Requests per minute | Tokens per minute | Burst seconds | Concurrent requests |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    let cell = |pattern: &str, place: &Place| {
        keys::all()
            .find(|key| key.path == pattern)
            .map(|key| shown(&(key.get)(&config, place).to_json(key.absent)))
            .unwrap_or_default()
    };
    for provider in config.providers() {
        let place = Place::provider(&provider.name);
        let variables =
            crate::provider::built_in(&provider.name).map_or(&[][..], |known| known.key_variables);
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | {} |",
            provider.name,
            variables.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or "),
            cell("rate_limiting.<provider>.max_requests_per_minute", &place),
            cell("rate_limiting.<provider>.max_tokens_per_minute", &place),
            cell("rate_limiting.<provider>.burst_seconds", &place),
            cell("rate_limiting.<provider>.max_concurrent_requests", &place),
        );
    }
    let other = omega_policy::LimiterConfig::default();
    let omega_policy::TokenLimits::Total(Some(tokens)) = other.tokens else {
        unreachable!("the default limits tokens together")
    };
    let _ = writeln!(
        text,
        "| any other | `api_key_env` | {} | {tokens} | {} | {} |",
        other.requests_per_minute.unwrap_or_default(),
        other.burst.as_secs(),
        other.max_concurrent.unwrap_or_default()
    );
    text
}
