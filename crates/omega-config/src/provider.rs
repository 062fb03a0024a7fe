//! The providers: the four that are built in, with their documented limits, and whatever a file adds.
//!
//! A configured provider is any server that speaks one of the four dialects; it gets its own breaker and limits.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Dialect;
use omega_policy::{ChargeRule, CountedTokens, LimiterConfig, ModelLimits, TokenLimits};
use secrecy::SecretString;

use crate::config::StreamClocks;

/// One provider as the client uses it.
#[derive(Clone, Debug)]
pub struct ProviderSettings {
    /// Its name: the key of its breaker, limits and statistics.
    pub name: String,
    /// The wire protocol it speaks.
    pub dialect: Dialect,
    /// Where it is, without a trailing slash. `None`: the vendor's own address.
    pub base_url: Option<String>,
    /// The credential, if one was found.
    pub api_key: Option<SecretString>,
    /// The version to ask for, where the protocol has versions. `None`: the protocol's default.
    pub api_version: Option<String>,
    /// Models served here beside what routing knows by itself: exact names, or prefixes that end in `*`.
    pub models: Vec<String>,
    /// The provider it stands beside, with another key or at another address. Default `None`.
    pub pool: Option<String>,
    /// Headers sent with every request. Values are kept as secrets, since some servers take credentials there.
    pub headers: Vec<(String, SecretString)>,
    /// The longest wait for a first admission (`max_wait_seconds`). Zero: never wait. Default 30 s.
    pub max_wait: Duration,
    /// The stream clocks.
    pub streaming: StreamClocks,
    /// Its limits. [`Config::pipeline`](crate::Config::pipeline) adds the common switch.
    pub limits: LimiterConfig,
    /// Take the limits that the provider's headers show, for each model, instead of the configured ones.
    pub auto_limits: bool,
    /// Limits of single models, inside the provider's.
    pub model_limits: BTreeMap<String, ModelLimits>,
    /// The variable its key is read from, where the configuration names one (`api_key_env`).
    pub api_key_env: Option<String>,
    /// The preset its limits started from.
    pub tier: Option<Tier>,
}

impl ProviderSettings {
    /// Is this one of the four the specification names?
    pub fn is_built_in(&self) -> bool {
        built_in(&self.name).is_some()
    }

    /// Does it speak for one of the four: is it one, or does it stand beside one?
    pub fn is_vendors(&self) -> bool {
        self.is_built_in() || self.pool.as_deref().is_some_and(|name| built_in(name).is_some())
    }

    pub(crate) fn built_in(provider: &BuiltIn) -> Self {
        let mut settings = Self::compatible(provider.name, provider.dialect);
        settings.limits.requests_per_minute = Some(provider.requests_per_minute);
        settings.limits.tokens = TokenLimits::Total(Some(provider.tokens_per_minute));
        settings.limits.burst = Duration::from_secs(provider.burst_seconds);
        settings.limits.charge = provider.charge;
        settings.limits.counted = provider.counted;
        settings
    }

    /// A configured server before anything is said of it: the limits of "any other provider".
    pub(crate) fn compatible(name: &str, dialect: Dialect) -> Self {
        Self {
            name: String::from(name),
            dialect,
            base_url: None,
            api_key: None,
            api_version: None,
            models: Vec::new(),
            pool: None,
            headers: Vec::new(),
            max_wait: Duration::from_secs(30),
            streaming: StreamClocks::default(),
            limits: LimiterConfig::default(),
            auto_limits: false,
            model_limits: BTreeMap::new(),
            api_key_env: None,
            tier: None,
        }
    }
}

/// OpenAI's usage tiers, as the specification prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// 60 requests and 90,000 tokens per minute.
    Free,
    /// 500 requests and 200,000 tokens per minute.
    Tier1,
    /// 5,000 requests and 2,000,000 tokens per minute.
    Tier2,
    /// 10,000 requests and 10,000,000 tokens per minute.
    Tier3,
}

impl Tier {
    /// Requests and tokens per minute.
    pub fn limits(self) -> (u64, u64) {
        match self {
            Self::Free => (60, 90_000),
            Self::Tier1 => (500, 200_000),
            Self::Tier2 => (5_000, 2_000_000),
            Self::Tier3 => (10_000, 10_000_000),
        }
    }
}

/// What is known of a provider before anything is configured.
pub(crate) struct BuiltIn {
    pub(crate) name: &'static str,
    pub(crate) dialect: Dialect,
    requests_per_minute: u64,
    tokens_per_minute: u64,
    burst_seconds: u64,
    charge: ChargeRule,
    counted: CountedTokens,
    /// The variables its key is read from, the first that is set.
    pub(crate) key_variables: &'static [&'static str],
}

/// The built-in provider called `name`.
pub(crate) fn built_in(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|provider| provider.name == name)
}

/// The four providers. Limits: the specification's drawing of the architecture. Burst, charge and counted tokens:
///
/// - OpenAI counts `max_tokens` when a call arrives and never returns it. Source: OpenAI rate limit guide, read
///   2026-11-23.
/// - Anthropic counts neither cache reads nor unused `max_tokens`, and may refuse bursts that fit the minute. Source:
///   Anthropic API rate limits page, read 2026-11-23.
/// - Gemini counts input tokens only. Source: Gemini API rate limits page, read 2026-11-23.
/// - xAI enforces its limits per second. Source: xAI rate limits page, read 2026-11-23.
pub(crate) static BUILT_IN: [BuiltIn; 4] = [
    BuiltIn {
        name: "openai",
        dialect: Dialect::OpenAi,
        requests_per_minute: 60,
        tokens_per_minute: 90_000,
        burst_seconds: 60,
        charge: ChargeRule::Estimate,
        counted: CountedTokens::All,
        key_variables: &["OPENAI_API_KEY"],
    },
    BuiltIn {
        name: "anthropic",
        dialect: Dialect::Anthropic,
        requests_per_minute: 50,
        tokens_per_minute: 100_000,
        burst_seconds: 10,
        charge: ChargeRule::Actual,
        counted: CountedTokens::WithoutCacheReads,
        key_variables: &["ANTHROPIC_API_KEY"],
    },
    BuiltIn {
        name: "google",
        dialect: Dialect::Google,
        requests_per_minute: 60,
        tokens_per_minute: 120_000,
        burst_seconds: 60,
        charge: ChargeRule::Actual,
        counted: CountedTokens::InputOnly,
        key_variables: &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
    },
    BuiltIn {
        name: "grok",
        dialect: Dialect::Grok,
        requests_per_minute: 60,
        tokens_per_minute: 100_000,
        burst_seconds: 1,
        charge: ChargeRule::Actual,
        counted: CountedTokens::All,
        key_variables: &["XAI_API_KEY", "GROK_API_KEY"],
    },
];
