//! What a replay is: the limits, the outage, the policies, and all of it at the compressed time scale.
//!
//! Everything is first said in trace time, as a user would write it, with the specification's defaults; then the same
//! is computed for real time: spans divided by the scale, rates multiplied. The emulator runs in real time too, so that
//! the limits in its headers are the numbers the client is configured with.

use std::time::Duration;

use anyhow::ensure;
use omega_config::Config;
use omega_emulator::{Emulator, EmulatorConfig, Fault, Latency, Provider, Quota, Rule, Scenario};
use omega_policy::{ChargeRule, CountedTokens, LimiterConfig, TokenLimits};
use secrecy::SecretString;

use super::trace::{Arrival, Trace};
use crate::compressed::{compress, faster, stretch};

/// The load on the first provider alone: what it is asked, as a share of what its quota allows, on average. Above 1 the
/// quota binds, and what does not fit waits or goes elsewhere.
const PRIMARY_LOAD: f64 = 1.7;

/// What each of the others allows, as a share of the first one's quota.
const FALLBACK_SHARE: f64 = 0.55;

/// Tokens are allowed for this many times the requests' mean: requests bind first, as with most accounts.
/// Source: the provider model of the goodput study (load / 1.25).
const TOKEN_SLACK: f64 = 1.25;

/// How much of the minute may be spent at once. Between the providers' documented extremes (1 s and 60 s).
const BURST_S: f64 = 30.0;

/// How much less of it the client believes in. The default margin of 0.5 s absorbs half a second of skew; here every real
/// millisecond of scheduling noise counts `time_scale` times: 12 s of trace time at scale 15 absorb 0.8 s, which a busy
/// two-core machine was seen to need.
const KEPT_BACK_S: f64 = 12.0;

/// One provider of the demonstration.
#[derive(Clone, Debug)]
pub struct ProviderPlan {
    /// Which one.
    pub provider: Provider,
    /// The model that is asked for.
    pub model: &'static str,
    /// Requests per minute of trace time.
    pub requests_per_minute: u64,
    /// Tokens per minute of trace time.
    pub tokens_per_minute: u64,
}

impl ProviderPlan {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.provider.name()
    }
}

/// When the first provider fails, in trace seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outage {
    /// From here.
    pub from_s: f64,
    /// To here.
    pub until_s: f64,
}

/// Everything about a replay but the requests.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the trace is called.
    pub trace: String,
    /// Its requests.
    pub requests: u64,
    /// Its length in seconds.
    pub span_s: f64,
    /// How many times faster it is replayed.
    pub time_scale: f64,
    /// Where chance begins.
    pub seed: u64,
    /// `max_tokens` of every request: the power of two at or above nearly every answer of the trace.
    pub max_tokens: u64,
    /// The first provider, then the fallbacks in order.
    pub providers: [ProviderPlan; 4],
    /// When the first provider fails.
    pub outage: Outage,
    /// The requests that come while it does.
    pub requests_in_outage: u64,
    /// The protected client's configuration in trace time.
    config: Config,
}

impl Plan {
    /// Plans the replay of a trace: the quota follows from its load, the outage from its length.
    ///
    /// # Errors
    /// A time scale that is no positive number.
    pub fn new(trace: &Trace, time_scale: f64, seed: u64) -> anyhow::Result<Self> {
        ensure!(
            time_scale.is_finite() && (0.01..=1_000.0).contains(&time_scale),
            "the time scale must lie between 0.01 and 1000"
        );
        let arrivals = trace.arrivals();
        let span_s = trace.span_s();
        let max_tokens = max_tokens(arrivals);
        let mut config = Config::default();
        // A short trace gets a shorter open period, so that recovery can be seen in it.
        let open_s = config.breaker.timeout.as_secs_f64().min((span_s / 4.5).max(1.0));
        config.breaker.timeout = Duration::from_secs_f64(open_s);
        let from_s = (span_s - open_s - 0.1 * span_s).max(0.0);
        let outage = Outage { from_s, until_s: from_s + open_s * 5.0 / 6.0 };
        stretch(&mut config.streaming);
        let providers = providers(arrivals, span_s, max_tokens, &config);
        config.model = String::from(providers[0].model);
        config.fallbacks = providers[1..].iter().map(|provider| String::from(provider.model)).collect();
        for planned in &providers {
            let settings =
                config.provider_mut(planned.name()).expect("the emulator's providers are the built-in ones");
            settings.api_key = Some(SecretString::from("demonstration"));
            stretch(&mut settings.streaming);
            settings.limits = LimiterConfig {
                requests_per_minute: Some(planned.requests_per_minute),
                tokens: TokenLimits::Total(Some(planned.tokens_per_minute)),
                burst: Duration::from_secs_f64(BURST_S - KEPT_BACK_S),
                depth_margin: Duration::ZERO,
                // Waiting shall mean waiting for quota, not for a slot.
                max_concurrent: None,
                ..settings.limits.clone()
            };
        }
        let inside = |arrival: &&Arrival| (outage.from_s..outage.until_s).contains(&arrival.at_s);
        let requests_in_outage = arrivals.iter().filter(inside).count() as u64;
        Ok(Self {
            trace: trace.name().to_owned(),
            requests: arrivals.len() as u64,
            span_s,
            time_scale,
            seed,
            max_tokens,
            providers,
            outage,
            requests_in_outage,
            config,
        })
    }

    /// The provider that is asked first, and fails.
    pub fn primary(&self) -> &ProviderPlan {
        &self.providers[0]
    }

    /// A span of trace time as real time.
    pub(super) fn real(&self, trace_s: f64) -> Duration {
        Duration::from_secs_f64((trace_s / self.time_scale).max(0.0))
    }

    /// A span of real time in trace seconds.
    pub(super) fn trace_s(&self, real: Duration) -> f64 {
        real.as_secs_f64() * self.time_scale
    }

    /// The emulator's settings, in real time.
    pub(super) fn emulator(&self) -> EmulatorConfig {
        let mut config = EmulatorConfig { seed: self.seed, ..EmulatorConfig::default() };
        let usual = Latency::realistic();
        for planned in &self.providers {
            let settings = &mut config.providers[planned.provider];
            settings.quota = Quota {
                rpm: Some(faster(planned.requests_per_minute, self.time_scale)),
                tpm: Some(faster(planned.tokens_per_minute, self.time_scale)),
                burst_seconds: BURST_S / self.time_scale,
                ..Quota::default()
            };
            settings.latency = Latency {
                base_s: usual.base_s / self.time_scale,
                input_tokens_per_s: usual.input_tokens_per_s * self.time_scale,
                jitter_s: usual.jitter_s / self.time_scale,
                tokens_per_s: usual.tokens_per_s * self.time_scale,
                rate_spread: usual.rate_spread,
                refusal_s: usual.refusal_s / self.time_scale,
                // Many small events at this speed would only keep two cores busy.
                tokens_per_event: 16,
            };
        }
        config
    }

    /// The outage, for an emulator whose clock shows `start_s` when the replay begins.
    pub(super) fn scenario(&self, start_s: f64) -> Scenario {
        let mut rule = Rule::new(Fault::Unavailable);
        rule.provider = Some(self.primary().provider);
        rule.from_s = Some(start_s + self.outage.from_s / self.time_scale);
        rule.until_s = Some(start_s + self.outage.until_s / self.time_scale);
        rule.after_s = Some(1.0 / self.time_scale);
        Scenario { rules: vec![rule], ..Scenario::default() }
    }

    /// The protected client's configuration, in real time.
    pub(super) fn client(&self, emulator: &Emulator) -> Config {
        let mut config = self.config.clone();
        compress(&mut config, self.time_scale);
        for settings in config.providers_mut() {
            settings.base_url = Some(emulator.base_url(&settings.name));
        }
        config
    }

    /// The policies that are scaled: what they are called, in trace time, in real time.
    pub fn policies(&self) -> Vec<(&'static str, Duration, Duration)> {
        let config = &self.config;
        let primary = config.provider(self.primary().name()).expect("the first provider is a built-in one");
        [
            ("timeout_seconds", config.timeout),
            ("max_wait_seconds", primary.max_wait),
            ("failover_wait_seconds", config.failover_wait),
            ("circuit_breaker.timeout_seconds", config.breaker.timeout),
            ("backoff.base_delay", config.backoff.base_delay),
            ("backoff.max_delay", config.backoff.max_delay),
            ("burst_seconds", primary.limits.burst),
            ("streaming.first_byte_seconds", primary.streaming.first_byte),
            ("streaming.first_content_seconds", primary.streaming.first_content),
            ("streaming.gap_seconds", primary.streaming.gap),
        ]
        .map(|(name, span)| (name, span, span.div_f64(self.time_scale)))
        .into()
    }
}

/// The power of two at or above the 99.9th percentile of the answers, at least 256.
/// Source: the provider model of the goodput study.
fn max_tokens(arrivals: &[Arrival]) -> u64 {
    let mut outputs: Vec<u64> = arrivals.iter().map(|arrival| arrival.output_tokens).collect();
    outputs.sort_unstable();
    let place = (outputs.len() * 999).div_ceil(1_000).saturating_sub(1);
    outputs.get(place).copied().unwrap_or_default().max(256).next_power_of_two()
}

/// Quotas that follow from the load.
fn providers(arrivals: &[Arrival], span_s: f64, max_tokens: u64, config: &Config) -> [ProviderPlan; 4] {
    let count = arrivals.len() as f64;
    let mean =
        |of: fn(&Arrival) -> u64| arrivals.iter().map(|arrival| of(arrival) as f64).sum::<f64>() / count;
    let (input, output) = (mean(|arrival| arrival.input_tokens), mean(|arrival| arrival.output_tokens));
    let per_minute = count / span_s * 60.0 / PRIMARY_LOAD;
    let plan = |provider: Provider, model, share: f64| {
        let limits =
            &config.provider(provider.name()).expect("the emulator's providers are the built-in ones").limits;
        let charge = match (limits.counted, limits.charge) {
            (CountedTokens::InputOnly, _) => input,
            (_, ChargeRule::Actual) => input + output,
            (_, ChargeRule::Estimate | ChargeRule::EstimateThenRefund) => input + max_tokens as f64,
        };
        let requests = (per_minute * share).ceil().max(1.0);
        ProviderPlan {
            provider,
            model,
            requests_per_minute: requests as u64,
            // At least a few of the largest requests must fit into a minute.
            tokens_per_minute: (requests * charge * TOKEN_SLACK).max(4.0 * (input + max_tokens as f64))
                as u64,
        }
    };
    [
        plan(Provider::OpenAi, "gpt-5.2", 1.0),
        plan(Provider::Anthropic, "claude-sonnet-5", FALLBACK_SHARE),
        plan(Provider::Google, "gemini-3-flash", FALLBACK_SHARE),
        plan(Provider::Grok, "grok-4", FALLBACK_SHARE),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outage_ends_before_the_circuit_tests_recovery_and_recovery_before_the_slice_ends() {
        for seconds in [40.0, 120.0, 1_000.0] {
            let trace = Trace::built_in().first_seconds(seconds).expect("a slice");
            let plan = Plan::new(&trace, 20.0, 1).expect("a plan");
            let open_s = plan.config.breaker.timeout.as_secs_f64();
            assert!(plan.outage.from_s > 0.0 && plan.outage.until_s < plan.outage.from_s + open_s);
            assert!(plan.outage.from_s + open_s < plan.span_s * 0.95, "{:?} of {}", plan.outage, plan.span_s);
        }
        let plan = Plan::new(&Trace::built_in(), 20.0, 1).expect("a plan");
        assert_eq!(plan.config.breaker, Config::default().breaker);
        assert!(plan.requests_in_outage > 100);
    }

    #[test]
    fn spans_shrink_and_rates_grow_by_the_same_factor() {
        let plan = Plan::new(&Trace::built_in(), 20.0, 1).expect("a plan");
        let emulator = plan.emulator();
        let quota = &emulator.providers[Provider::OpenAi].quota;
        assert_eq!(quota.rpm, Some(plan.primary().requests_per_minute * 20));
        assert!((quota.burst_seconds - 1.5).abs() < 1e-9);
        let timeout =
            plan.policies().into_iter().find(|(name, ..)| *name == "circuit_breaker.timeout_seconds");
        assert_eq!(timeout.map(|(_, trace, real)| (trace.as_secs(), real.as_secs())), Some((60, 3)));
    }

    #[test]
    fn a_time_scale_must_be_a_positive_number() {
        for scale in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert!(Plan::new(&Trace::built_in(), scale, 1).is_err(), "{scale}");
        }
    }

    #[test]
    fn the_page_about_the_program_tells_the_numbers_as_they_are() {
        let page = include_str!("../../../../docs/cli.md");
        for sentence in [
            format!("asked {PRIMARY_LOAD} times what it allows"),
            format!("allows {FALLBACK_SHARE} of what the first does"),
            format!("allowed for {TOKEN_SLACK} times the mean"),
            format!("believes in {} s of the providers' {BURST_S} s burst", BURST_S - KEPT_BACK_S),
            format!("{} times faster than it happened", crate::demo::Settings::TIME_SCALE),
            format!("{} s of scheduling noise", KEPT_BACK_S / crate::demo::Settings::TIME_SCALE),
        ] {
            assert!(page.contains(&sentence), "docs/cli.md does not say: {sentence}");
        }
        assert_eq!(crate::compressed::STREAM_CLOCKS, 4, "docs/cli.md says four times");
    }

    #[test]
    fn nearly_every_answer_fits_max_tokens() {
        let arrivals = |output| [Arrival { at_s: 0.0, input_tokens: 1, output_tokens: output }];
        assert_eq!(max_tokens(&arrivals(3)), 256);
        assert_eq!(max_tokens(&arrivals(257)), 512);
        assert_eq!(Plan::new(&Trace::built_in(), 20.0, 1).expect("a plan").max_tokens, 1_024);
    }
}
