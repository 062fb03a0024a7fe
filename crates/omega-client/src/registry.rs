//! Who can be called: one entry for each provider, with its endpoint, clocks and scope; and which model is whose.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use omega_config::{Config, ProviderSettings, StreamClocks};
use omega_policy::{ModelId, Pipeline, Timestamp};
use omega_protocol::{
    AnthropicVersion, CallerProtocol, Dialect, Endpoint, EndpointOptions, GoogleVersion, Provider,
    ProviderError, route,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::broadcast;

use crate::clock::Clock;
use crate::error::UNKNOWN_MODEL;
use crate::events::ClientEvent;
use crate::relay::is_native;
use crate::scope::Scope;
use crate::store::{Sharing, account};
use crate::telemetry::one_line;
use crate::{Error, ErrorKind};

/// Models told apart at one provider. More than anybody serves; beyond it, whatever callers make up shares one
/// number, so that made-up names cannot fill the memory.
const MODELS_MAX: usize = 1_024;
/// Names longer than this are not remembered.
const MODEL_NAME_MAX: usize = 256;

/// Secrets shorter than this are not looked for in what a provider says: they would be found in ordinary words.
const SECRET_MIN: usize = 8;
/// What stands in the place of a secret.
const REDACTED: &str = "[redacted]";

/// The models of one provider, as small numbers.
#[derive(Debug, Default)]
pub(crate) struct Models {
    ids: HashMap<Box<str>, ModelId>,
    names: Vec<Box<str>>,
}

impl Models {
    /// The number of a model, a new one if it is new and there is room.
    pub(crate) fn intern(&mut self, name: &str) -> ModelId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        if self.names.len() >= MODELS_MAX || name.len() > MODEL_NAME_MAX {
            return ModelId::OTHER;
        }
        self.names.push(name.into());
        let id = ModelId(u32::try_from(self.names.len()).unwrap_or(ModelId::OTHER.0));
        self.ids.insert(name.into(), id);
        id
    }

    /// The name behind a number.
    pub(crate) fn name(&self, id: ModelId) -> &str {
        let index = (id.0 as usize).checked_sub(1);
        index.and_then(|index| self.names.get(index)).map_or("(other models)", |name| name)
    }
}

/// A provider that can be called, or the reason why it cannot.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: Arc<str>,
    pub(crate) dialect: Dialect,
    endpoint: Result<Endpoint, String>,
    /// The same without a key, for callers who bring one, where the configuration lets them.
    keyless: Option<Endpoint>,
    /// The provider it stands beside.
    pool: Option<Arc<str>>,
    pub(crate) scope: Arc<Scope>,
    pub(crate) max_wait: Duration,
    pub(crate) clocks: StreamClocks,
    /// Its key and the values of its own headers.
    secrets: Vec<SecretString>,
    /// Exact names, or prefixes that end in `*`.
    models: Vec<String>,
    /// Models that have refused to stream. Bounded by what [`Models`] tells apart.
    whole_only: Arc<RwLock<HashSet<ModelId>>>,
}

impl Member {
    /// How to speak to it.
    pub(crate) fn provider(&self) -> &'static dyn Provider {
        self.dialect.provider()
    }

    /// Where it is; or what to do so that it can be called.
    pub(crate) fn endpoint(&self) -> Result<&Endpoint, &str> {
        self.endpoint.as_ref().map_err(String::as_str)
    }

    /// Whether the key of a caller who speaks this protocol may go to it.
    pub(crate) fn takes_own_key(&self, protocol: CallerProtocol) -> bool {
        self.keyless.as_ref().is_some_and(|endpoint| is_native(protocol, self.provider(), endpoint))
    }

    /// Where it is for a call that brings its own key.
    pub(crate) fn endpoint_for_own_key(&self) -> Result<&Endpoint, &str> {
        self.keyless.as_ref().map_or_else(|| self.endpoint(), Ok)
    }

    /// The provider whose models it serves: itself, or the one it stands beside.
    pub(crate) fn head(&self) -> &str {
        self.pool.as_deref().unwrap_or(&self.name)
    }

    /// Takes our secrets out of what the provider said: some servers quote the key they refuse.
    ///
    /// - `own`: the key the caller brought, which is nobody's to log either.
    pub(crate) fn redact(&self, error: &mut ProviderError, own: Option<&SecretString>) {
        let ProviderError { message, error_type, code, param, request_id, .. } = error;
        let own = own.map(|key| key.expose_secret().trim()).filter(|key| key.len() >= SECRET_MIN);
        for secret in self.secrets.iter().map(ExposeSecret::expose_secret).chain(own) {
            let said = [error_type.as_mut(), code.as_mut(), param.as_mut(), request_id.as_mut()];
            for text in std::iter::once(&mut *message).chain(said.into_iter().flatten()) {
                if text.contains(secret) {
                    *text = text.replace(secret, REDACTED);
                }
            }
        }
    }
}

/// One model at one provider.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) member: Arc<Member>,
    /// As the provider names it.
    pub(crate) model: String,
}

impl Target {
    /// Whether both are the same model at the same provider.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.model == other.model && Arc::ptr_eq(&self.member, &other.member)
    }

    /// Whether this model is known to refuse streams.
    pub(crate) fn refuses_streams(&self) -> bool {
        let known = self.member.whole_only.read().unwrap_or_else(PoisonError::into_inner);
        !known.is_empty() && known.contains(&self.member.scope.model(&self.model))
    }

    /// Remembers that it does.
    pub(crate) fn note_refused_stream(&self) {
        let model = self.member.scope.model(&self.model);
        // What shares one number with others says nothing about them.
        if model != ModelId::OTHER {
            self.member.whole_only.write().unwrap_or_else(PoisonError::into_inner).insert(model);
        }
    }
}

/// Every provider, in the order of the statistics.
#[derive(Debug)]
pub(crate) struct Registry {
    members: Vec<Arc<Member>>,
}

impl Registry {
    pub(crate) fn new(
        config: &Config,
        clock: &Arc<dyn Clock>,
        subscribers: &broadcast::Sender<ClientEvent>,
        sharing: Option<&Sharing>,
    ) -> Result<Self, Error> {
        Self::beside(None, config, clock, subscribers, sharing)
    }

    /// The providers of another configuration. Those that were there before keep their layers, which are not changed by
    /// this: see [`Registry::reconfigure`].
    pub(crate) fn beside(
        before: Option<&Self>,
        config: &Config,
        clock: &Arc<dyn Clock>,
        subscribers: &broadcast::Sender<ClientEvent>,
        sharing: Option<&Sharing>,
    ) -> Result<Self, Error> {
        let now = clock.now();
        let member = |settings: &ProviderSettings| {
            let endpoint = endpoint(settings, settings.api_key.as_ref())?;
            let keyless = match config.gateway.pass_through_keys {
                true => reached(settings, None)?.ok(),
                false => None,
            };
            let known =
                before.and_then(|before| before.members.iter().find(|known| *known.name == *settings.name));
            let scope = known.map(|known| Arc::clone(&known.scope)).unwrap_or_else(|| {
                let (pipeline, models) = pipeline(config, settings, now);
                let scope =
                    Scope::new(&settings.name, pipeline, models, Arc::clone(clock), subscribers.clone());
                if let Some(sharing) = sharing {
                    sharing.share(&scope, account_of(settings));
                }
                scope
            });
            Ok(Arc::new(Member {
                name: Arc::clone(&scope.name),
                dialect: settings.dialect,
                endpoint,
                keyless,
                pool: settings.pool.as_deref().map(Arc::from),
                scope,
                max_wait: settings.max_wait,
                clocks: settings.streaming.clone(),
                secrets: secrets(settings),
                models: settings.models.clone(),
                whole_only: known.map(|known| Arc::clone(&known.whole_only)).unwrap_or_default(),
            }))
        };
        Ok(Self { members: config.providers().map(member).collect::<Result<_, Error>>()? })
    }

    /// Puts the configuration in force in every provider's layers.
    pub(crate) fn reconfigure(&self, config: &Config, now: Timestamp) {
        for member in &self.members {
            let limits = config.model_limits(&member.name).map(|(model, limits)| (model, limits.clone()));
            member.scope.reconfigure(config.pipeline(&member.name), limits.collect(), now);
        }
    }

    pub(crate) fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// The provider called `name`; `xai` and `gemini` are understood.
    pub(crate) fn member(&self, name: &str) -> Option<&Arc<Member>> {
        let exact = self.members.iter().find(|member| *member.name == *name);
        exact.or_else(|| {
            let alias = name.parse::<Dialect>().ok()?.name();
            self.members.iter().find(|member| *member.name == *alias)
        })
    }

    /// Who serves `model`: a server whose configuration names it exactly; else the provider in front of a slash; else
    /// a server whose configuration has a prefix of it (the longest); else the vendor of its family.
    pub(crate) fn target(&self, model: &str) -> Result<Target, Error> {
        let model = model.trim();
        let at = |member: &Arc<Member>, model: &str| Target {
            member: Arc::clone(member),
            model: model.to_owned(),
        };
        if let Some(member) =
            self.members.iter().find(|member| member.models.iter().any(|known| known == model))
        {
            return Ok(at(member, model));
        }
        if let Some((first, rest)) = model.split_once('/')
            && let Some(member) = self.member(first).filter(|_| !rest.is_empty())
        {
            // The protocol's own table knows more about such names (a `models/` in between, for instance).
            let rest = route(model).map_or(rest, |route| route.model);
            return Ok(at(member, rest));
        }
        let patterned = self.members.iter().filter_map(|member| {
            let prefixes = member.models.iter().filter_map(|known| known.strip_suffix('*'));
            let longest = prefixes.filter(|prefix| model.starts_with(prefix)).map(str::len).max()?;
            Some((longest, member))
        });
        if let Some((_, member)) = patterned.max_by_key(|(length, _)| *length) {
            return Ok(at(member, model));
        }
        if let Some(route) = route(model)
            && let Some(member) = self.members.iter().find(|member| *member.name == *route.dialect.name())
        {
            return Ok(at(member, route.model));
        }
        Err(self.unknown(model))
    }

    /// The same model at everybody who stands beside this target's provider, that one included, in the order in which
    /// they are to be asked.
    ///
    /// - `wish`: calls with the same number go to the same one while it has room (rendezvous hashing: when one joins or
    ///   leaves, only its own calls move).
    pub(crate) fn pool(&self, target: Target, wish: &dyn Fn() -> u64) -> Vec<Target> {
        let head = target.member.head();
        let beside = |member: &&Arc<Member>| member.pool.as_deref() == Some(head) && member.endpoint.is_ok();
        // Who is asked for by its own name alone is meant alone.
        if target.member.pool.is_some() || !self.members.iter().any(|member| beside(&member)) {
            return vec![target];
        }
        let mut mates: Vec<&Arc<Member>> = self.members.iter().filter(beside).collect();
        // One without a key is nobody to ask, unless there is nobody else.
        if target.member.endpoint.is_ok() {
            mates.push(&target.member);
        }
        let wish = wish();
        mates.sort_by_cached_key(|member| {
            let mut hasher = DefaultHasher::new();
            (wish, &*member.name).hash(&mut hasher);
            std::cmp::Reverse(hasher.finish())
        });
        mates
            .into_iter()
            .map(|member| Target { member: Arc::clone(member), model: target.model.clone() })
            .collect()
    }

    fn unknown(&self, model: &str) -> Error {
        if model.is_empty() {
            return Error::new(
                ErrorKind::InvalidRequest,
                "no model is named; set one in the request or as `model`",
            );
        }
        let known: Vec<&str> = self.members.iter().map(|member| &*member.name).collect();
        Error::new(
            ErrorKind::InvalidRequest,
            format!(
                "no provider is known for the model `{}`; write it as provider/model, with one of {}",
                one_line(model),
                known.join(", ")
            ),
        )
        .with_code(UNKNOWN_MODEL)
    }
}

fn pipeline(config: &Config, settings: &ProviderSettings, now: Timestamp) -> (Pipeline, Models) {
    let mut pipeline = Pipeline::new(config.pipeline(&settings.name), now);
    let mut models = Models::default();
    for (model, limits) in config.model_limits(&settings.name) {
        pipeline.limit_model(models.intern(model), limits.clone(), now);
    }
    (pipeline, models)
}

/// Whose quota a provider's calls spend: of the same key at the same address.
fn account_of(settings: &ProviderSettings) -> String {
    let key = settings.api_key.as_ref().map_or("", |key| key.expose_secret().trim());
    account(&settings.name, &[settings.base_url.as_deref().unwrap_or(""), key])
}

/// Everything of a provider's settings that must be shown nowhere.
fn secrets(settings: &ProviderSettings) -> Vec<SecretString> {
    let headers = settings.headers.iter().map(|(_, value)| value);
    let all = settings.api_key.iter().chain(headers);
    let trimmed = all.map(|secret| secret.expose_secret().trim());
    trimmed.filter(|secret| secret.len() >= SECRET_MIN).map(SecretString::from).collect()
}

/// The endpoint; the inner error says what is missing, the outer one what is wrong.
fn endpoint(
    settings: &ProviderSettings,
    key: Option<&SecretString>,
) -> Result<Result<Endpoint, String>, Error> {
    let wants_key = settings.is_built_in() || settings.api_key_env.is_some();
    match wants_key && key.is_none() {
        true => Ok(Err(missing_key(settings))),
        false => reached(settings, key),
    }
}

/// The same, whether it wants a key or not.
fn reached(
    settings: &ProviderSettings,
    key: Option<&SecretString>,
) -> Result<Result<Endpoint, String>, Error> {
    let name = &settings.name;
    let key = key.map(ExposeSecret::expose_secret);
    let base_url = match (&settings.base_url, settings.is_vendors()) {
        (Some(base_url), _) => base_url.as_str(),
        (None, true) => settings.dialect.default_base_url(),
        (None, false) => {
            return Ok(Err(format!("{name} has no address; set providers.{name}.base_url")));
        }
    };
    let headers = settings.headers.iter();
    let options = EndpointOptions {
        anthropic_version: version(settings, Dialect::Anthropic, |version: &AnthropicVersion| {
            version.as_str()
        })?,
        google_version: version(settings, Dialect::Google, |version: &GoogleVersion| version.as_str())?,
        headers: headers.map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect(),
        is_compatible: settings.dialect == Dialect::OpenAi && !settings.is_vendors(),
        ..EndpointOptions::default()
    };
    let endpoint = Endpoint::new(settings.dialect, base_url, key, options);
    endpoint
        .map(Ok)
        .map_err(|error| Error::new(ErrorKind::Config, format!("{name}: {error}")).with_source(error))
}

/// What to set so that a provider can be called.
fn missing_key(settings: &ProviderSettings) -> String {
    let name = &settings.name;
    // The first of each list in the specification's order of names.
    let usual = match name.as_str() {
        "openai" => Some("OPENAI_API_KEY"),
        "anthropic" => Some("ANTHROPIC_API_KEY"),
        "google" => Some("GEMINI_API_KEY"),
        "grok" => Some("XAI_API_KEY"),
        _ => None,
    };
    match (&settings.api_key_env, usual) {
        (Some(variable), _) => format!("there is no key for {name}; set the variable {variable}"),
        (None, Some(variable)) => {
            format!("there is no key for {name}; set the variable {variable} or pass {name}_api_key")
        }
        (None, None) => {
            format!("there is no key for {name}; name its variable in providers.{name}.api_key_env")
        }
    }
}

/// The configured version, if this is a provider of that dialect.
fn version<V>(
    settings: &ProviderSettings,
    dialect: Dialect,
    shown: fn(&V) -> &'static str,
) -> Result<V, Error>
where
    V: Default + serde::de::DeserializeOwned,
{
    let Some(wanted) = settings.api_version.as_deref().filter(|_| settings.dialect == dialect) else {
        return Ok(V::default());
    };
    serde_json::from_value(serde_json::Value::from(wanted)).map_err(|_| {
        let default = shown(&V::default());
        let name = &settings.name;
        Error::new(
            ErrorKind::Config,
            format!(
                "providers.{name}.api_version: `{}` is not known; the default is {default}",
                one_line(wanted)
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use omega_config::{FileChoice, Sources};

    use super::*;
    use crate::clock::SystemClock;

    fn registry(yaml: &str) -> Registry {
        let file = FileChoice::Text { name: "test.yaml".into(), yaml: yaml.into() };
        let loaded =
            Config::load(&Sources { file, ..Sources::default() }).expect("the configuration is valid");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Registry::new(&loaded.config, &clock, &broadcast::channel(1).0, None)
            .expect("the providers are valid")
    }

    fn served(registry: &Registry, model: &str) -> (String, String) {
        let target = registry.target(model).expect("somebody serves it");
        (target.member.name.to_string(), target.model)
    }

    const SERVERS: &str = "
providers:
  router: {protocol: openai, base_url: http://127.0.0.1:1/v1, models: [openai/gpt-oss-120b, 'qwen*']}
  ollama: {protocol: openai, base_url: http://127.0.0.1:2/v1, models: ['qwen3*', gpt-5.2-local]}
";

    #[test]
    fn families_go_to_their_vendors() {
        let registry = registry("{}");
        for (model, provider) in [
            ("gpt-5.2", "openai"),
            ("claude-opus-5-5", "anthropic"),
            ("gemini-3-pro", "google"),
            ("grok-5", "grok"),
        ] {
            assert_eq!(served(&registry, model), (provider.into(), model.into()));
        }
    }

    #[test]
    fn a_provider_in_front_decides_and_is_taken_off() {
        let registry = registry(SERVERS);
        assert_eq!(served(&registry, "openai/gpt-5.2"), ("openai".into(), "gpt-5.2".into()));
        assert_eq!(served(&registry, "xai/grok-5"), ("grok".into(), "grok-5".into()));
        assert_eq!(served(&registry, "gemini/gemini-3-pro"), ("google".into(), "gemini-3-pro".into()));
        assert_eq!(served(&registry, "ollama/library/llama"), ("ollama".into(), "library/llama".into()));
    }

    #[test]
    fn configured_models_come_before_families_exact_ones_before_prefixes() {
        let registry = registry(SERVERS);
        assert_eq!(served(&registry, "openai/gpt-oss-120b"), ("router".into(), "openai/gpt-oss-120b".into()));
        assert_eq!(served(&registry, "gpt-5.2-local"), ("ollama".into(), "gpt-5.2-local".into()));
        assert_eq!(served(&registry, "qwen3-32b").0, "ollama");
        assert_eq!(served(&registry, "qwen2").0, "router");
    }

    #[test]
    fn an_unknown_model_is_refused_with_the_known_providers() {
        let error = registry("{}").target("llama-9").expect_err("nobody serves it");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert_eq!(
            error.to_string(),
            "no provider is known for the model `llama-9`; write it as provider/model, with one of openai, anthropic, google, grok"
        );
    }

    #[test]
    fn a_missing_key_names_its_variable() {
        let registry = registry("{}");
        let google = registry.member("google").expect("built in");
        let said = google.endpoint().expect_err("there is no key");
        assert_eq!(
            said,
            "there is no key for google; set the variable GEMINI_API_KEY or pass google_api_key"
        );
    }

    #[test]
    fn made_up_models_cannot_fill_the_memory() {
        let mut models = Models::default();
        assert_eq!(models.intern("a"), ModelId(1));
        assert_eq!(models.intern("a"), ModelId(1));
        assert_eq!(models.name(ModelId(1)), "a");
        for at in 0..5_000 {
            models.intern(&format!("made-up-{at}"));
        }
        assert_eq!(models.intern("one more"), ModelId::OTHER);
        assert_eq!(models.intern("a"), ModelId(1));
        assert!(models.names.len() <= MODELS_MAX);
        assert_eq!(Models::default().intern(&"x".repeat(MODEL_NAME_MAX + 1)), ModelId::OTHER);
    }
}
