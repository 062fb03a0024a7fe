//! What an emulator is told before it starts. The defaults are a healthy, fast service without limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

use crate::error::EmulatorError;
use crate::provider::Provider;
use crate::quota::Quota;
use crate::scenario::{Scenario, parse_error};

/// Everything an emulator can be told.
///
/// ```
/// let config = omega_emulator::EmulatorConfig::from_yaml(
///     "seed: 7\nproviders:\n  openai:\n    quota: {rpm: 60, tpm: 90000}\n    latency: realistic\n",
/// )?;
/// assert_eq!(config.providers.openai.quota.rpm, Some(60));
/// # Ok::<(), omega_emulator::EmulatorError>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmulatorConfig {
    /// Where to listen. Default `127.0.0.1:0`: any free port of this computer only.
    pub listen: SocketAddr,
    /// Everything random follows from this number and the order of the requests. Default 0.
    pub seed: u64,
    /// How many times faster than real time everything runs: latencies, quota refill, `retry-after`. Default 1.
    pub time_scale: f64,
    /// The four providers.
    pub providers: Providers,
    /// What goes wrong when. Default: nothing.
    pub scenario: Scenario,
    /// Serve HTTPS with a certificate of a test authority made at start. Default: plain HTTP.
    pub tls: Option<Tls>,
    /// SETTINGS_MAX_CONCURRENT_STREAMS of every HTTP/2 connection. Default: the HTTP library's.
    pub http2_max_concurrent_streams: Option<u32>,
    /// The longest request body that is read; longer ones get 413. Default 32 MiB, Anthropic's documented limit.
    pub body_limit_bytes: usize,
    /// How many requests the journal keeps; the oldest are forgotten. Default 200,000.
    pub journal_limit: usize,
}

impl Default for EmulatorConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            seed: 0,
            time_scale: 1.0,
            providers: Providers::default(),
            scenario: Scenario::default(),
            tls: None,
            http2_max_concurrent_streams: None,
            body_limit_bytes: 32 * 1024 * 1024,
            journal_limit: 200_000,
        }
    }
}

impl std::fmt::Debug for EmulatorConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmulatorConfig")
            .field("listen", &self.listen)
            .field("seed", &self.seed)
            .field("time_scale", &self.time_scale)
            .field("providers", &self.providers)
            .field("scenario", &self.scenario)
            .field("tls", &self.tls)
            .field("http2_max_concurrent_streams", &self.http2_max_concurrent_streams)
            .field("body_limit_bytes", &self.body_limit_bytes)
            .field("journal_limit", &self.journal_limit)
            .finish()
    }
}

impl EmulatorConfig {
    /// Reads YAML (JSON is YAML too) and checks it.
    ///
    /// # Errors
    /// [`EmulatorError::Parse`] with line and column, [`EmulatorError::Invalid`] naming the value.
    pub fn from_yaml(text: &str) -> Result<Self, EmulatorError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let config: Self = serde_saphyr::from_str(text).map_err(|error| parse_error("emulator", &error))?;
        config.check()?;
        Ok(config)
    }

    pub(crate) fn check(&self) -> Result<(), EmulatorError> {
        let invalid = |what: String| Err(EmulatorError::Invalid(format!("emulator: {what}")));
        if !(self.time_scale.is_finite() && self.time_scale > 0.0) {
            return invalid(format!("time_scale must be greater than 0, found {}", self.time_scale));
        }
        if self.http2_max_concurrent_streams == Some(0) {
            return invalid("http2_max_concurrent_streams must be 1 or more".into());
        }
        for provider in Provider::ALL {
            let settings = &self.providers[provider];
            if let Err(what) = settings.quota.check().and_then(|()| settings.latency.check()) {
                return invalid(format!("providers.{provider}: {what}"));
            }
        }
        self.scenario.check()
    }
}

/// Settings of the four providers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Providers {
    /// OpenAI.
    pub openai: ProviderSettings,
    /// Anthropic.
    pub anthropic: ProviderSettings,
    /// Google.
    pub google: ProviderSettings,
    /// xAI.
    pub grok: ProviderSettings,
}

impl Index<Provider> for Providers {
    type Output = ProviderSettings;

    fn index(&self, provider: Provider) -> &ProviderSettings {
        match provider {
            Provider::OpenAi => &self.openai,
            Provider::Anthropic => &self.anthropic,
            Provider::Google => &self.google,
            Provider::Grok => &self.grok,
        }
    }
}

impl IndexMut<Provider> for Providers {
    fn index_mut(&mut self, provider: Provider) -> &mut ProviderSettings {
        match provider {
            Provider::OpenAi => &mut self.openai,
            Provider::Anthropic => &mut self.anthropic,
            Provider::Google => &mut self.google,
            Provider::Grok => &mut self.grok,
        }
    }
}

/// One provider: who may call, how much, how fast, which models.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderSettings {
    /// Accepted keys. Default: none listed, so that any key is accepted (but a key must be sent).
    pub keys: Vec<String>,
    /// Limits. Default: none.
    pub quota: Quota,
    /// How long answers take. Default: almost nothing.
    pub latency: Latency,
    /// Known models; others get 404. Default: none listed, so that any name is accepted.
    pub models: Vec<String>,
    /// The window of every model in tokens; longer prompts are refused. Default: unlimited.
    pub context_tokens: Option<u64>,
}

impl std::fmt::Debug for ProviderSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProviderSettings")
            .field("keys", &format_args!("[{} listed]", self.keys.len()))
            .field("quota", &self.quota)
            .field("latency", &self.latency)
            .field("models", &self.models)
            .field("context_tokens", &self.context_tokens)
            .finish()
    }
}

/// How long answers take, in trace time.
///
/// The first token comes after `base_s + input / input_tokens_per_s + Exp(jitter_s)`; the others follow at
/// `tokens_per_s`, times a lognormal factor of spread `rate_spread` drawn once per answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "LatencyFile")]
pub struct Latency {
    /// The constant part, seconds.
    pub base_s: f64,
    /// Input tokens read per second; 0 means at once.
    pub input_tokens_per_s: f64,
    /// Mean of the exponential part, seconds.
    pub jitter_s: f64,
    /// Output tokens per second; 0 means at once.
    pub tokens_per_s: f64,
    /// Standard deviation of the logarithm of the output rate.
    pub rate_spread: f64,
    /// How long a refusal takes, seconds.
    pub refusal_s: f64,
    /// Output tokens in one stream event, at least; more are put together when they would follow within 4 ms.
    pub tokens_per_event: u32,
}

/// A latency is a preset's name or its numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum LatencyFile {
    Preset(LatencyPreset),
    Numbers(LatencyNumbers),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum LatencyPreset {
    None,
    Realistic,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LatencyNumbers {
    base_s: f64,
    input_tokens_per_s: f64,
    jitter_s: f64,
    tokens_per_s: f64,
    rate_spread: f64,
    refusal_s: f64,
    tokens_per_event: u32,
}

impl Default for LatencyNumbers {
    fn default() -> Self {
        let Latency {
            base_s,
            input_tokens_per_s,
            jitter_s,
            tokens_per_s,
            rate_spread,
            refusal_s,
            tokens_per_event,
        } = Latency::default();
        Self { base_s, input_tokens_per_s, jitter_s, tokens_per_s, rate_spread, refusal_s, tokens_per_event }
    }
}

impl From<LatencyFile> for Latency {
    fn from(file: LatencyFile) -> Self {
        match file {
            LatencyFile::Preset(LatencyPreset::None) => Self::none(),
            LatencyFile::Preset(LatencyPreset::Realistic) => Self::realistic(),
            LatencyFile::Numbers(numbers) => Self {
                base_s: numbers.base_s,
                input_tokens_per_s: numbers.input_tokens_per_s,
                jitter_s: numbers.jitter_s,
                tokens_per_s: numbers.tokens_per_s,
                rate_spread: numbers.rate_spread,
                refusal_s: numbers.refusal_s,
                tokens_per_event: numbers.tokens_per_event,
            },
        }
    }
}

impl Default for Latency {
    /// One millisecond to the first token and the rest at once.
    fn default() -> Self {
        Self { base_s: 0.001, ..Self::none() }
    }
}

impl Latency {
    /// No delay at all.
    pub fn none() -> Self {
        Self {
            base_s: 0.0,
            input_tokens_per_s: 0.0,
            jitter_s: 0.0,
            tokens_per_s: 0.0,
            rate_spread: 0.0,
            refusal_s: 0.0,
            tokens_per_event: 1,
        }
    }

    /// A hosted model of ordinary speed: first token after 0.35 s + input/8000 s + Exp(0.15 s), then 70 tokens a
    /// second times lognormal(0.2); a refusal after 80 ms.
    pub fn realistic() -> Self {
        Self {
            base_s: 0.35,
            input_tokens_per_s: 8_000.0,
            jitter_s: 0.15,
            tokens_per_s: 70.0,
            rate_spread: 0.2,
            refusal_s: 0.08,
            tokens_per_event: 1,
        }
    }

    fn check(&self) -> Result<(), String> {
        let numbers = [
            ("base_s", self.base_s),
            ("input_tokens_per_s", self.input_tokens_per_s),
            ("jitter_s", self.jitter_s),
            ("tokens_per_s", self.tokens_per_s),
            ("rate_spread", self.rate_spread),
            ("refusal_s", self.refusal_s),
        ];
        match numbers.iter().find(|(_, value)| !value.is_finite() || *value < 0.0) {
            Some((name, value)) => Err(format!("latency.{name} must be 0 or more, found {value}")),
            None => Ok(()),
        }
    }

    /// Draws the time to the first token, in trace seconds.
    pub(crate) fn first_token_s(&self, input_tokens: u64, dice: &mut fastrand::Rng) -> f64 {
        let reading =
            if self.input_tokens_per_s > 0.0 { input_tokens as f64 / self.input_tokens_per_s } else { 0.0 };
        let jitter = if self.jitter_s > 0.0 { -(1.0 - dice.f64()).ln() * self.jitter_s } else { 0.0 };
        self.base_s + reading + jitter
    }

    /// Draws the trace seconds one output token takes.
    pub(crate) fn token_s(&self, dice: &mut fastrand::Rng) -> f64 {
        if self.tokens_per_s <= 0.0 {
            return 0.0;
        }
        // Box-Muller; 1 - u keeps the logarithm finite.
        let normal = (-2.0 * (1.0 - dice.f64()).ln()).sqrt() * (std::f64::consts::TAU * dice.f64()).cos();
        1.0 / (self.tokens_per_s * (self.rate_spread * normal).exp())
    }
}

/// HTTPS with certificates made at start: a test authority and a server certificate it signed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Names and addresses in the server certificate. Default `localhost`, `127.0.0.1` and `::1`.
    pub names: Vec<String>,
    /// Whether ALPN offers HTTP/2 before HTTP/1.1. Default true.
    pub http2: bool,
}

impl Default for Tls {
    fn default() -> Self {
        Self { names: ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into(), http2: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_can_be_written_in_yaml() {
        let config = EmulatorConfig::from_yaml(
            "listen: 127.0.0.1:4010
seed: 3
time_scale: 10
http2_max_concurrent_streams: 100
tls: {names: [localhost]}
providers:
  anthropic:
    keys: [sk-ant-1]
    models: [claude-sonnet-5-5]
    quota: {rpm: 50, itpm: 30000, otpm: 8000, burst_seconds: 10, charge: actual, scope: key}
    latency: realistic
  openai:
    latency: {tokens_per_s: 100}
scenario:
  rules: [{provider: grok, fault: hang}]
",
        )
        .expect("a configuration");
        assert_eq!(config.listen.port(), 4010);
        assert_eq!(config.providers.anthropic.latency, Latency::realistic());
        assert_eq!(config.providers.openai.latency, Latency { tokens_per_s: 100.0, ..Latency::default() });
        assert_eq!(config.providers.anthropic.quota.otpm, Some(8_000));
        assert_eq!(config.scenario.rules.len(), 1);
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        let config = EmulatorConfig::from_yaml("\n").expect("defaults");
        assert_eq!(config.time_scale, 1.0);
        assert!(config.scenario.rules.is_empty());
    }

    #[test]
    fn mistakes_name_the_place() {
        let error = |text: &str| EmulatorConfig::from_yaml(text).expect_err("must not parse").to_string();
        assert!(error("sed: 3\n").contains("sed"));
        assert!(error("seed: 1\nproviders:\n  openay: {}\n").contains("line 3"));
        assert_eq!(error("time_scale: 0"), "emulator: time_scale must be greater than 0, found 0");
        assert!(
            error("providers: {grok: {quota: {rpm: 0}}}").contains("providers.grok: rpm must be 1 or more")
        );
        assert!(error("providers: {grok: {latency: {base_s: -1}}}").contains("latency.base_s"));
    }

    #[test]
    fn keys_never_appear_in_debug_output() {
        let mut config = EmulatorConfig::default();
        config.providers.openai.keys = vec!["sk-very-secret".into()];
        assert!(!format!("{config:?}").contains("sk-very-secret"));
    }

    #[test]
    fn latencies_are_drawn_around_their_means() {
        let latency = Latency::realistic();
        let mut dice = fastrand::Rng::with_seed(1);
        let draws = 20_000;
        let first: f64 =
            (0..draws).map(|_| latency.first_token_s(8_000, &mut dice)).sum::<f64>() / f64::from(draws);
        assert!((first - 1.5).abs() < 0.01, "{first}");
        let log_rate: f64 =
            (0..draws).map(|_| (1.0 / latency.token_s(&mut dice)).ln()).sum::<f64>() / f64::from(draws);
        assert!((log_rate - 70.0_f64.ln()).abs() < 0.01, "{log_rate}");
    }
}
