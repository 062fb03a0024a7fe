//! What no single value shows: settings that contradict each other, and what a file that merely lay in the working
//! directory may not do.
//!
//! Such a file belongs to whoever wrote the directory, who need not be the user. It may tune; it may not decide where
//! requests, prompts and keys go, nor who may call the gateway. Of connection settings it may only declare a server on
//! this computer.

use omega_protocol::{AnthropicVersion, Dialect, GoogleVersion};

use crate::config::{Config, Tokenizer};
use crate::error::Problem;
use crate::file::FileText;
use crate::keys::{Key, Place, is_loopback, owner_of_key_variable, spelled_in_capitals};
use crate::layers::{Layers, Origin, Said};
use crate::preset::Preset;
use crate::provider::{ProviderSettings, built_in};

struct Checks<'a> {
    layers: &'a Layers,
    file: Option<&'a FileText>,
    problems: &'a mut Vec<Problem>,
}

/// Checks the whole.
pub(crate) fn check(
    config: &Config,
    layers: &Layers,
    file: Option<&FileText>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) {
    let mut checks = Checks { layers, file, problems };
    checks.backoff(config);
    for provider in config.providers() {
        checks.provider(provider);
        checks.api_version(provider);
        checks.token_limits(provider);
        checks.tier(provider);
    }
    checks.names_in_variables(config);
    checks.pools(config);
    checks.keys(config);
    checks.aliases(config);
    if file.is_some_and(|file| file.found) {
        for (key, place, said) in layers.iter() {
            checks.found_file(config, key, place, said);
        }
    }
    warn_of_idle_settings(config, layers, warnings);
    warn_of_overridden_preset(config, layers, warnings);
}

impl Checks<'_> {
    /// A problem where `said` was written.
    fn problem(&mut self, said: &Said, message: String) {
        let problem = match (&said.origin, self.file) {
            (Origin::File { .. }, Some(file)) => {
                let text = file.text.strip_prefix('\u{feff}').unwrap_or(&file.text);
                Problem::in_file(&file.name, text, said.at, false, message)
            }
            (origin, _) => Problem::new(origin.to_string(), message),
        };
        self.problems.push(problem);
    }

    fn backoff(&mut self, config: &Config) {
        let (base, max) = (config.backoff.base_delay, config.backoff.max_delay);
        if base <= max {
            return;
        }
        let message = format!(
            "`backoff.max_delay` ({} s) is below `backoff.base_delay` ({} s); raise the one or lower the other",
            max.as_secs_f64(),
            base.as_secs_f64()
        );
        let place = Place::default();
        let said = self
            .layers
            .at("backoff.max_delay", &place)
            .or_else(|| self.layers.at("backoff.base_delay", &place));
        match said {
            Some(said) => self.problem(said, message),
            None => self.problems.push(Problem::new("backoff", message)),
        }
    }

    fn provider(&mut self, provider: &ProviderSettings) {
        let place = Place::provider(&provider.name);
        match built_in(&provider.name) {
            Some(known) if known.dialect != provider.dialect => {
                if let Some(said) = self.layers.at("providers.<name>.protocol", &place) {
                    let message = format!(
                        "`{0}` is built in and speaks its own protocol; declare a provider under another name instead",
                        provider.name
                    );
                    self.problem(said, message);
                }
            }
            None if provider.base_url.is_none() && !provider.is_vendors() => {
                let name = self.file.map_or("configuration", |file| file.name.as_str());
                let message =
                    format!("provider `{0}` needs an address: set `providers.{0}.base_url`", provider.name);
                self.problems.push(Problem::new(name, message));
            }
            _ => {}
        }
    }

    /// The versions are the protocol crate's own list, read by its own names.
    fn api_version(&mut self, provider: &ProviderSettings) {
        let place = Place::provider(&provider.name);
        let (Some(version), Some(said)) =
            (&provider.api_version, self.layers.at("providers.<name>.api_version", &place))
        else {
            return;
        };
        let text = serde_json::Value::String(version.clone());
        let known = match provider.dialect {
            Dialect::Anthropic => serde_json::from_value::<AnthropicVersion>(text).is_ok(),
            Dialect::Google => serde_json::from_value::<GoogleVersion>(text).is_ok(),
            Dialect::OpenAi | Dialect::Grok => false,
        };
        if !known {
            let expected = match provider.dialect {
                Dialect::Anthropic => "Anthropic's versions are `2023-06-01` and `2026-10-21`",
                Dialect::Google => "Google's versions are `v1` and `v1beta`",
                Dialect::OpenAi | Dialect::Grok => "this protocol has no versions; leave the key out",
            };
            let message = format!("`providers.{}.api_version`: {expected}, found `{version}`", provider.name);
            self.problem(said, message);
        }
    }

    fn token_limits(&mut self, provider: &ProviderSettings) {
        let place = Place::provider(&provider.name);
        let Some(total) = self.layers.at("rate_limiting.<provider>.max_tokens_per_minute", &place) else {
            return;
        };
        let parts = ["max_input_tokens_per_minute", "max_output_tokens_per_minute"];
        let part =
            parts.iter().find_map(|part| self.layers.at(&format!("rate_limiting.<provider>.{part}"), &place));
        if let Some(part) = part {
            let message = format!(
                "`rate_limiting.{}` limits tokens together (`max_tokens_per_minute`, {}) and apart ({}); keep one of the two",
                provider.name, total.origin, part.origin
            );
            self.problem(part, message);
        }
    }

    fn tier(&mut self, provider: &ProviderSettings) {
        let place = Place::provider(&provider.name);
        if provider.name == "openai" {
            return;
        }
        if let Some(said) = self.layers.at("rate_limiting.<provider>.tier", &place) {
            let message = format!(
                "tiers are known for `openai` only; set `max_requests_per_minute` and `max_tokens_per_minute` of `{}`",
                provider.name
            );
            self.problem(said, message);
        }
    }

    /// `my-llm` and `my_llm` would share their variables.
    fn names_in_variables(&mut self, config: &Config) {
        let names: Vec<&str> = config.providers().map(|provider| provider.name.as_str()).collect();
        for (index, name) in names.iter().enumerate() {
            let twin =
                names[..index].iter().find(|other| spelled_in_capitals(other) == spelled_in_capitals(name));
            if let Some(twin) = twin {
                let place = self.file.map_or("configuration", |file| file.name.as_str());
                let message = format!(
                    "providers `{twin}` and `{name}` would share the variables of {}; rename one",
                    spelled_in_capitals(name)
                );
                self.problems.push(Problem::new(place, message));
            }
        }
    }

    /// Who stands beside whom.
    fn pools(&mut self, config: &Config) {
        for provider in config.providers() {
            let place = Place::provider(&provider.name);
            let (Some(head), Some(said)) = (&provider.pool, self.layers.at("providers.<name>.pool", &place))
            else {
                continue;
            };
            let wrong = match config.provider(head) {
                _ if built_in(&provider.name).is_some() || *head == provider.name => {
                    Some("a provider stands beside another one, which it names".to_owned())
                }
                None => Some(format!("no provider is called `{head}`")),
                Some(other) if other.pool.is_some() => Some(format!(
                    "`{head}` stands beside `{}` itself; name that",
                    other.pool.as_deref().unwrap_or_default()
                )),
                Some(other) if other.dialect != provider.dialect => Some(format!(
                    "`{head}` speaks another protocol ({} and not {})",
                    other.dialect, provider.dialect
                )),
                Some(_) if provider.base_url.is_none() && provider.api_key_env.is_none() => Some(format!(
                    "it has neither a key nor an address of its own; name its key's variable in `providers.{}.api_key_env`",
                    provider.name
                )),
                Some(_) => None,
            };
            if let Some(wrong) = wrong {
                self.problem(said, format!("`providers.{}.pool`: {wrong}", provider.name));
            }
        }
    }

    /// Every key has a hash, and each hash one key.
    fn keys(&mut self, config: &Config) {
        for (index, key) in config.keys.iter().enumerate() {
            let place = Place { model: key.name.clone(), ..Place::default() };
            let Some(said) = self.layers.at("keys.<key>.hash", &place) else {
                let place = self.file.map_or("configuration", |file| file.name.as_str());
                let message = format!(
                    "`keys.{0}` has no hash: make a secret with `omega keys new --name {0}` and copy its hash",
                    key.name
                );
                self.problems.push(Problem::new(place, message));
                continue;
            };
            if let Some(twin) = config.keys[..index].iter().find(|other| other.hash == key.hash) {
                let message = format!("`keys.{}` and `keys.{}` have the same secret", twin.name, key.name);
                self.problem(said, message);
            }
        }
    }

    /// A name stands for models, and not for names.
    fn aliases(&mut self, config: &Config) {
        for (alias, models) in &config.aliases {
            let place = Place { model: alias.clone(), ..Place::default() };
            let Some(said) = self.layers.at("aliases.<alias>", &place) else { continue };
            if models.is_empty() {
                self.problem(said, format!("`aliases.{alias}` stands for nothing; name at least one model"));
            }
            if let Some(other) = models.iter().find(|model| config.aliases.contains_key(*model)) {
                let message =
                    format!("`aliases.{alias}` names `{other}`, which is an alias itself; name its models");
                self.problem(said, message);
            }
        }
    }

    /// What a file found by itself may not set. Only what is in force counts: a variable or an argument may have
    /// replaced it, and those are the user's own.
    fn found_file(&mut self, config: &Config, key: &Key, place: &Place, said: &Said) {
        if !matches!(said.origin, Origin::File { .. }) {
            return;
        }
        let Some(reason) = refused_in_found_file(config, key, place) else { return };
        let message = format!(
            "`{}` is refused: {reason}, and this file was not named but found in the working directory. \
             If you trust it, name it with --config or OMEGA_CONFIG",
            key.path_at(place)
        );
        self.problem(said, message);
    }
}

/// Why a found file may not set this, if it may not.
///
/// - A built-in provider's address: its key would be sent there.
/// - Any other address off this computer: with `model`, `fallbacks` or `models` prompts would be sent there.
/// - The variable a key is read from: any secret of the environment (`AWS_SECRET_ACCESS_KEY`) could be sent out as a
///   key. Harmless only towards a server on this computer, and even there not a built-in provider's key.
/// - Certificate authorities: whoever adds one can read what is sent to anybody.
/// - An address of the gateway that others can reach, and hosts and origins that may call it: with each, strangers could
///   spend the user's quota.
///
/// Headers are allowed: they carry only what the file itself says, and those that replace a credential are refused in
/// every file.
fn refused_in_found_file(config: &Config, key: &Key, place: &Place) -> Option<&'static str> {
    let provider = config.provider(&place.provider);
    let local = provider
        .and_then(|provider| provider.base_url.as_deref())
        .is_some_and(|url| is_loopback(url) && built_in(&place.provider).is_none());
    match key.path {
        "gateway.listen" if !config.gateway.listen.ip().is_loopback() => {
            Some("it lets other computers call the gateway")
        }
        "gateway.allowed_hosts" if !config.gateway.allowed_hosts.is_empty() => Some(WHO_MAY_CALL),
        "gateway.allowed_origins" if !config.gateway.allowed_origins.is_empty() => Some(WHO_MAY_CALL),
        path if path.starts_with("keys.") => Some(WHO_MAY_CALL),
        "tls.ca_file" => Some("it decides whom to trust with every request"),
        "providers.<name>.base_url" if built_in(&place.provider).is_some() => {
            Some("it decides where a key from the environment is sent")
        }
        "providers.<name>.base_url" if !local => Some("it decides where prompts are sent"),
        "providers.<name>.api_key_env" => {
            let variable = provider.and_then(|provider| provider.api_key_env.as_deref()).unwrap_or_default();
            if local && owner_of_key_variable(variable).is_none() {
                None
            } else {
                Some("it decides which secret of the environment is sent")
            }
        }
        _ => None,
    }
}

const WHO_MAY_CALL: &str = "it decides who may call the gateway";

/// A preset that was asked for and that other settings take back: most often a file that spells out every default.
fn warn_of_overridden_preset(config: &Config, layers: &Layers, warnings: &mut Vec<String>) {
    let Some(said) = layers.at("preset", &Place::default()) else { return };
    let (mut preset, mut spec) = (config.clone(), config.clone());
    preset.apply(config.preset);
    spec.apply(Preset::Spec);
    let mut overridden = layers.iter().filter_map(|(key, place, given)| {
        let (meant, plain) = ((key.get)(&preset, place), (key.get)(&spec, place));
        let taken_back = key.path != "preset" && !meant.same(&plain) && !given.value.same(&meant);
        taken_back.then(|| key.path_at(place))
    });
    if let Some(first) = overridden.next() {
        let others = match overridden.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        warnings.push(format!(
            "the preset ({}) is overridden by settings that are given as well: `{first}`{others}; leave them out to use it",
            said.origin
        ));
    }
}

/// Settings that have no effect as things stand.
fn warn_of_idle_settings(config: &Config, layers: &Layers, warnings: &mut Vec<String>) {
    let idle = [
        (config.breaker.failure_rate.is_none(), "circuit_breaker.failure_rate.", "percent"),
        (config.breaker.slow_first_token.is_none(), "circuit_breaker.slow_first_token.", "threshold_seconds"),
        (config.estimates.tokenizer == Tokenizer::Off, "estimates.", "tokenizer"),
    ];
    for (key, _, said) in layers.iter() {
        for (off, section, switch) in idle {
            if off && key.path.strip_prefix(section).is_some_and(|rest| rest != switch) {
                warnings.push(format!(
                    "`{}` ({}) has no effect while `{section}{switch}` is off",
                    key.path, said.origin
                ));
            }
        }
    }
}

/// Keys that are missing where one was named, or go somewhere unusual: allowed, but worth a line.
pub(crate) fn warn_about_keys(config: &Config, warnings: &mut Vec<String>) {
    for provider in config.providers() {
        if let (Some(variable), None) = (&provider.api_key_env, &provider.api_key) {
            warnings.push(format!("`{}` has no key: {variable} is not set", provider.name));
        }
        let Some(url) = provider.base_url.as_deref() else { continue };
        if provider.api_key.is_some() && url.starts_with("http:") && !is_loopback(url) {
            warnings.push(format!("the key of `{}` travels unencrypted to {url}", provider.name));
        }
        let owner = provider.api_key_env.as_deref().and_then(owner_of_key_variable);
        let is_own = |owner: &&str| provider.name == **owner || provider.pool.as_deref() == Some(*owner);
        if let Some(owner) = owner.filter(|owner| !is_own(owner)) {
            warnings.push(format!("the key of `{owner}` is sent to {url} as that of `{}`", provider.name));
        }
    }
}
