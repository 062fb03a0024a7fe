//! The public door: describe a scenario, run it, get a report.

use std::time::Duration;

use omega_config::Config;
use omega_policy::{ChargeRule, CountedTokens, PipelineConfig, TokenLimits};

use crate::engine::{self, Setting};
use crate::fault::Fault;
use crate::fleet::{Fleet, Store};
use crate::measure::{End, Recorder};
use crate::oracle;
use crate::policies::{MinuteWindows, NoProtection, OfficialSdk, Retrying, Tenacity};
use crate::product::{Product, Setup};
use crate::report::Report;
use crate::trace::Trace;
use crate::upstream::{Charge, Provider};

/// Whose decisions are replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The product: the pipeline the client runs.
    #[default]
    Omega,
    /// Send once.
    None,
    /// The official SDKs' retries.
    Sdk,
    /// Random exponential waits, six tries.
    Tenacity,
    /// Minute windows that turn calls away, and a breaker that counts 429s.
    Windows,
    /// The clairvoyant.
    Oracle,
}

impl Policy {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Omega => "omega",
            Self::None => "none",
            Self::Sdk => "sdk",
            Self::Tenacity => "tenacity",
            Self::Windows => "windows",
            Self::Oracle => "oracle",
        }
    }
}

/// How large the provider's quota is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Quota {
    /// So large that the trace offers this many times its tokens; requests are offered at `load / 1.25`, so that
    /// tokens bind first.
    Load(f64),
    /// These numbers per minute.
    PerMinute {
        /// Requests.
        requests: u64,
        /// Tokens.
        tokens: u64,
    },
}

/// Where the product's limits come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limits {
    /// The simulated provider's quota, burst and charge rule: a client configured as the provider documents itself.
    /// With a blind provider the burst and the charge rule stay the configuration's.
    #[default]
    Mirror,
    /// The configuration's, as they are.
    Configured,
}

/// One run: a trace, a provider, a policy.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Whose decisions. Default: the product's.
    pub policy: Policy,
    /// The provider's quota. Default: load 1.0.
    pub quota: Quota,
    /// Seconds of quota the provider lets pass at once. Default 60.
    pub burst_seconds: f64,
    /// When the provider charges. Default: by estimate.
    pub charge: Charge,
    /// Rejected calls take no request. Default: they do.
    pub free_429: bool,
    /// The provider says nothing of its limits. Default: it does.
    pub blind: bool,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Who shares the quota.
    pub fleet: Fleet,
    /// What a policy may add to a request that still counts as answered in time; the product's longest wait.
    /// Default 60 s.
    pub deadline: Duration,
    /// The `max_tokens` that callers send. Default: by the trace ([`Trace::max_tokens`]).
    pub max_tokens: Option<u32>,
    /// Everything that is drawn comes from it.
    pub seed: u64,
    /// The product's configuration. Default: the documented defaults.
    pub config: Config,
    /// Which provider's settings in it. Default `simulated`: not configured, so those of "any other provider".
    pub provider: String,
    /// Where its limits come from.
    pub limits: Limits,
    /// Tell the product whose each request is, so that it shares the quota fairly between the trace's tenants. Default:
    /// it is not told, and serves first come, first served.
    pub fair: bool,
    /// Calls in flight, where limits mirror the provider, which has no such limit. Default: unlimited.
    pub max_concurrent: Option<u32>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            quota: Quota::Load(1.0),
            burst_seconds: 60.0,
            charge: Charge::default(),
            free_429: false,
            blind: false,
            faults: Vec::new(),
            fleet: Fleet::default(),
            deadline: Duration::from_secs(60),
            max_tokens: None,
            seed: 1,
            config: Config::default(),
            provider: String::from("simulated"),
            limits: Limits::default(),
            fair: false,
            max_concurrent: None,
        }
    }
}

/// Why a scenario cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScenarioError(String);

impl ScenarioError {
    pub(crate) fn new(problem: &str) -> Self {
        Self(problem.to_owned())
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The oracle has seen this many requests.
    Oracle(usize),
    /// The policy has.
    Policy(usize),
}

impl Scenario {
    /// Replays `trace`, first through the oracle, then through the policy. Runs to the end; `progress` is told now and
    /// then.
    ///
    /// # Errors
    /// The scenario contradicts itself, or the trace is empty.
    pub fn run(&self, trace: &Trace, progress: &mut dyn FnMut(Progress)) -> Result<Report, ScenarioError> {
        self.check(trace)?;
        let max_tokens = self.max_tokens.unwrap_or_else(|| trace.max_tokens());
        let provider = self.provider_for(trace, max_tokens);
        let setting = Setting { trace, provider, faults: &self.faults, max_tokens, seed: self.seed };
        let deadline = self.deadline.as_nanos() as u64;
        let best = oracle::run(setting, deadline, &mut |seen| progress(Progress::Oracle(seen)));
        let mut told = |seen| progress(Progress::Policy(seen));
        let recorder = match self.policy {
            Policy::None => engine::run(setting, &mut Retrying(NoProtection), &mut told),
            Policy::Sdk => engine::run(setting, &mut Retrying(OfficialSdk), &mut told),
            Policy::Tenacity => engine::run(setting, &mut Retrying(Tenacity), &mut told),
            Policy::Windows => {
                let mut windows =
                    MinuteWindows::new(provider.requests_per_minute, provider.tokens_per_minute);
                engine::run(setting, &mut windows, &mut told)
            }
            Policy::Oracle => replay_oracle(setting, &best),
            Policy::Omega => {
                let setup = self.setup(trace, provider, deadline);
                let mut product = Product::new(setup, trace.requests().len(), self.seed);
                engine::run(setting, &mut product, &mut told)
            }
        };
        Ok(Report::new(self, setting, &best, &recorder, deadline))
    }

    fn check(&self, trace: &Trace) -> Result<(), ScenarioError> {
        let wrong = |problem: &str| Err(ScenarioError::new(problem));
        if trace.requests().is_empty() {
            return wrong("the trace has no requests");
        }
        if let Quota::Load(load) = self.quota
            && !(load > 0.0 && load <= 1e6)
        {
            return wrong("the load must be above 0 and at most 1,000,000");
        }
        if !(self.burst_seconds > 0.0 && self.burst_seconds <= 3_600.0) {
            return wrong("the burst must be above 0 and at most 3600 seconds");
        }
        if self.deadline.is_zero() || self.deadline > Duration::from_secs(86_400) {
            return wrong("the deadline must be above 0 and at most a day");
        }
        if self.max_tokens == Some(0) {
            return wrong("max_tokens must be at least 1");
        }
        if self.fleet.clients == 0 {
            return wrong("a fleet has at least one client");
        }
        if self.fleet.clients > 1 && matches!(self.policy, Policy::Windows) {
            return wrong("the windows policy has no notion of a fleet: use one client");
        }
        if self.fleet.store_down.is_some() && !matches!(self.fleet.store, Store::Leases | Store::Shared) {
            return wrong("only a shared store can be down");
        }
        Ok(())
    }

    /// The provider with its quota in numbers.
    pub(crate) fn provider_for(&self, trace: &Trace, max_tokens: u32) -> Provider {
        let (requests_per_minute, tokens_per_minute) = match self.quota {
            Quota::PerMinute { requests, tokens } => (requests.max(1), tokens.max(1)),
            Quota::Load(load) => {
                let minutes = trace.span() as f64 / 60e9;
                let unlimited = Provider {
                    requests_per_minute: 1,
                    tokens_per_minute: 1,
                    burst_seconds: self.burst_seconds,
                    charge: self.charge,
                    free_429: self.free_429,
                    blind: self.blind,
                };
                let setting =
                    Setting { trace, provider: unlimited, faults: &[], max_tokens, seed: self.seed };
                let tokens: u64 = trace.requests().iter().map(|request| setting.bill(request).net()).sum();
                let per_minute = |total: f64| ((total / minutes / load).round() as u64).max(1);
                (per_minute(trace.requests().len() as f64 * 1.25), per_minute(tokens as f64))
            }
        };
        Provider {
            requests_per_minute,
            tokens_per_minute,
            burst_seconds: self.burst_seconds,
            charge: self.charge,
            free_429: self.free_429,
            blind: self.blind,
        }
    }

    fn setup(&self, trace: &Trace, provider: Provider, deadline: u64) -> Setup {
        let config = &self.config;
        let settings = config.provider(&self.provider);
        let mut pipeline: PipelineConfig = config.pipeline(&self.provider);
        let mut models = Vec::new();
        match self.limits {
            Limits::Mirror => {
                let limiter = &mut pipeline.limiter;
                limiter.requests_per_minute = Some(provider.requests_per_minute);
                limiter.tokens = TokenLimits::Total(Some(provider.tokens_per_minute));
                limiter.counted = CountedTokens::All;
                limiter.max_concurrent = self.max_concurrent;
                limiter.charge = match provider.charge {
                    Charge::Estimate => ChargeRule::Estimate,
                    Charge::Refund => ChargeRule::EstimateThenRefund,
                    Charge::Actual => ChargeRule::Actual,
                };
                if !provider.blind {
                    limiter.burst = Duration::from_secs_f64(provider.burst_seconds);
                }
            }
            Limits::Configured => {
                models = config
                    .model_limits(&self.provider)
                    .filter_map(|(name, limits)| {
                        let index = trace.models().iter().position(|model| model == name)?;
                        Some((index as u32, limits.clone()))
                    })
                    .collect();
            }
        }
        let streaming = settings.map_or(&config.streaming, |settings| &settings.streaming);
        Setup {
            pipeline,
            models,
            max_wait: deadline,
            timeout: config.timeout.as_nanos() as u64,
            first_byte: streaming.first_byte.as_nanos() as u64,
            learned_clock: streaming.learned_first_content && streaming.learned_without_fallback,
            fleet: self.fleet,
            fair: self.fair,
        }
    }
}

/// The oracle's own record, in the shape of every other policy's.
fn replay_oracle(setting: Setting<'_>, best: &[Option<u64>]) -> Recorder {
    let mut recorder = Recorder::new(setting.trace, setting.faults);
    for (number, (request, added)) in setting.trace.requests().iter().zip(best).enumerate() {
        let number = number as u32;
        let bill = setting.bill(request);
        recorder.arrived(bill.net(), request.arrival);
        match added {
            Some(added) => {
                let sent_at = request.arrival + added;
                recorder.sent(number, sent_at);
                recorder.admitted(bill.at_arrival, sent_at);
                recorder.answered(number, engine::Answer::Success, sent_at);
                recorder.succeeded(number);
            }
            None => recorder.refused(number),
        }
    }
    debug_assert!(
        recorder.records.iter().all(|record| record.end != End::Open),
        "the oracle decides everything"
    );
    recorder
}
