//! Building a client: the specification's arguments, everything else by configuration, and seams for tests.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use omega_config::{Arguments, Config, ConfigError, Estimates, FileChoice, Loaded, Sources, Tokenizer};
use omega_protocol::TokenCounter;
use omega_transport::{HttpTransport, ProxySettings, Transport, TransportConfig, TransportError};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::broadcast;

use crate::client::{Inner, UnifiedLLMClient};
use crate::clock::{Clock, Dice, SystemClock};
use crate::error::{Error, ErrorKind};
use crate::events::Events;
use crate::registry::Registry;
use crate::store::{SharedStore, Sharing};
use crate::telemetry;
use crate::tenants::Tenants;

/// Collects what a client is built from. Arguments given here win over the environment, which wins over the file,
/// which wins over the defaults; what is not given stays unset.
#[derive(Default)]
#[must_use = "a builder builds nothing until `build` is called"]
pub struct Builder {
    arguments: Arguments,
    given: Option<Given>,
    file: Option<FileChoice>,
    sources: Option<Sources>,
    transport: Option<Arc<dyn Transport>>,
    transport_config: Option<TransportConfig>,
    clock: Option<Arc<dyn Clock>>,
    seed: Option<u64>,
    tenant_weights: Vec<(String, u32)>,
    store: Option<Arc<dyn SharedStore>>,
}

/// A configuration that was made elsewhere: a [`Loaded`] or a [`Config`].
#[derive(Clone, Debug)]
pub struct Given(Box<Loaded>);

impl From<Loaded> for Given {
    fn from(loaded: Loaded) -> Self {
        Self(Box::new(loaded))
    }
}

impl From<Config> for Given {
    fn from(config: Config) -> Self {
        Self(Box::new(Loaded {
            config,
            file: None,
            file_found_by_itself: false,
            settings: Vec::new(),
            warnings: Vec::new(),
        }))
    }
}

impl Builder {
    /// The part of the quota that a tenant gets while calls wait, relative to the others' (1 each unless said here).
    /// See [`Call::tenant`](crate::Call::tenant). 0 is read as 1.
    pub fn tenant_weight(mut self, name: impl Into<String>, weight: u32) -> Self {
        self.tenant_weights.push((name.into(), weight));
        self
    }

    /// Shares limits, pauses and circuits through a store of one's own, whatever `state` says.
    pub fn store(mut self, store: Arc<dyn SharedStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// The model used when a request names none. Default `gpt-5.2`.
    pub fn preferred_model(mut self, model: impl Into<String>) -> Self {
        self.arguments.preferred_model = Some(model.into());
        self
    }

    /// The key for OpenAI. Default: `OPENAI_API_KEY`.
    pub fn openai_api_key(self, key: impl Into<SecretString>) -> Self {
        self.api_key("openai", key)
    }

    /// The key for Anthropic. Default: `ANTHROPIC_API_KEY`.
    pub fn anthropic_api_key(self, key: impl Into<SecretString>) -> Self {
        self.api_key("anthropic", key)
    }

    /// The key for Google. Default: `GEMINI_API_KEY` or `GOOGLE_API_KEY`.
    pub fn google_api_key(self, key: impl Into<SecretString>) -> Self {
        self.api_key("google", key)
    }

    /// The key for xAI. Default: `XAI_API_KEY` or `GROK_API_KEY`.
    pub fn grok_api_key(self, key: impl Into<SecretString>) -> Self {
        self.api_key("grok", key)
    }

    /// The same as [`Builder::grok_api_key`].
    pub fn xai_api_key(self, key: impl Into<SecretString>) -> Self {
        self.api_key("grok", key)
    }

    /// The key of any provider, by its name in the configuration.
    pub fn api_key(mut self, provider: impl Into<String>, key: impl Into<SecretString>) -> Self {
        self.arguments.api_keys.insert(provider.into(), key.into());
        self
    }

    /// Switches the circuit breakers. Default on.
    pub fn enable_circuit_breaker(mut self, on: bool) -> Self {
        self.arguments.enable_circuit_breaker = Some(on);
        self
    }

    /// Switches the rate limiters. Default on.
    pub fn enable_rate_limiting(mut self, on: bool) -> Self {
        self.arguments.enable_rate_limiting = Some(on);
        self
    }

    /// Attempts at each target, the first included. 1 means no retry; 0 is an error. Default 3.
    pub fn max_retries(mut self, attempts: u32) -> Self {
        self.arguments.max_retries = Some(attempts);
        self
    }

    /// Models to turn to, in order, when a call cannot be served. Default none.
    pub fn fallbacks<M: Into<String>>(mut self, models: impl IntoIterator<Item = M>) -> Self {
        self.arguments.fallbacks = Some(models.into_iter().map(Into::into).collect());
        self
    }

    /// How long a call may take in all. Default 600 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.arguments.timeout = Some(timeout);
        self
    }

    /// Where a provider is, as its SDK takes it.
    pub fn base_url(mut self, provider: impl Into<String>, url: impl Into<String>) -> Self {
        self.arguments.base_urls.insert(provider.into(), url.into());
        self
    }

    /// Any other setting, by its path in the file: `("circuit_breaker.timeout_seconds", "5")`.
    pub fn setting(mut self, path: impl Into<String>, value: impl Into<String>) -> Self {
        self.arguments.settings.push((path.into(), value.into()));
        self
    }

    /// A part of a configuration file under a name for messages, laid over file and environment: for a provider of one's
    /// own, which has no path before it is named.
    pub fn config_part(mut self, name: impl Into<String>, yaml: impl Into<String>) -> Self {
        self.arguments.texts.push((name.into(), yaml.into()));
        self
    }

    /// A configuration made elsewhere, in place of file and environment. Arguments given to this builder are laid over
    /// it.
    pub fn config(mut self, config: impl Into<Given>) -> Self {
        self.given = Some(config.into());
        self
    }

    /// The configuration file. Default: what `OMEGA_CONFIG` names, else `config/resilience.yaml` if it is there.
    pub fn config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(FileChoice::Explicit(path.into()));
        self
    }

    /// The configuration file's text, under a name for messages.
    pub fn config_text(mut self, name: impl Into<String>, yaml: impl Into<String>) -> Self {
        self.file = Some(FileChoice::Text { name: name.into(), yaml: yaml.into() });
        self
    }

    /// File, environment and arguments to read instead of this process's. Arguments given to this builder win over
    /// those inside.
    pub fn sources(mut self, sources: Sources) -> Self {
        self.sources = Some(sources);
        self
    }

    /// Sends through this transport instead of the network.
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// How to connect. Certificates and proxies of the configuration are added where it names none.
    pub fn transport_config(mut self, config: TransportConfig) -> Self {
        self.transport_config = Some(config);
        self
    }

    /// Runs on this clock instead of the system's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Makes chance (the jitter of delays) repeatable.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Builds the client. Opens no connection and starts no task.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: something in the configuration cannot be used; the message says what and where. A
    /// missing key is not an error here, but of the first call that needs it.
    pub fn build(self) -> Result<UnifiedLLMClient, Error> {
        let Self {
            arguments,
            given,
            file,
            sources,
            transport,
            transport_config,
            clock,
            seed,
            tenant_weights,
            store,
        } = self;
        let loaded = match given {
            Some(given) => overlaid(*given.0, arguments)?,
            None => load(sources.unwrap_or_else(Sources::process), file, arguments)?,
        };
        let config = &loaded.config;
        let clock = clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let (subscribers, _) = broadcast::channel(Events::CAPACITY);
        let sharing = Sharing::of(config, store)?;
        let registry = Registry::new(config, &clock, &subscribers, sharing.as_ref())?;
        every_model_is_served(config, &registry)?;
        let counter = counter(&config.estimates)?;
        let (transport, pool) = match transport {
            Some(transport) => (transport, None),
            None => {
                let config = connecting(config, transport_config.unwrap_or_default()).map_err(refused)?;
                let pool = Arc::new(HttpTransport::new(config).map_err(refused)?);
                (Arc::clone(&pool) as Arc<dyn Transport>, Some(pool))
            }
        };
        announce(&loaded);
        let tenants = Arc::<Tenants>::default();
        let tenant_weights: Arc<[(String, u32)]> = tenant_weights.into();
        weigh_tenants(&loaded.config, &tenant_weights, &tenants, &registry);
        Ok(UnifiedLLMClient::from_inner(Inner {
            failover_wait: loaded.config.failover_wait,
            counter,
            loaded,
            registry,
            transport,
            pool,
            clock,
            dice: Dice::new(seed),
            subscribers,
            sharing,
            calls: Arc::default(),
            hedges: Arc::default(),
            tenants,
            tenant_weights,
        }))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments keep keys as secrets, which their own `Debug` does not show.
        f.debug_struct("Builder").field("arguments", &self.arguments).finish_non_exhaustive()
    }
}

/// Whether somebody is known for every model that the configuration names.
pub(crate) fn every_model_is_served(config: &Config, registry: &Registry) -> Result<(), Error> {
    let named = std::iter::once(&config.model).chain(&config.fallbacks);
    for model in named.chain(config.aliases.keys()).flat_map(|name| config.meant_by(name)) {
        registry.target(model).map_err(|error| Error::new(ErrorKind::Config, error.message()))?;
    }
    Ok(())
}

/// Gives each tenant its part: as its key says, or as the code does.
pub(crate) fn weigh_tenants(
    config: &Config,
    given: &[(String, u32)],
    tenants: &Tenants,
    registry: &Registry,
) {
    let keys = config.keys.iter().map(|key| (key.tenant(), key.weight));
    for (name, weight) in keys.chain(given.iter().map(|(name, weight)| (name.as_str(), *weight))) {
        let tenant = tenants.intern(name);
        registry.members().iter().for_each(|member| member.scope.weigh_tenant(tenant, weight));
    }
}

fn load(mut sources: Sources, file: Option<FileChoice>, arguments: Arguments) -> Result<Loaded, Error> {
    if let Some(file) = file {
        sources.file = file;
    }
    let under = &mut sources.arguments;
    under.preferred_model = arguments.preferred_model.or_else(|| under.preferred_model.take());
    under.enable_circuit_breaker = arguments.enable_circuit_breaker.or(under.enable_circuit_breaker);
    under.enable_rate_limiting = arguments.enable_rate_limiting.or(under.enable_rate_limiting);
    under.max_retries = arguments.max_retries.or(under.max_retries);
    under.fallbacks = arguments.fallbacks.or_else(|| under.fallbacks.take());
    under.timeout = arguments.timeout.or(under.timeout);
    under.ca_file = arguments.ca_file.or_else(|| under.ca_file.take());
    under.api_keys.extend(arguments.api_keys);
    under.base_urls.extend(arguments.base_urls);
    under.settings.extend(arguments.settings);
    under.texts.extend(arguments.texts);
    Config::load(&sources).map_err(wrong)
}

fn wrong(error: ConfigError) -> Error {
    Error::new(ErrorKind::Config, error.to_string()).with_source(error)
}

pub(crate) fn refused(error: TransportError) -> Error {
    Error::new(ErrorKind::Config, error.to_string()).with_source(error)
}

/// Lays the arguments over a configuration that was made elsewhere.
fn overlaid(mut loaded: Loaded, arguments: Arguments) -> Result<Loaded, Error> {
    let refuse = |message: String| Err(Error::new(ErrorKind::Config, message));
    let config = &mut loaded.config;
    if let Some((path, _)) = arguments.settings.first().or(arguments.texts.first()) {
        return refuse(format!(
            "`{path}`: settings by path apply to a file, not to a configuration made elsewhere"
        ));
    }
    if arguments.max_retries == Some(0) || config.max_retries == 0 {
        return refuse(String::from(
            "max_retries counts attempts, the first included: it must be at least 1",
        ));
    }
    if let Some(model) = arguments.preferred_model {
        config.model = model;
    }
    if let Some(on) = arguments.enable_circuit_breaker {
        config.breaker.enabled = on;
    }
    if let Some(on) = arguments.enable_rate_limiting {
        config.rate_limiting = on;
    }
    if let Some(attempts) = arguments.max_retries {
        config.max_retries = attempts;
    }
    if let Some(fallbacks) = arguments.fallbacks {
        config.fallbacks = fallbacks;
    }
    if let Some(timeout) = arguments.timeout {
        config.timeout = timeout;
    }
    if let Some(path) = arguments.ca_file {
        config.tls.ca_file = Some(path);
    }
    for (name, key) in arguments.api_keys {
        provider(config, &name)?.api_key = Some(key);
    }
    for (name, url) in arguments.base_urls {
        provider(config, &name)?.base_url = Some(url);
    }
    Ok(loaded)
}

fn provider<'c>(config: &'c mut Config, name: &str) -> Result<&'c mut omega_config::ProviderSettings, Error> {
    let known = match name {
        "xai" | "x-ai" => "grok",
        "gemini" => "google",
        name => name,
    };
    let unknown = || Error::new(ErrorKind::Config, format!("no provider is called `{name}`"));
    config.provider_mut(known).ok_or_else(unknown)
}

/// What estimates input tokens. The tokenizer's tables are unpacked here, so that no call waits for them.
pub(crate) fn counter(estimates: &Estimates) -> Result<TokenCounter, Error> {
    match estimates.tokenizer {
        Tokenizer::Off => Ok(TokenCounter::by_bytes()),
        Tokenizer::Exact => TokenCounter::exact(estimates.exact_bytes_max).map_err(|missing| {
            let message = format!(
                "estimates.tokenizer: {missing}; build with `--features tokenizer`, or set it to `off` to estimate by bytes"
            );
            Error::new(ErrorKind::Config, message).with_source(missing)
        }),
    }
}

/// The transport's configuration with the certificates and proxies of ours.
pub(crate) fn connecting(
    config: &Config,
    mut transport: TransportConfig,
) -> Result<TransportConfig, TransportError> {
    if transport.ca_file.is_none() {
        transport.ca_file.clone_from(&config.tls.ca_file);
    }
    let proxy = &config.proxy;
    let shown = |secret: &Option<SecretString>| secret.as_ref().map(|value| value.expose_secret().to_owned());
    let (https, http, all) = (shown(&proxy.https), shown(&proxy.http), shown(&proxy.all));
    if https.is_some() || http.is_some() || all.is_some() {
        transport.proxy = ProxySettings::from_values(
            https.as_deref(),
            http.as_deref(),
            all.as_deref(),
            proxy.no.as_deref(),
        )?;
    }
    Ok(transport)
}

/// The first lines of a client's life.
fn announce(loaded: &Loaded) {
    if let Some(path) = loaded.file.as_deref().filter(|_| loaded.file_found_by_itself) {
        telemetry::configuration_found(path);
    }
    loaded.warnings.iter().for_each(|warning| telemetry::configuration_warning(warning));
    if loaded.config.breaker.enabled {
        telemetry::circuit_breakers_initialized();
    }
    if loaded.config.rate_limiting {
        telemetry::rate_limiters_initialized();
    }
}
