//! The rows of a provider: which protocol it speaks, where it is, where its key comes from.

use super::{DAY, Key, Place, TICK, check_provider_name, names, seconds, text};
use crate::Dialect;
use crate::config::{Config, StreamClocks};
use crate::provider::ProviderSettings;
use crate::value::{Kind, Value, shortened};

pub(super) static KEYS: [Key; 13] = [
    Key::new(
        "providers.<name>.protocol",
        Kind::Word(&["openai", "anthropic", "google", "grok"]),
        "The wire protocol it speaks. The built-in providers speak their own.",
        |c, p| Value::word_of(&provider(c, p).dialect, &DIALECTS),
        |c, p, v| edit(c, p).dialect = v.chosen(&DIALECTS),
    ),
    Key::new(
        "providers.<name>.base_url",
        text("an http or https address", check_base_url),
        "Where it is. Built-in providers: the vendor's own address; required for every other.",
        |c, p| text_or_unset(&provider(c, p).base_url),
        |c, p, v| edit(c, p).base_url = Some(String::from(v.text().trim_end_matches('/'))),
    ),
    Key::new(
        "providers.<name>.api_key_env",
        text("the name of a variable", check_variable),
        "The variable its key is read from. Keys themselves never stand in a file.",
        |c, p| text_or_unset(&provider(c, p).api_key_env),
        |c, p, v| edit(c, p).api_key_env = Some(v.text()),
    ),
    Key::new(
        "providers.<name>.api_version",
        text("a version", check_version),
        "The version to ask for, where the protocol has versions.",
        |c, p| text_or_unset(&provider(c, p).api_version),
        |c, p, v| edit(c, p).api_version = Some(v.text()),
    ),
    Key::new(
        "providers.<name>.models",
        names("a list of model names; one that ends in `*` is a prefix"),
        "Models it serves, beside those that routing knows by itself.",
        |c, p| Value::List(provider(c, p).models.clone()),
        |c, p, v| edit(c, p).models = v.list(),
    ),
    Key::new(
        "providers.<name>.pool",
        text("the name of a provider", check_provider_name),
        "The provider it stands beside: another key or endpoint for the same models, with limits and a circuit of its own. Calls for that provider go to whichever has room.",
        |c, p| text_or_unset(&provider(c, p).pool),
        |c, p, v| edit(c, p).pool = Some(v.text()),
    ),
    Key::new(
        "providers.<name>.headers",
        Kind::Headers,
        "Headers sent with every request. Values are treated as secrets.",
        |c, p| Value::Headers(provider(c, p).headers.clone()),
        |c, p, v| {
            if let Value::Headers(headers) = v {
                edit(c, p).headers = headers;
            }
        },
    ),
    Key::new(
        "providers.<name>.streaming.first_byte_seconds",
        seconds(TICK, DAY),
        "This provider's own `streaming.first_byte_seconds`.",
        |c, p| Value::Seconds(clocks(c, p).first_byte),
        |c, p, v| edit(c, p).streaming.first_byte = v.seconds(),
    ),
    Key::new(
        "providers.<name>.streaming.first_content_seconds",
        seconds(TICK, DAY),
        "This provider's own `streaming.first_content_seconds`.",
        |c, p| Value::Seconds(clocks(c, p).first_content),
        |c, p, v| edit(c, p).streaming.first_content = v.seconds(),
    ),
    Key::new(
        "providers.<name>.streaming.reasoning_first_content_seconds",
        seconds(TICK, DAY),
        "This provider's own `streaming.reasoning_first_content_seconds`.",
        |c, p| Value::Seconds(clocks(c, p).reasoning_first_content),
        |c, p, v| edit(c, p).streaming.reasoning_first_content = v.seconds(),
    ),
    Key::new(
        "providers.<name>.streaming.gap_seconds",
        seconds(TICK, DAY),
        "This provider's own `streaming.gap_seconds`.",
        |c, p| Value::Seconds(clocks(c, p).gap),
        |c, p, v| edit(c, p).streaming.gap = v.seconds(),
    ),
    Key::new(
        "providers.<name>.streaming.learned_first_content",
        Kind::Switch,
        "This provider's own `streaming.learned_first_content`.",
        |c, p| Value::Switch(clocks(c, p).learned_first_content),
        |c, p, v| edit(c, p).streaming.learned_first_content = v.on(),
    ),
    Key::new(
        "providers.<name>.streaming.learned_without_fallback",
        Kind::Switch,
        "This provider's own `streaming.learned_without_fallback`.",
        |c, p| Value::Switch(clocks(c, p).learned_without_fallback),
        |c, p, v| edit(c, p).streaming.learned_without_fallback = v.on(),
    ),
];

pub(crate) const DIALECTS: [(&str, Dialect); 4] = [
    ("openai", Dialect::OpenAi),
    ("anthropic", Dialect::Anthropic),
    ("google", Dialect::Google),
    ("grok", Dialect::Grok),
];

pub(super) fn provider<'c>(config: &'c Config, place: &Place) -> &'c ProviderSettings {
    config.provider(&place.provider).expect("places are made of the configuration's own providers")
}

pub(super) fn edit<'c>(config: &'c mut Config, place: &Place) -> &'c mut ProviderSettings {
    config.provider_mut(&place.provider).expect("places are made of the configuration's own providers")
}

fn clocks<'c>(config: &'c Config, place: &Place) -> &'c StreamClocks {
    &provider(config, place).streaming
}

fn text_or_unset(text: &Option<String>) -> Value {
    text.clone().map_or(Value::Unset, Value::Text)
}

/// An address without credentials or a query: it is printed in logs and errors, so nothing in it may be secret.
/// The text itself is not repeated where it might hold a password.
fn check_base_url(text: &str) -> Result<(), String> {
    let uri: http::Uri =
        text.parse().map_err(|_| String::from("expected an address such as `https://llm.example.com/v1`"))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        _ => return Err(String::from("expected an address that begins with `https://` or `http://`")),
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(String::from(
            "an address must not carry a user name or password; name the key's variable in `api_key_env`",
        ));
    }
    if uri.query().is_some() || text.contains('#') {
        return Err(String::from("an address must not carry a query or fragment; paths are added to it"));
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(format!("`{}` names no host", shortened(text)));
    }
    Ok(())
}

/// Does this address stay on this computer?
pub(crate) fn is_loopback(base_url: &str) -> bool {
    let Some(uri) = base_url.parse::<http::Uri>().ok() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn check_variable(text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.is_empty()
        || text.len() > 128
        || text.starts_with(|c: char| c.is_ascii_digit())
        || !text.chars().all(fits)
    {
        // The text is not repeated: a key pasted here by mistake must not reach a log.
        return Err(String::from(
            "expected the name of a variable (letters, digits and `_`), not the key itself",
        ));
    }
    Ok(())
}

fn check_version(text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.is_empty() || text.len() > 40 || !text.chars().all(fits) {
        return Err(format!(
            "expected a version such as `2023-06-01` or `v1beta`, found `{}`",
            shortened(text)
        ));
    }
    Ok(())
}
