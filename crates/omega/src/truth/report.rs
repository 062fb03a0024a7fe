//! Both sides beside each other.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use super::plan::Plan;
use super::real::Ran;

/// What one side came to. Times are seconds of trace time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Side {
    /// Requests that arrived.
    pub requests: u64,
    /// Answered, with no more added than the deadline.
    pub good: u64,
    /// Answered, in time or not.
    pub answered: u64,
    /// Sent at least once and given up.
    pub failed: u64,
    /// Turned away before anything was sent.
    pub refused: u64,
    /// 429s.
    pub rate_limited: u64,
    /// Calls that reached the provider.
    pub upstream_calls: u64,
    /// What the policy added to the answered requests, in the median.
    pub wait_p50_s: f64,
    /// The same at the 99th percentile.
    pub wait_p99_s: f64,
}

impl Side {
    /// `good` in percent of the requests.
    pub fn good_percent(&self) -> f64 {
        per(self.good, self.requests, 100.0)
    }

    /// Refused in percent of the requests.
    pub fn refused_percent(&self) -> f64 {
        per(self.refused, self.requests, 100.0)
    }

    /// 429s per 1,000 requests.
    pub fn rate_limited_per_1000(&self) -> f64 {
        per(self.rate_limited, self.requests, 1_000.0)
    }

    /// Calls per 1,000 requests.
    pub fn upstream_calls_per_1000(&self) -> f64 {
        per(self.upstream_calls, self.requests, 1_000.0)
    }
}

fn per(count: u64, of: u64, whole: f64) -> f64 {
    count as f64 * whole / of.max(1) as f64
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The conditions, as printed.
    conditions: Value,
    /// In virtual time.
    pub simulated: Side,
    /// In real time.
    pub real: Side,
    /// How late requests were handed to the real client, in trace seconds, at the 99th percentile: what the machine,
    /// not the client, added.
    pub real_lag_p99_s: f64,
}

impl Report {
    pub(super) fn new(plan: &Plan, simulated: Side, real: Ran) -> Self {
        let settings = &plan.settings;
        let conditions = json!({
            "load": settings.load,
            "requests_per_minute": plan.requests_per_minute,
            "tokens_per_minute": plan.tokens_per_minute,
            "burst_seconds": settings.burst_seconds,
            "charge": match settings.charge {
                omega_sim::Charge::Estimate => "est",
                omega_sim::Charge::Refund => "refund",
                omega_sim::Charge::Actual => "actual",
            },
            "free_429": settings.free_429,
            "deadline_s": settings.deadline.as_secs_f64(),
            "rate_limiting": settings.rate_limiting,
            "depth_margin_s": settings.depth_margin.as_secs_f64(),
            "max_tokens": plan.max_tokens,
            "time_scale": settings.time_scale,
            "seed": settings.seed,
        });
        Self { conditions, simulated, real: real.side, real_lag_p99_s: real.lag_p99_s }
    }

    /// Real less simulated, in percentage points of the requests.
    pub fn good_difference(&self) -> f64 {
        self.real.good_percent() - self.simulated.good_percent()
    }

    /// Real less simulated, in 429s per 1,000 requests.
    pub fn rate_limited_difference(&self) -> f64 {
        self.real.rate_limited_per_1000() - self.simulated.rate_limited_per_1000()
    }

    /// Everything as JSON: the conditions, `simulated`, `real`, and what differs.
    pub fn json(&self) -> Value {
        json!({
            "conditions": self.conditions,
            "simulated": self.simulated,
            "real": self.real,
            "real_lag_p99_s": self.real_lag_p99_s,
            "good_difference_points": self.good_difference(),
            "rate_limited_difference_per_1000": self.rate_limited_difference(),
        })
    }
}

/// A table for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (simulated, real) = (&self.simulated, &self.real);
        writeln!(f, "{:<24} {:>10} {:>10} {:>11}", "", "simulated", "real", "difference")?;
        let count = |of: fn(&Side) -> u64| (of(simulated), of(real), of(real) as i64 - of(simulated) as i64);
        for (name, (simulated, real, difference)) in [
            ("requests", count(|side| side.requests)),
            ("good", count(|side| side.good)),
            ("answered", count(|side| side.answered)),
            ("refused", count(|side| side.refused)),
            ("failed", count(|side| side.failed)),
            ("429s", count(|side| side.rate_limited)),
            ("upstream calls", count(|side| side.upstream_calls)),
        ] {
            writeln!(f, "{name:<24} {simulated:>10} {real:>10} {difference:>+11}")?;
        }
        for (name, of) in [
            ("good, %", Side::good_percent as fn(&Side) -> f64),
            ("refused, %", Side::refused_percent),
            ("429s per 1,000", Side::rate_limited_per_1000),
            ("calls per 1,000", Side::upstream_calls_per_1000),
            ("wait p50, s", |side| side.wait_p50_s),
            ("wait p99, s", |side| side.wait_p99_s),
        ] {
            let (simulated, real) = (of(simulated), of(real));
            writeln!(f, "{name:<24} {simulated:>10.2} {real:>10.2} {:>+11.2}", real - simulated)?;
        }
        write!(f, "requests were handed over up to {:.2} s late (p99, trace time)", self.real_lag_p99_s)
    }
}

/// The value at `share` (0 to 1): the smallest that at least this share does not exceed; 0 where there is none.
pub(super) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil().max(1.0) as usize;
    values.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((quantile(&mut values, 0.5), quantile(&mut values, 0.99)), (50.0, 99.0));
        assert_eq!(quantile(&mut [], 0.5), 0.0);
    }

    #[test]
    fn differences_are_real_less_simulated() {
        let side = Side {
            requests: 200,
            good: 190,
            answered: 192,
            failed: 0,
            refused: 8,
            rate_limited: 1,
            upstream_calls: 193,
            wait_p50_s: 0.0,
            wait_p99_s: 3.0,
        };
        let real = Side { good: 188, rate_limited: 3, ..side };
        let report = Report { conditions: json!({}), simulated: side, real, real_lag_p99_s: 0.1 };
        assert_eq!((report.good_difference(), report.rate_limited_difference()), (-1.0, 10.0));
        let table = report.to_string();
        assert!(table.contains("good, %                       95.00      94.00       -1.00"), "{table}");
    }
}
