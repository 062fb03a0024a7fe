//! What came out, as numbers: one report per run, with the same names in JSON, tables and plots.

use serde::Serialize;

use crate::engine::Setting;
use crate::measure::{Circuit, End, Recorder, Timeline, quantile};
use crate::simulation::{Quota, Scenario};
use crate::upstream::Charge;

/// The result of one run. Times are in seconds; shares are between 0 and 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Whose decisions.
    pub policy: String,
    /// What the trace offers in tokens, over the provider's quota.
    pub load: f64,
    /// The provider's quota.
    pub requests_per_minute: u64,
    /// The provider's quota.
    pub tokens_per_minute: u64,
    /// Seconds of quota the provider lets pass at once.
    pub burst_seconds: f64,
    /// The provider's charge rule: `est`, `refund` or `actual`.
    pub charge: String,
    /// The `max_tokens` callers sent.
    pub max_tokens: u32,
    /// The seed.
    pub seed: u64,
    /// What a policy may add.
    pub deadline_s: f64,
    /// Requests that arrived.
    pub requests: u64,
    /// Those answered in time.
    pub good: u64,
    /// Those the oracle could have answered in time.
    pub oracle_good: u64,
    /// `good` over `oracle_good`.
    pub goodput_of_oracle: f64,
    /// Answered, in time or not.
    pub answered: u64,
    /// Sent at least once and given up.
    pub failed: u64,
    /// Turned away before anything was sent.
    pub refused: u64,
    /// The same as a share of all.
    pub refused_share: f64,
    /// 429s per 1,000 requests.
    pub rate_limited_per_1000: f64,
    /// Calls that were sent.
    pub upstream_calls: u64,
    /// The same for each request.
    pub upstream_calls_per_request: f64,
    /// Calls sent during a fault that failed, 429s apart.
    pub wasted_calls: u64,
    /// From the end of the fault (the last to be recovered from) to the first dispatch that succeeded. Absent without a
    /// fault, or when nothing succeeded afterwards.
    pub recovery_first_s: Option<f64>,
    /// What the policy added to the answered requests, in the median.
    pub wait_p50_s: f64,
    /// The same at the 99th percentile.
    pub wait_p99_s: f64,
    /// One row per tenant, where the trace has several.
    pub tenants: Vec<TenantReport>,
    /// For plots; not part of the JSON.
    #[serde(skip)]
    pub(crate) series: Series,
}

/// One tenant's part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TenantReport {
    /// Its name in the trace.
    pub tenant: String,
    /// Its requests.
    pub requests: u64,
    /// Those answered in time.
    pub good: u64,
    /// `good` over `requests`.
    pub success: f64,
    /// `good` over what the oracle answered of them.
    pub goodput_of_oracle: f64,
    /// Turned away before anything was sent.
    pub refused_share: f64,
    /// What the policy added, in the median.
    pub wait_p50_s: f64,
    /// At the 99th percentile.
    pub wait_p99_s: f64,
}

/// What the plots draw.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Series {
    /// Seconds per step.
    pub(crate) step_s: f64,
    pub(crate) arrivals_per_s: Vec<f64>,
    pub(crate) offered_per_s: Vec<f64>,
    pub(crate) admitted_per_s: Vec<f64>,
    pub(crate) sent_per_s: Vec<f64>,
    pub(crate) throttled: Vec<u32>,
    pub(crate) failed: Vec<u32>,
    /// Waits by arrival step.
    pub(crate) wait_p50_s: Vec<f64>,
    pub(crate) wait_p99_s: Vec<f64>,
    /// (seconds, 0 closed, 1 half-open, 2 open).
    pub(crate) circuit: Vec<(f64, u8)>,
    pub(crate) faults: Vec<(f64, f64)>,
}

impl Report {
    pub(crate) fn new(
        scenario: &Scenario,
        setting: Setting<'_>,
        best: &[Option<u64>],
        recorder: &Recorder,
        deadline: u64,
    ) -> Self {
        let total = Sums::over(setting, best, recorder, deadline, |_| true);
        let provider = setting.provider;
        let offered: u64 = setting.trace.requests().iter().map(|request| setting.bill(request).net()).sum();
        let minutes = setting.trace.span() as f64 / 60e9;
        let load = match scenario.quota {
            Quota::Load(load) => load,
            Quota::PerMinute { tokens, .. } => offered as f64 / minutes / tokens.max(1) as f64,
        };
        let recovery = scenario
            .faults
            .iter()
            .zip(&recorder.recovered)
            .map(|(fault, at)| at.map(|at| seconds(at - fault.window.end)))
            .reduce(|longest, next| Some(longest?.max(next?)))
            .flatten();
        let count = total.requests.max(1) as f64;
        Self {
            policy: scenario.policy.name().to_owned(),
            load: round(load),
            requests_per_minute: provider.requests_per_minute,
            tokens_per_minute: provider.tokens_per_minute,
            burst_seconds: provider.burst_seconds,
            charge: String::from(match provider.charge {
                Charge::Estimate => "est",
                Charge::Refund => "refund",
                Charge::Actual => "actual",
            }),
            max_tokens: setting.max_tokens,
            seed: scenario.seed,
            deadline_s: seconds(deadline),
            requests: total.requests,
            good: total.good,
            oracle_good: total.oracle_good,
            goodput_of_oracle: total.of_oracle(),
            answered: total.answered,
            failed: total.failed,
            refused: total.refused,
            refused_share: share(total.refused, total.requests),
            rate_limited_per_1000: round(recorder.rate_limited as f64 * 1_000.0 / count),
            upstream_calls: recorder.upstream_calls,
            upstream_calls_per_request: round(recorder.upstream_calls as f64 / count),
            wasted_calls: recorder.wasted_calls,
            recovery_first_s: recovery,
            wait_p50_s: total.wait(0.5),
            wait_p99_s: total.wait(0.99),
            tenants: tenants(setting, best, recorder, deadline),
            series: Series::new(scenario, setting, recorder),
        }
    }

    /// The report as one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and names are always JSON: none is infinite")
    }

    /// The report as a table for people.
    pub fn to_table(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {name:<28} {value}");
        };
        row("policy", self.policy.clone());
        row(
            "provider",
            format!(
                "{} requests/min, {} tokens/min, burst {} s, charge {}, max_tokens {}",
                self.requests_per_minute,
                self.tokens_per_minute,
                self.burst_seconds,
                self.charge,
                self.max_tokens
            ),
        );
        row("load", format!("{:.2}", self.load));
        row("requests", self.requests.to_string());
        row(
            "answered in time",
            format!(
                "{} ({:.2} % of the oracle's {})",
                self.good,
                self.goodput_of_oracle * 100.0,
                self.oracle_good
            ),
        );
        row("answered late", (self.answered - self.good).to_string());
        row("failed", self.failed.to_string());
        row("refused", format!("{} ({:.2} %)", self.refused, self.refused_share * 100.0));
        row("429s per 1,000", format!("{:.2}", self.rate_limited_per_1000));
        row("upstream calls per request", format!("{:.3}", self.upstream_calls_per_request));
        row("wait p50 / p99", format!("{:.2} s / {:.2} s", self.wait_p50_s, self.wait_p99_s));
        if !self.series.faults.is_empty() {
            row("wasted calls", self.wasted_calls.to_string());
            let recovery =
                self.recovery_first_s.map_or_else(|| String::from("never"), |after| format!("{after:.1} s"));
            row("first success after the fault", recovery);
        }
        if !self.tenants.is_empty() {
            text.push_str(&self.tenant_table());
        }
        text
    }

    fn tenant_table(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::from(
            "\n  tenant          requests   success  of oracle   refused   wait p50   wait p99\n",
        );
        for tenant in &self.tenants {
            let _ = writeln!(
                text,
                "  {:<14} {:>9}  {:>6.2} %  {:>7.2} %  {:>6.2} %  {:>7.2} s  {:>7.2} s",
                tenant.tenant,
                tenant.requests,
                tenant.success * 100.0,
                tenant.goodput_of_oracle * 100.0,
                tenant.refused_share * 100.0,
                tenant.wait_p50_s,
                tenant.wait_p99_s
            );
        }
        text
    }
}

/// Several runs as one table for people, a row each.
pub fn comparison(runs: &[(String, Report)]) -> String {
    use std::fmt::Write as _;
    let widest = runs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(3);
    let mut text = format!(
        "{:<widest$}  {:>5}  {:>9}  {:>10}  {:>8}  {:>9}  {:>9}  {:>9}  {:>7}  {:>9}\n",
        "run",
        "load",
        "of oracle",
        "429s/1,000",
        "calls",
        "refused",
        "wait p50",
        "wait p99",
        "wasted",
        "recovered"
    );
    for (name, report) in runs {
        let recovered = match report.recovery_first_s {
            Some(after) => format!("{after:.1} s"),
            None if report.series.faults.is_empty() => String::from("-"),
            None => String::from("never"),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{name:<widest$}  {:>5.2}  {:>7.2} %  {:>10.2}  {:>8.3}  {:>7.2} %  {:>7.2} s  {:>7.2} s  {:>7}  {recovered:>9}",
            report.load,
            report.goodput_of_oracle * 100.0,
            report.rate_limited_per_1000,
            report.upstream_calls_per_request,
            report.refused_share * 100.0,
            report.wait_p50_s,
            report.wait_p99_s,
            report.wasted_calls,
        );
    }
    text
}

/// Sums over some of the requests.
struct Sums {
    requests: u64,
    good: u64,
    oracle_good: u64,
    answered: u64,
    failed: u64,
    refused: u64,
    /// Sorted.
    waits: Vec<u64>,
}

impl Sums {
    fn over(
        setting: Setting<'_>,
        best: &[Option<u64>],
        recorder: &Recorder,
        deadline: u64,
        mut belongs: impl FnMut(u32) -> bool,
    ) -> Self {
        let mut sums = Self {
            requests: 0,
            good: 0,
            oracle_good: 0,
            answered: 0,
            failed: 0,
            refused: 0,
            waits: Vec::new(),
        };
        let requests = setting.trace.requests();
        for ((request, record), best) in requests.iter().zip(&recorder.records).zip(best) {
            if !belongs(request.tenant) {
                continue;
            }
            sums.requests += 1;
            sums.oracle_good += u64::from(best.is_some());
            match record.end {
                End::Answered { added } => {
                    sums.answered += 1;
                    sums.good += u64::from(added <= deadline);
                    sums.waits.push(added);
                }
                End::Failed => sums.failed += 1,
                End::Refused => sums.refused += 1,
                End::Open => unreachable!("every request ends: the engine runs until nothing is planned"),
            }
        }
        sums.waits.sort_unstable();
        sums
    }

    fn of_oracle(&self) -> f64 {
        if self.oracle_good == 0 { 1.0 } else { share(self.good, self.oracle_good) }
    }

    fn wait(&self, at: f64) -> f64 {
        quantile(&self.waits, at).map_or(0.0, seconds)
    }
}

fn tenants(
    setting: Setting<'_>,
    best: &[Option<u64>],
    recorder: &Recorder,
    deadline: u64,
) -> Vec<TenantReport> {
    if !setting.trace.has_tenants() {
        return Vec::new();
    }
    let names = setting.trace.tenants().iter().enumerate();
    let mut rows: Vec<TenantReport> = names
        .map(|(index, name)| {
            let sums = Sums::over(setting, best, recorder, deadline, |tenant| tenant as usize == index);
            TenantReport {
                tenant: name.clone(),
                requests: sums.requests,
                good: sums.good,
                success: share(sums.good, sums.requests),
                goodput_of_oracle: sums.of_oracle(),
                refused_share: share(sums.refused, sums.requests),
                wait_p50_s: sums.wait(0.5),
                wait_p99_s: sums.wait(0.99),
            }
        })
        .collect();
    rows.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.tenant.cmp(&b.tenant)));
    rows
}

impl Series {
    fn new(scenario: &Scenario, setting: Setting<'_>, recorder: &Recorder) -> Self {
        let Timeline { step, offered, admitted, arrivals, sent, throttled, failed } = &recorder.timeline;
        let step_s = *step as f64 / 1e9;
        let rate = |counts: &[u32]| counts.iter().map(|count| f64::from(*count) / step_s).collect();
        let flow = |tokens: &[u64]| tokens.iter().map(|tokens| *tokens as f64 / step_s).collect();
        let mut waits: Vec<Vec<u64>> = vec![Vec::new(); arrivals.len()];
        for (request, record) in setting.trace.requests().iter().zip(&recorder.records) {
            if let End::Answered { added } = record.end {
                let place = ((request.arrival / step) as usize).min(waits.len() - 1);
                waits[place].push(added);
            }
        }
        waits.iter_mut().for_each(|waits| waits.sort_unstable());
        let wait =
            |share: f64| waits.iter().map(|waits| quantile(waits, share).map_or(0.0, seconds)).collect();
        Self {
            step_s,
            arrivals_per_s: rate(arrivals),
            offered_per_s: flow(offered),
            admitted_per_s: flow(admitted),
            sent_per_s: rate(sent),
            throttled: throttled.clone(),
            failed: failed.clone(),
            wait_p50_s: wait(0.5),
            wait_p99_s: wait(0.99),
            circuit: recorder
                .circuit
                .iter()
                .map(|(at, state)| {
                    let level = match state {
                        Circuit::Closed => 0,
                        Circuit::HalfOpen => 1,
                        Circuit::Open => 2,
                    };
                    (seconds(*at), level)
                })
                .collect(),
            faults: scenario
                .faults
                .iter()
                .map(|fault| (seconds(fault.window.start), seconds(fault.window.end)))
                .collect(),
        }
    }
}

fn seconds(nanos: u64) -> f64 {
    round(nanos as f64 / 1e9)
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { round(part as f64 / whole as f64) }
}

/// Six decimals: enough for anybody, and the same text everywhere.
fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
