//! What both sides are given: requests, quota, configuration, and the time each request takes.

use std::time::Duration;

use anyhow::{Context, ensure};
use omega_config::Config;
use omega_emulator::{ChargeRule as EmulatedCharge, EmulatorConfig, Latency, Quota as EmulatedQuota};
use omega_policy::{ChargeRule, CountedTokens, LimiterConfig, TokenLimits};
use omega_protocol::{ChatRequest, Content, ContentPart, Message};
use omega_sim::{Charge, Limits, Policy, Quota, Request, Scenario, Trace};
use secrecy::SecretString;

use super::{INPUT_MIN, Settings, Side};
use crate::compressed::{compress, stretch};

/// The provider of both sides. OpenAI's protocol, since its headers show both buckets to the last token, as the
/// simulator's do.
pub(super) const PROVIDER: &str = "openai";

/// A refusal is answered after this long: the simulator's 80 ms and, there and back, the mean of its network.
const REFUSAL_S: f64 = 0.08 + 2.0 * 0.025;

/// Output tokens in one event of a stream. Many small events would only keep the processor busy.
const TOKENS_PER_EVENT: u32 = 32;

/// What the client estimates for an image; a test compares.
const IMAGE_TOKENS: u32 = 1_000;

/// One check.
pub(super) struct Plan {
    pub(super) settings: Settings,
    pub(super) requests_per_minute: u64,
    pub(super) tokens_per_minute: u64,
    pub(super) max_tokens: u32,
    trace: Trace,
    /// In trace time.
    config: Config,
}

impl Plan {
    pub(super) fn new(settings: &Settings) -> anyhow::Result<Self> {
        ensure!(
            settings.time_scale.is_finite() && (1.0..=1_000.0).contains(&settings.time_scale),
            "the time scale must lie between 1 and 1000"
        );
        let trace = large_enough(&settings.trace);
        let max_tokens = trace.max_tokens();
        let mut plan = Self {
            settings: settings.clone(),
            requests_per_minute: 0,
            tokens_per_minute: 0,
            max_tokens,
            trace,
            config: Config::default(),
        };
        // What a load means in numbers is the simulator's to say.
        let asked = Scenario { policy: Policy::None, quota: Quota::Load(settings.load), ..plan.scenario() };
        let said = asked.run(&plan.trace, &mut |_| {}).context("the simulator refuses")?;
        (plan.requests_per_minute, plan.tokens_per_minute) =
            (said.requests_per_minute, said.tokens_per_minute);
        plan.config = plan.configuration()?;
        let largest =
            plan.trace.requests().iter().map(|request| request.input_tokens).max().unwrap_or_default();
        let room = plan.tokens_per_minute as f64 * settings.burst_seconds / 60.0;
        ensure!(
            f64::from(largest) + f64::from(max_tokens) < room,
            "the largest request does not fit into the burst: the simulator passes it when the bucket is full, the \
             emulator never does"
        );
        Ok(plan)
    }

    /// The client's configuration: the documented defaults, and limits that mirror the provider's.
    fn configuration(&self) -> anyhow::Result<Config> {
        let mut config = Config::default();
        config.rate_limiting = self.settings.rate_limiting;
        stretch(&mut config.streaming);
        let settings = config.provider_mut(PROVIDER).context("the provider is built in")?;
        settings.api_key = Some(SecretString::from("check"));
        settings.max_wait = self.settings.deadline;
        stretch(&mut settings.streaming);
        settings.limits = LimiterConfig {
            requests_per_minute: Some(self.requests_per_minute),
            tokens: TokenLimits::Total(Some(self.tokens_per_minute)),
            counted: CountedTokens::All,
            charge: match self.settings.charge {
                Charge::Estimate => ChargeRule::Estimate,
                Charge::Refund => ChargeRule::EstimateThenRefund,
                Charge::Actual => ChargeRule::Actual,
            },
            max_concurrent: None,
            burst: Duration::from_secs_f64(self.settings.burst_seconds),
            depth_margin: self.settings.depth_margin,
            ..settings.limits.clone()
        };
        Ok(config)
    }

    /// The simulator's side.
    fn scenario(&self) -> Scenario {
        Scenario {
            policy: Policy::Omega,
            quota: Quota::PerMinute { requests: self.requests_per_minute, tokens: self.tokens_per_minute },
            burst_seconds: self.settings.burst_seconds,
            charge: self.settings.charge,
            free_429: self.settings.free_429,
            deadline: self.settings.deadline,
            max_tokens: Some(self.max_tokens),
            seed: self.settings.seed,
            config: self.config.clone(),
            provider: String::from(PROVIDER),
            limits: Limits::Configured,
            ..Scenario::default()
        }
    }

    pub(super) fn simulate(&self) -> anyhow::Result<Side> {
        let report = self.scenario().run(&self.trace, &mut |_| {}).context("the simulator refuses")?;
        Ok(Side {
            requests: report.requests,
            good: report.good,
            answered: report.answered,
            failed: report.failed,
            refused: report.refused,
            rate_limited: (report.rate_limited_per_1000 * report.requests as f64 / 1_000.0).round() as u64,
            upstream_calls: report.upstream_calls,
            wait_p50_s: report.wait_p50_s,
            wait_p99_s: report.wait_p99_s,
        })
    }

    /// The emulator's side of the real run; it has a time scale of its own.
    pub(super) fn emulator(&self) -> EmulatorConfig {
        let mut config = EmulatorConfig {
            seed: self.settings.seed,
            time_scale: self.settings.time_scale,
            ..EmulatorConfig::default()
        };
        config.providers.openai.quota = EmulatedQuota {
            rpm: Some(self.requests_per_minute),
            tpm: Some(self.tokens_per_minute),
            burst_seconds: self.settings.burst_seconds,
            charge: Some(match self.settings.charge {
                Charge::Estimate => EmulatedCharge::Est,
                Charge::Refund => EmulatedCharge::Refund,
                Charge::Actual => EmulatedCharge::Actual,
            }),
            free_429: self.settings.free_429,
            ..EmulatedQuota::default()
        };
        // Every request brings its own times.
        config.providers.openai.latency =
            Latency { refusal_s: REFUSAL_S, tokens_per_event: TOKENS_PER_EVENT, ..Latency::none() };
        config
    }

    /// The client's side of the real run, in real time.
    pub(super) fn client(&self, base_url: String) -> Config {
        let mut config = self.config.clone();
        compress(&mut config, self.settings.time_scale);
        if let Some(settings) = config.provider_mut(PROVIDER) {
            settings.base_url = Some(base_url);
        }
        config
    }

    pub(super) fn requests(&self) -> &[Request] {
        self.trace.requests()
    }

    /// A span of trace time, in nanoseconds, as real time.
    pub(super) fn real(&self, nanos: u64) -> Duration {
        Duration::from_nanos(nanos).div_f64(self.settings.time_scale)
    }

    /// A span of real time in trace seconds.
    pub(super) fn trace_s(&self, real: Duration) -> f64 {
        real.as_secs_f64() * self.settings.time_scale
    }

    /// Request `number` as the client sends it: its estimate is exact, and the emulator counts and waits as the
    /// simulator does.
    pub(super) fn request(&self, number: u32) -> ChatRequest {
        let request = self.requests()[number as usize];
        let output = request.output_tokens.min(self.max_tokens);
        let draw = omega_sim::draw(self.settings.seed, number, &request, output);
        // The network's two ways are part of the wait for the first token: loopback has none worth the name.
        let first_us = (draw.there + draw.first_token + draw.back) / 1_000;
        let told = format!(
            "[[input-tokens:{}]] [[output-tokens:{output}]] [[reasoning-tokens:0]] [[first-token-us:{first_us}]] \
             [[writing-us:{}]]",
            request.input_tokens,
            draw.writing / 1_000,
        );
        // The client estimates a thousand tokens for an image, whatever its address, two tokens for seven bytes of text,
        // and six around the one message. Images keep bodies small: the check is about policies, not about copying.
        let images = request.input_tokens.saturating_sub(INPUT_MIN) / IMAGE_TOKENS;
        let words = request.input_tokens.saturating_sub(images * IMAGE_TOKENS + 6);
        let mut text = told;
        text.extend(std::iter::repeat_n('.', (words as usize * 7 / 2).saturating_sub(text.len())));
        let image = || ContentPart::image_url("https://example.com/1.png");
        let parts = std::iter::once(ContentPart::text(text)).chain((0..images).map(|_| image()));
        let message = Message { content: Content::Parts(parts.collect()), ..Message::user("") };
        ChatRequest::new(self.config.model.clone(), [message]).max_tokens(self.max_tokens.into())
    }
}

/// No request smaller than what has to be said to the emulator.
fn large_enough(trace: &Trace) -> Trace {
    let requests = trace.requests().iter();
    Trace::from_requests(
        requests
            .map(|request| Request {
                input_tokens: request.input_tokens.max(INPUT_MIN),
                // One model and one tenant: both sides judge the whole.
                model: 0,
                tenant: 0,
                ..*request
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(sizes: &[(u32, u32)]) -> Plan {
        let requests = sizes.iter().enumerate().map(|(number, (input, output))| Request {
            arrival: number as u64 * 1_000_000_000,
            input_tokens: *input,
            output_tokens: *output,
            model: 0,
            tenant: 0,
        });
        Plan::new(&Settings::new(Trace::from_requests(requests.collect()))).expect("a plan")
    }

    #[test]
    fn the_client_estimates_exactly_what_the_simulator_counts() {
        let sizes: Vec<(u32, u32)> = (0..300).map(|step| (1 + step * 25, 1 + step * 3)).collect();
        let plan = plan(&sizes);
        for (number, (input, _)) in sizes.iter().enumerate() {
            let request = plan.request(number as u32);
            let estimate = omega_protocol::estimate_input_tokens(&request);
            assert_eq!(estimate, u64::from((*input).max(INPUT_MIN)), "request {number}");
            assert_eq!(request.max_tokens, Some(1_024));
        }
    }

    #[test]
    fn a_request_that_no_burst_holds_is_refused_before_anything_runs() {
        let one = Request { arrival: 0, input_tokens: 9_000, output_tokens: 1, model: 0, tenant: 0 };
        let settings =
            Settings { burst_seconds: 1.0, load: 2.0, ..Settings::new(Trace::from_requests(vec![one])) };
        let problem = Plan::new(&settings).err().expect("it contradicts itself").to_string();
        assert!(problem.contains("does not fit into the burst"), "{problem}");
    }
}
