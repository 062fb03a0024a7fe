//! Presets: what the settings that nobody gave start from.
//!
//! `spec` is the specification, number for number. `adaptive` keeps its limits and changes how failures are met; each
//! number below was chosen with the simulator, and `docs/simulator.md` shows what it reaches and what each mechanism
//! contributes. A setting given in a file, a variable or an argument overrides the preset, wherever either comes from.

use std::time::Duration;

use omega_policy::{BreakerConfig, FailureRate, LimiterConfig, SlowFirstToken};

use crate::config::Config;

/// A named set of starting values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// The specification's numbers.
    #[default]
    Spec,
    /// Meets outages, overload and brown-outs with what the simulator showed to work.
    Adaptive,
}

/// Attempts in all. A provider that fails 30 % of the calls in silence, each found out after ten seconds, leaves time
/// for five within a minute; one that turns away 70 % at once for more.
const ATTEMPTS: u32 = 8;
/// Retries as a share of first tries, in percent: a provider that turns away 70 % needs 2.3 retries for each.
const RETRY_PERCENT: u32 = 300;
/// The longest delay between two attempts: with eight attempts, the last still begins within a minute.
const MAX_DELAY: Duration = Duration::from_secs(8);

impl Config {
    /// Starts from `preset`: every setting that it says something about takes its value.
    pub fn apply(&mut self, preset: Preset) {
        self.preset = preset;
        let spec = Self::default();
        let adaptive = preset == Preset::Adaptive;
        let (mode, scope) = (self.breaker.mode, self.breaker.scope);
        self.breaker = BreakerConfig { mode, scope, ..if adaptive { breaker() } else { spec.breaker } };
        self.max_retries = if adaptive { ATTEMPTS } else { spec.max_retries };
        self.backoff.max_delay = if adaptive { MAX_DELAY } else { spec.backoff.max_delay };
        self.retry_budget.percent = if adaptive { RETRY_PERCENT } else { spec.retry_budget.percent };
        self.streaming.learned_without_fallback = adaptive;
        for provider in self.providers_mut() {
            provider.streaming.learned_without_fallback = adaptive;
            preset.limit(&mut provider.limits);
        }
    }
}

impl Preset {
    /// What it changes of a provider's limiter.
    pub(crate) fn limit(self, limits: &mut LimiterConfig) {
        limits.ease_off = self == Self::Adaptive;
        limits.pace_unknown = self == Self::Adaptive;
    }
}

fn breaker() -> BreakerConfig {
    BreakerConfig {
        // Of a provider that fails 30 % of the calls, ten in a row happen once in 170,000; of one that is down they take
        // as long as ten calls do to arrive. With five, accidental openings cost up to four points of a brown-out.
        failure_threshold: 10,
        // 5, 15, 15 ... seconds: the first probe soon, and no recovery is found later than 15 s after it.
        timeout: Duration::from_secs(5),
        open_growth: 3.0,
        max_open: Duration::from_secs(15),
        // One probe at a time: each costs a caller its time while the provider hangs.
        half_open_max_calls: 1,
        half_open_timeout: Duration::from_secs(30),
        failure_rate: Some(FailureRate { percent: 90, min_calls: 20, window: Duration::from_secs(60) }),
        slow_first_token: Some(SlowFirstToken {
            threshold: Duration::from_secs(60),
            percent: 90,
            min_calls: 20,
            window: Duration::from_secs(60),
        }),
        overload_counts: false,
        fresh_evidence: true,
        queue_when_open: true,
        ..BreakerConfig::default()
    }
}
