//! From sources to a [`Config`]: read every layer, check the whole, apply it in the order of the table.
//!
//! Nothing is applied unless everything is right; whoever reloads a broken file keeps running on what it had.

use std::path::PathBuf;

use crate::arguments::{self, Arguments};
use crate::config::{Config, ProxySettings};
use crate::credentials;
use crate::environment::Environment;
use crate::error::ConfigError;
use crate::file::{self, FileChoice, FileText};
use crate::keys;
use crate::layers::{Layers, Origin};
use crate::rules;
use crate::{tree, variables};

/// Everything a configuration is made from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file. Default: [`FileChoice::Search`].
    pub file: FileChoice,
    /// The environment. Default: empty; a program hands over [`Environment::process`].
    pub environment: Environment,
    /// What was given in code or on the command line.
    pub arguments: Arguments,
}

impl Sources {
    /// This process's environment and working directory, and no arguments.
    pub fn process() -> Self {
        Self {
            file: FileChoice::Search,
            environment: Environment::process(),
            arguments: Arguments::default(),
        }
    }
}

/// A configuration and where each of its values comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Nobody named that file: it lay in the working directory. Whoever starts up says so.
    pub file_found_by_itself: bool,
    /// Every setting with its effective value, by section and provider.
    pub settings: Vec<Setting>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<String>,
}

/// One effective setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Where it stands in the file: `rate_limiting.openai.burst_seconds`.
    pub path: String,
    /// Its value; secrets read `(set)`, what was never given is null.
    pub value: serde_json::Value,
    /// Where the value comes from.
    pub origin: Origin,
}

impl Config {
    /// Merges and checks `sources`: defaults, then the file, then `OMEGA_*` variables, then arguments.
    ///
    /// # Errors
    /// Everything that is wrong, at once; nothing is applied then. Show it and keep the configuration you have.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
        let mut config = Self::default();
        let mut layers = Layers::default();
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        let file = match file::read(&sources.file, &sources.environment) {
            Ok(file) => file,
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        if let Some(file) = &file {
            tree::read(file, &mut config, &mut layers, &mut problems);
        }
        for text in sources.arguments.files() {
            tree::read(&text, &mut config, &mut layers, &mut problems);
        }
        if !problems.is_empty() {
            // Names of providers and models come from the file: without it, complaints about variables would mislead.
            return Err(ConfigError { problems });
        }
        variables::read(&sources.environment, &config, &mut layers, &mut problems, &mut warnings);
        // Once more: above, for the names; here, because arguments win over variables.
        for text in sources.arguments.files() {
            tree::read(&text, &mut config, &mut layers, &mut problems);
        }
        arguments::read(&sources.arguments, &config, &mut layers, &mut problems);
        for (key, place, said) in layers.iter() {
            (key.set)(&mut config, place, said.value.clone());
        }
        rules::check(&config, &layers, file.as_ref(), &mut problems, &mut warnings);
        let keys = credentials::read(sources, &mut config, &mut problems);
        config.proxy = proxies(&sources.environment);
        rules::warn_about_keys(&config, &mut warnings);
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        let mut settings = settings(&config, &layers);
        settings.extend(keys);
        gather(&mut settings, &config);
        settings.extend(proxy_settings(&config.proxy));
        let (file, file_found_by_itself) = match file {
            Some(FileText { path, found, .. }) => (path, found),
            None => (None, false),
        };
        Ok(Loaded { config, file, file_found_by_itself, settings, warnings })
    }
}

/// Every row at every place with its effective value. A provider's own stream clocks are listed where they were
/// given; elsewhere they equal the common ones.
fn settings(config: &Config, layers: &Layers) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (row, key) in keys::all().enumerate() {
        for place in key.places(config) {
            let said = layers.get(row, &place);
            if said.is_none() && key.path.starts_with("providers.<name>.streaming.") {
                continue;
            }
            let value = (key.get)(config, &place).to_json(key.absent);
            let origin = match said {
                Some(said) => said.origin.clone(),
                None => tier_of(config, key.path, &place).map_or(Origin::Default, Origin::Tier),
            };
            if said.is_none()
                && value.is_null()
                && key.path == "rate_limiting.<provider>.tier"
                && place.provider != "openai"
            {
                continue;
            }
            settings.push(Setting { path: key.path_at(&place), value, origin });
        }
    }
    settings
}

/// Brings together what belongs together: each section, and in it each provider, in the order they first appear.
fn gather(settings: &mut [Setting], config: &Config) {
    const SECTIONS: [&str; 12] = [
        "resilience",
        "circuit_breaker",
        "backoff",
        "retry_budget",
        "hedging",
        "rate_limiting",
        "streaming",
        "estimates",
        "providers",
        "gateway",
        "keys",
        "aliases",
    ];
    settings.sort_by_key(|setting| {
        let mut parts = setting.path.split('.');
        let (section, name) = (parts.next().unwrap_or_default(), parts.next());
        let section = match SECTIONS.iter().position(|known| *known == section) {
            Some(known) => known + 1,
            // The top level comes first, whatever else there is last.
            None if name.is_none() => 0,
            None => SECTIONS.len() + 1,
        };
        // What is no provider's (`rate_limiting.enabled`) comes before them.
        let provider = config.providers().position(|provider| Some(provider.name.as_str()) == name);
        (section, provider.map_or(0, |index| index + 1))
    });
}

/// The tier that set this row, for the two rows a tier sets.
fn tier_of(config: &Config, path: &str, place: &keys::Place) -> Option<&'static str> {
    let sets = [
        "rate_limiting.<provider>.max_requests_per_minute",
        "rate_limiting.<provider>.max_tokens_per_minute",
    ];
    let tier = config.provider(&place.provider)?.tier.filter(|_| sets.contains(&path))?;
    keys::TIERS.iter().find(|(_, each)| *each == tier).map(|(word, _)| *word)
}

/// The proxy variables, by the conventions of curl: `http_proxy` in capitals is ignored inside a CGI program, where
/// a client's `Proxy:` header would become `HTTP_PROXY`. Source: curl manual, "Environment" (CVE-2016-5385).
fn proxies(environment: &Environment) -> ProxySettings {
    let first =
        |names: &[&str]| names.iter().find_map(|name| environment.get(name).ok().flatten().map(String::from));
    let in_cgi = environment.get("REQUEST_METHOD").ok().flatten().is_some();
    let http: &[&str] = if in_cgi { &["http_proxy"] } else { &["http_proxy", "HTTP_PROXY"] };
    ProxySettings {
        https: first(&["https_proxy", "HTTPS_PROXY"]).map(Into::into),
        http: first(http).map(Into::into),
        all: first(&["all_proxy", "ALL_PROXY"]).map(Into::into),
        no: first(&["no_proxy", "NO_PROXY"]),
    }
}

fn proxy_settings(proxy: &ProxySettings) -> Vec<Setting> {
    let hidden = |path: &str, variable: &str, is_set: bool| {
        is_set.then(|| Setting {
            path: String::from(path),
            value: serde_json::json!("(set)"),
            origin: Origin::Environment(String::from(variable)),
        })
    };
    let no = proxy.no.as_ref().map(|hosts| Setting {
        path: String::from("proxy.no"),
        value: serde_json::json!(hosts),
        origin: Origin::Environment(String::from("NO_PROXY")),
    });
    [
        hidden("proxy.https", "HTTPS_PROXY", proxy.https.is_some()),
        hidden("proxy.http", "HTTP_PROXY", proxy.http.is_some()),
        hidden("proxy.all", "ALL_PROXY", proxy.all.is_some()),
        no,
    ]
    .into_iter()
    .flatten()
    .collect()
}
