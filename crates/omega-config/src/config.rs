//! What OMEGA runs by: the merged, checked result of every source, in the types its users need.
//!
//! `Config::default()` is the documented default configuration, value for value what `config/resilience.yaml` says.
//! Everything here has been validated: a program that builds a [`Config`] by hand answers for its own numbers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use omega_policy::{
    Backoff, BreakerConfig, BudgetConfig, LimiterConfig, ModelLimits, PipelineConfig, RetryConfig,
    TokenLimits,
};
use secrecy::SecretString;

use crate::callers::CallerKey;
use crate::gateway::GatewaySettings;
use crate::preset::Preset;
use crate::provider::{BUILT_IN, ProviderSettings};
use crate::state::State;

/// The merged configuration. Its `Debug` shows no key, header value or proxy password.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the settings that nobody gave started from. Default [`Preset::Spec`].
    pub preset: Preset,
    /// The model used when a request names none (`preferred_model`). Default `gpt-5.2`.
    pub model: String,
    /// Models to turn to, in order, when a call cannot be served. Default none.
    pub fallbacks: Vec<String>,
    /// Attempts in all, the first included. At least 1. Default 3.
    pub max_retries: u32,
    /// How long a call may take in all: queueing, sleeping and calling. Default 600 s.
    pub timeout: Duration,
    /// A wait up to this long is waited out on the same target while another would admit now. Default 5 s.
    pub failover_wait: Duration,
    /// The circuit breaker, one per provider (or per model).
    pub breaker: BreakerConfig,
    /// The delays between attempts.
    pub backoff: Backoff,
    /// The switch of every rate limiter. Default on.
    pub rate_limiting: bool,
    /// The retry budget, used while `retry_budget_enabled`.
    pub retry_budget: BudgetConfig,
    /// The switch of the retry budget. Default on.
    pub retry_budget_enabled: bool,
    /// A second request beside a slow one. Default off.
    pub hedging: HedgingSettings,
    /// The stream clocks of providers that do not say otherwise; each provider's own are in
    /// [`ProviderSettings::streaming`].
    pub streaming: StreamClocks,
    /// Ask for a stream upstream even when the caller wants a whole answer, so that the clocks guard it. Default on.
    pub guard_whole_answers: bool,
    /// What happens when a stream breaks after part of it reached the caller. Default [`OnStreamBreak::Error`].
    pub on_stream_break: OnStreamBreak,
    /// How input tokens are estimated before a call.
    pub estimates: Estimates,
    /// Certificates to trust besides the platform's.
    pub tls: TlsSettings,
    /// The proxy variables, as the environment had them.
    pub proxy: ProxySettings,
    /// Where limits and breakers live.
    pub state: State,
    /// What `omega serve` runs by.
    pub gateway: GatewaySettings,
    /// Who may call a gateway. Empty: nobody is asked for a key. Default none.
    pub keys: Vec<CallerKey>,
    /// Names for models, each with the models it stands for: the first is asked, the rest are its first fallbacks.
    pub aliases: BTreeMap<String, Vec<String>>,
    pub(crate) providers: Vec<ProviderSettings>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            preset: Preset::Spec,
            model: String::from("gpt-5.2"),
            fallbacks: Vec::new(),
            max_retries: 3,
            timeout: Duration::from_secs(600),
            failover_wait: Duration::from_secs(5),
            breaker: BreakerConfig::default(),
            backoff: Backoff::default(),
            rate_limiting: true,
            retry_budget: BudgetConfig::default(),
            retry_budget_enabled: true,
            hedging: HedgingSettings::default(),
            streaming: StreamClocks::default(),
            guard_whole_answers: true,
            on_stream_break: OnStreamBreak::Error,
            estimates: Estimates::default(),
            tls: TlsSettings::default(),
            proxy: ProxySettings::default(),
            state: State::default(),
            gateway: GatewaySettings::default(),
            keys: Vec::new(),
            aliases: BTreeMap::new(),
            providers: BUILT_IN.iter().map(ProviderSettings::built_in).collect(),
        }
    }
}

impl Config {
    /// What `provider`'s pipeline is built from. A provider nobody configured gets the limits of "any other".
    pub fn pipeline(&self, provider: &str) -> PipelineConfig {
        let mut limiter = self.provider(provider).map_or_else(
            || {
                let mut unnamed = LimiterConfig::default();
                self.preset.limit(&mut unnamed);
                unnamed
            },
            |settings| match settings.auto_limits {
                // What headers show binds each model by itself; until they do, 429s are followed.
                true => LimiterConfig {
                    requests_per_minute: None,
                    tokens: TokenLimits::Total(None),
                    pace_unknown: true,
                    ..settings.limits.clone()
                },
                false => settings.limits.clone(),
            },
        );
        limiter.enabled = limiter.enabled && self.rate_limiting;
        PipelineConfig {
            breaker: self.breaker.clone(),
            limiter,
            retry: RetryConfig {
                max_attempts: self.max_retries,
                backoff: self.backoff.clone(),
                budget: self.retry_budget_enabled.then(|| self.retry_budget.clone()),
            },
        }
    }

    /// The models of `provider` that have limits of their own (`rate_limiting.<provider>.models`), by name.
    pub fn model_limits(&self, provider: &str) -> impl Iterator<Item = (&str, &ModelLimits)> {
        self.provider(provider)
            .into_iter()
            .flat_map(|settings| settings.model_limits.iter().map(|(model, limits)| (model.as_str(), limits)))
    }

    /// The provider called `name`, if it is built in or configured.
    pub fn provider(&self, name: &str) -> Option<&ProviderSettings> {
        self.providers.iter().find(|provider| provider.name == name)
    }

    /// The same, to be changed by a program that composes its configuration itself.
    pub fn provider_mut(&mut self, name: &str) -> Option<&mut ProviderSettings> {
        self.providers.iter_mut().find(|provider| provider.name == name)
    }

    /// The four built-in providers in the specification's order, then the configured ones by name.
    pub fn providers(&self) -> impl Iterator<Item = &ProviderSettings> {
        self.providers.iter()
    }

    /// The same, to be changed.
    pub fn providers_mut(&mut self) -> impl Iterator<Item = &mut ProviderSettings> {
        self.providers.iter_mut()
    }

    /// The models a name stands for, in order: those of the alias, or the name itself.
    pub fn meant_by<'c>(&'c self, name: &'c str) -> impl Iterator<Item = &'c str> {
        let models = self.aliases.get(name.trim());
        let itself = models.is_none().then_some(name);
        models.into_iter().flatten().map(String::as_str).chain(itself)
    }
}

/// A call that is slow to begin is also sent to another target; the first to begin its answer is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HedgingSettings {
    /// The switch. Default off: a hedge is a second request that is paid for.
    pub enabled: bool,
    /// Hedges as a share of the calls that have another target, at most, in percent; 1 to 100. Default 2.
    pub percent: u32,
}

impl Default for HedgingSettings {
    fn default() -> Self {
        Self { enabled: false, percent: 2 }
    }
}

/// How long silence is tolerated in a stream. Keep-alives do not count as content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamClocks {
    /// Until the response's first byte. Default 30 s.
    pub first_byte: Duration,
    /// Until the first content, for models and requests not known to reason first. Default 120 s.
    pub first_content: Duration,
    /// Until the first content, for models and requests known to reason first. Default 300 s.
    pub reasoning_first_content: Duration,
    /// Between two pieces of content. Default 60 s.
    pub gap: Duration,
    /// Where another target exists, learn a shorter first-content clock from what the model lately did. Default on.
    pub learned_first_content: bool,
    /// Use it also where none exists. Default off.
    pub learned_without_fallback: bool,
}

impl Default for StreamClocks {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(30),
            first_content: Duration::from_secs(120),
            reasoning_first_content: Duration::from_secs(300),
            gap: Duration::from_secs(60),
            learned_first_content: true,
            learned_without_fallback: false,
        }
    }
}

/// What happens when a stream breaks after part of it reached the caller. A whole answer that breaks is tried again
/// unseen, whatever stands here. Tool calls and structured output are never continued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStreamBreak {
    /// A clear error event ends it.
    #[default]
    Error,
    /// The next target goes on from where it stopped: by an assistant prefill where it takes one, otherwise as
    /// [`OnStreamBreak::Restart`].
    Continue,
    /// The next target starts again, and its answer goes on only if it begins with what was already delivered.
    Restart,
}

/// How input tokens are estimated before a call. What a model's estimates are off by is learned either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimates {
    /// Default off: by bytes.
    pub tokenizer: Tokenizer,
    /// A request with more bytes of text than this is not tokenised. At most 256 KiB. Default 64 KiB: about 16,000
    /// tokens, counted in 1 ms, or in 13 ms where somebody means harm (measured, see `tokens/tokenizer.rs` of
    /// `omega-protocol`).
    pub exact_bytes_max: u64,
}

impl Default for Estimates {
    fn default() -> Self {
        Self { tokenizer: Tokenizer::Off, exact_bytes_max: 64 * 1024 }
    }
}

/// Whether a tokenizer counts the text of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tokenizer {
    /// Bytes are counted.
    #[default]
    Off,
    /// For OpenAI's models, whose encodings are public. Takes a build with the cargo feature `tokenizer`.
    Exact,
}

/// Certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// A PEM file of certificate authorities to trust besides the platform's.
    pub ca_file: Option<PathBuf>,
}

/// Proxy variables as the environment had them; they may carry passwords, hence the secrets.
#[derive(Clone, Debug, Default)]
pub struct ProxySettings {
    /// `HTTPS_PROXY` or `https_proxy`.
    pub https: Option<SecretString>,
    /// `http_proxy`, or `HTTP_PROXY` outside of a CGI program (where a request header could set it).
    pub http: Option<SecretString>,
    /// `ALL_PROXY` or `all_proxy`.
    pub all: Option<SecretString>,
    /// `NO_PROXY` or `no_proxy`: hosts that are reached directly.
    pub no: Option<String>,
}
