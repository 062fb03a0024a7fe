//! The rows of callers: whose keys the gateway knows, what each may use, and the names it gives to models.

use omega_policy::Priority;

use super::{Key, Place, count, names, text};
use crate::callers::{CallerKey, HASH_SCHEME};
use crate::config::Config;
use crate::value::{Kind, Value, shortened};

pub(super) static KEYS: [Key; 10] = [
    Key::new(
        HASH,
        text("`sha256:` and 64 hexadecimal digits", check_hash),
        "The SHA-256 of the secret, as `omega keys new` prints it. The secret itself stands nowhere.",
        |c, p| if key(c, p).hash.is_empty() { Value::Unset } else { Value::Text(key(c, p).hash.clone()) },
        |c, p, v| edit(c, p).hash = v.text().to_ascii_lowercase(),
    ),
    Key::new(
        "keys.<key>.tenant",
        text("a name", check_name),
        "Whose calls these are: while calls wait for quota, tenants are served in turn. Default: the key's own name.",
        |c, p| key(c, p).tenant.clone().map_or(Value::Unset, Value::Text),
        |c, p, v| edit(c, p).tenant = Some(v.text()),
    ),
    Key::new(
        "keys.<key>.weight",
        count(1, 1_000),
        "The tenant's part of the quota while calls wait, relative to the others'.",
        |c, p| Value::Count(key(c, p).weight.into()),
        |c, p, v| edit(c, p).weight = v.count32(),
    ),
    Key::new(
        "keys.<key>.priority",
        Kind::Word(&["low", "normal", "high"]),
        "How urgent its calls are: while calls wait for quota, those of a higher priority go first.",
        |c, p| Value::word_of(&key(c, p).priority, &PRIORITIES),
        |c, p, v| edit(c, p).priority = v.chosen(&PRIORITIES),
    ),
    Key::new(
        "keys.<key>.max_requests_per_minute",
        count(1, MOST),
        "Requests per minute of this key. Default: as many as there is quota for.",
        |c, p| Value::count_or_absent(key(c, p).max_requests_per_minute),
        |c, p, v| edit(c, p).max_requests_per_minute = v.count_or_none(),
    )
    .or("unlimited"),
    Key::new(
        "keys.<key>.max_tokens_per_minute",
        count(1, MOST),
        "Tokens per minute of this key, input and output together.",
        |c, p| Value::count_or_absent(key(c, p).max_tokens_per_minute),
        |c, p, v| edit(c, p).max_tokens_per_minute = v.count_or_none(),
    )
    .or("unlimited"),
    Key::new(
        "keys.<key>.max_concurrent_requests",
        count(1, 1_000_000),
        "Requests of this key under way at once.",
        |c, p| Value::count_or_absent(key(c, p).max_concurrent_requests),
        |c, p, v| edit(c, p).max_concurrent_requests = v.count_or_none(),
    )
    .or("unlimited"),
    Key::new(
        "keys.<key>.models",
        names("a list of model names; one that ends in `*` is a prefix"),
        "Models and aliases it may ask for. Empty: all.",
        |c, p| Value::List(key(c, p).models.clone()),
        |c, p, v| edit(c, p).models = v.list(),
    ),
    Key::new(
        "keys.<key>.admin",
        Kind::Switch,
        "It may look at `/stats` and `/metrics` and ask for a reload.",
        |c, p| Value::Switch(key(c, p).admin),
        |c, p, v| edit(c, p).admin = v.on(),
    ),
    Key::new(
        "aliases.<alias>",
        names("a model name, or a list of them"),
        "A name for a model: whoever asks for it gets the first of the list, and the rest are its first fallbacks (not for embeddings: vectors of two models cannot be compared).",
        |c, p| Value::List(c.aliases.get(&p.model).cloned().unwrap_or_default()),
        |c, p, v| {
            c.aliases.insert(p.model.clone(), v.list());
        },
    ),
];

/// The row whose value may be a secret by mistake.
pub(crate) const HASH: &str = "keys.<key>.hash";
/// What is said of a value there that is no hash, whatever it is.
pub(crate) const NO_HASH: &str = "expected `sha256:` and 64 hexadecimal digits, as `omega keys new` prints them, and not the secret itself";

/// Far above every published limit; below it the numbers stay exact.
const MOST: u64 = 1_000_000_000_000;

const PRIORITIES: [(&str, Priority); 3] =
    [("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)];

fn key<'c>(config: &'c Config, place: &Place) -> &'c CallerKey {
    let found = config.keys.iter().find(|key| key.name == place.model);
    found.expect("places are made of the configuration's own keys")
}

fn edit<'c>(config: &'c mut Config, place: &Place) -> &'c mut CallerKey {
    let found = config.keys.iter_mut().find(|key| key.name == place.model);
    found.expect("places are made of the configuration's own keys")
}

/// The text is not repeated: a secret pasted here by mistake must not reach a log.
fn check_hash(text: &str) -> Result<(), String> {
    let digits = text.strip_prefix(HASH_SCHEME).unwrap_or_default();
    match digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        true => Ok(()),
        false => Err(String::from(NO_HASH)),
    }
}

fn check_name(text: &str) -> Result<(), String> {
    const LONGEST: usize = 100;
    match text.trim().is_empty() || text.len() > LONGEST || text.chars().any(char::is_control) {
        true => Err(format!(
            "expected a name of 1 to {LONGEST} printable characters, found `{}`",
            shortened(text)
        )),
        false => Ok(()),
    }
}

/// Is `name` fit for a key? It stands in logs, metrics and variables.
pub(crate) fn check_key_name(name: &str) -> Result<(), String> {
    const LONGEST: usize = 64;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match name.is_empty() || name.len() > LONGEST || !name.chars().all(fits) {
        true => Err(format!(
            "`{}` cannot name a key; use up to {LONGEST} letters, digits, `-`, `_` and `.`",
            shortened(name)
        )),
        false => Ok(()),
    }
}
