//! What the caller said in code or on the command line: the strongest source.
//!
//! Everything is unset by default, so that `OMEGA_CIRCUIT_BREAKER_ENABLED=false` wins over an argument nobody gave.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::config::Config;
use crate::error::Problem;
use crate::file::FileText;
use crate::keys::{self, Key, canonical_provider};
use crate::layers::{Layers, Origin, Said, refusal};
use crate::nearest::nearest;
use crate::value::{Value, Wrong, shortened};
use crate::yaml::{Node, Raw};

/// Arguments of a constructor or a command line. `None` and empty mean "not given".
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// The model used when a request names none.
    pub preferred_model: Option<String>,
    /// Keys by provider name (`xai` and `gemini` are understood as `grok` and `google`).
    pub api_keys: BTreeMap<String, SecretString>,
    /// The breaker's switch.
    pub enable_circuit_breaker: Option<bool>,
    /// The limiter's switch.
    pub enable_rate_limiting: Option<bool>,
    /// Attempts in all, the first included.
    pub max_retries: Option<u32>,
    /// Models to turn to, in order. `Some` of an empty list: none, whatever the file says.
    pub fallbacks: Option<Vec<String>>,
    /// How long a call may take in all.
    pub timeout: Option<Duration>,
    /// Addresses by provider name.
    pub base_urls: BTreeMap<String, String>,
    /// Certificates to trust besides the platform's.
    pub ca_file: Option<PathBuf>,
    /// Any other setting, as path and text: `("circuit_breaker.timeout_seconds", "5")`.
    pub settings: Vec<(String, String)>,
    /// Parts of a file (YAML, or JSON), each under a name for messages: for what has no path before it is named, such as a
    /// provider of one's own. They are laid over the file and the environment, under the arguments above.
    pub texts: Vec<(String, String)>,
}

impl Arguments {
    /// The texts, as files are read.
    pub(crate) fn files(&self) -> impl Iterator<Item = FileText> {
        self.texts.iter().map(|(name, text)| FileText {
            name: name.clone(),
            path: None,
            text: text.clone(),
            found: false,
            is_argument: true,
        })
    }
}

/// Reads what was given into `layers`. Keys are not settings; [`crate::credentials`] takes them.
pub(crate) fn read(arguments: &Arguments, config: &Config, layers: &mut Layers, problems: &mut Vec<Problem>) {
    let mut say = |argument: &str, path: &str, raw: Raw| {
        let node = Node { raw, line: 0, column: 0 };
        say(config, layers, problems, argument, path, |key| key.kind.read(&node, key.absent));
    };
    if let Some(model) = &arguments.preferred_model {
        say("preferred_model", "model", Raw::Text(model.clone()));
    }
    if let Some(on) = arguments.enable_circuit_breaker {
        say("enable_circuit_breaker", "circuit_breaker.enabled", Raw::Switch(on));
    }
    if let Some(on) = arguments.enable_rate_limiting {
        say("enable_rate_limiting", "rate_limiting.enabled", Raw::Switch(on));
    }
    if let Some(attempts) = arguments.max_retries {
        say("max_retries", "resilience.max_retries", Raw::Number(attempts.into()));
    }
    if let Some(models) = &arguments.fallbacks {
        let items = models.iter().map(|model| Node { raw: Raw::Text(model.clone()), line: 0, column: 0 });
        say("fallbacks", "fallbacks", Raw::List(items.collect()));
    }
    if let Some(timeout) = arguments.timeout {
        say("timeout", "resilience.timeout_seconds", Raw::Number(timeout.as_secs_f64()));
    }
    if let Some(path) = &arguments.ca_file {
        say("ca_file", "tls.ca_file", Raw::Text(path.display().to_string()));
    }
    for (name, url) in &arguments.base_urls {
        let provider = canonical_provider(name);
        let path = format!("providers.{provider}.base_url");
        say(&format!("base_url of {name}"), &path, Raw::Text(url.clone()));
    }
    for (path, text) in &arguments.settings {
        self::say(config, layers, problems, path, path, |key| key.kind.parse(text, key.absent));
    }
}

fn say(
    config: &Config,
    layers: &mut Layers,
    problems: &mut Vec<Problem>,
    argument: &str,
    path: &str,
    read: impl FnOnce(&Key) -> Result<Value, Wrong>,
) {
    let origin = Origin::Argument(String::from(argument));
    let found = keys::all().enumerate().find_map(|(row, key)| {
        key.places(config).into_iter().find(|place| key.path_at(place) == path).map(|place| (row, key, place))
    });
    let Some((row, key, place)) = found else {
        let paths: Vec<String> = keys::all()
            .flat_map(|key| key.places(config).into_iter().map(|place| key.path_at(&place)))
            .collect();
        let message = match nearest(path, paths.iter().map(String::as_str)) {
            Some(meant) => format!("no setting is called `{}`. Did you mean `{meant}`?", shortened(path)),
            None => format!("no setting is called `{}`", shortened(path)),
        };
        problems.push(Problem::new(origin.to_string(), message));
        return;
    };
    match read(key) {
        Ok(value) => layers.say(row, place, Said { value, origin, at: None }),
        Err(wrong) => problems.push(Problem::new(origin.to_string(), refusal(key, &wrong))),
    }
}
