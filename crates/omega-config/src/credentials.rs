//! Where each provider's key comes from: an argument, the variable its configuration names, or its usual variable.
//!
//! Keys are taken from nowhere else, never stand in a file, and leave this crate only inside a `SecretString`.

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::config::Config;
use crate::error::Problem;
use crate::keys::canonical_provider;
use crate::layers::Origin;
use crate::load::{Setting, Sources};
use crate::nearest::nearest;
use crate::provider::{ProviderSettings, built_in};
use crate::value::shortened;

/// Finds every provider's key and says where it was found, never what it is.
pub(crate) fn read(sources: &Sources, config: &mut Config, problems: &mut Vec<Problem>) -> Vec<Setting> {
    let known: Vec<String> = config.providers().map(|provider| provider.name.clone()).collect();
    for name in sources.arguments.api_keys.keys() {
        if config.provider(canonical_provider(name)).is_none() {
            let message = match nearest(name, known.iter().map(String::as_str)) {
                Some(meant) => format!("unknown provider `{}`. Did you mean `{meant}`?", shortened(name)),
                None => format!("unknown provider `{}`. Known: {}", shortened(name), known.join(", ")),
            };
            problems.push(Problem::new(format!("argument {}_api_key", shortened(name)), message));
        }
    }
    let mut settings = Vec::new();
    for provider in config.providers_mut() {
        let (key, origin) = match found(sources, provider, problems) {
            Some((key, origin)) => (Some(key), origin),
            None => (None, Origin::Default),
        };
        settings.push(Setting {
            path: format!("providers.{}.api_key", provider.name),
            value: if key.is_some() { json!("(set)") } else { json!(null) },
            origin,
        });
        provider.api_key = key;
    }
    settings
}

fn found(
    sources: &Sources,
    provider: &ProviderSettings,
    problems: &mut Vec<Problem>,
) -> Option<(SecretString, Origin)> {
    let argument =
        sources.arguments.api_keys.iter().find(|(name, _)| canonical_provider(name) == provider.name);
    if let Some((name, key)) = argument
        && !key.expose_secret().trim().is_empty()
    {
        let origin = Origin::Argument(format!("{name}_api_key"));
        return checked(key.expose_secret(), origin, problems);
    }
    let usual = built_in(&provider.name).map_or(&[][..], |known| known.key_variables);
    let variables: Vec<&str> = match &provider.api_key_env {
        Some(named) => vec![named.as_str()],
        None => usual.to_vec(),
    };
    for variable in variables {
        match sources.environment.get(variable) {
            Ok(Some(key)) => return checked(key, Origin::Environment(String::from(variable)), problems),
            Ok(None) => {}
            Err(_) => problems.push(Problem::new(variable, "the key is not valid UTF-8")),
        }
    }
    None
}

/// A key that a header can carry. Line breaks around it (`$(cat key.txt)`) are dropped; inside they are a mistake.
fn checked(key: &str, origin: Origin, problems: &mut Vec<Problem>) -> Option<(SecretString, Origin)> {
    let key = key.trim();
    if key.bytes().all(|byte| byte.is_ascii_graphic()) {
        Some((SecretString::from(key), origin))
    } else {
        problems.push(Problem::new(
            origin.to_string(),
            "the key has blanks, line breaks or other characters inside that a key cannot have; it may have been pasted incompletely",
        ));
        None
    }
}
