//! Both runs, and what had to hold.

use std::time::Duration;

use serde_json::{Value, json};

use super::Demands;
use super::plan::Plan;
use super::tally::Tally;

/// The outcome of a demonstration.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was replayed.
    pub plan: Plan,
    /// With everything on.
    pub protected: Tally,
    /// With everything off.
    pub unprotected: Tally,
    /// Wall-clock time of both runs.
    pub wall: Duration,
    /// What had to hold, and whether it did.
    pub checks: Vec<Check>,
}

/// One thing that had to hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// What.
    pub what: String,
    /// What was found.
    pub found: String,
    /// Whether it held.
    pub held: bool,
}

/// Failures enough to open the circuit and prove it: fewer requests in the outage show nothing.
const OUTAGE_MEANS_SOMETHING: u64 = 20;

impl Report {
    pub(super) fn new(
        plan: Plan,
        protected: Tally,
        unprotected: Tally,
        wall: Duration,
        demands: &Demands,
    ) -> Self {
        let checks = checks(&plan, &protected, &unprotected, wall, demands);
        Self { plan, protected, unprotected, wall, checks }
    }

    /// Whether everything held.
    pub fn held(&self) -> bool {
        self.checks.iter().all(|check| check.held)
    }

    /// The protected run for programs.
    pub fn json(&self) -> Value {
        let run = &self.protected;
        json!({
            "requests": run.requests,
            "answered": run.answered,
            "answered_share": run.answered_share(),
            "provider_429s": run.provider_429s,
            "refused_by_us": run.refused_by_us,
            "retries": run.retries,
            "failovers": run.failovers,
            "breaker_transitions": run.transitions.iter().map(|step| json!({
                "provider": step.provider,
                "from": step.from,
                "to": step.to,
                "at_s": millis(step.at_s),
            })).collect::<Vec<_>>(),
            "waits_s": {"p50": millis(run.wait_p50_s), "p99": millis(run.wait_p99_s)},
            "stats": run.stats,
        })
    }
}

/// Seconds to the millisecond: more digits would pretend a precision that timers do not have.
fn millis(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}

fn checks(
    plan: &Plan,
    protected: &Tally,
    unprotected: &Tally,
    wall: Duration,
    demands: &Demands,
) -> Vec<Check> {
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    let mut checks = Vec::new();
    let mut check = |held: bool, what: String, found: String| checks.push(Check { what, found, held });
    check(
        protected.answered_share() >= 0.99,
        String::from("at least 99 % of the requests are answered"),
        percent(protected.answered_share()),
    );
    check(
        protected.truncated == 0,
        String::from("no answer that is not whole counts as one"),
        format!("{} of {}", protected.truncated, protected.answered + protected.truncated),
    );
    check(
        protected.rate_429_outside_outage() <= 1.0,
        String::from("at most 1 provider 429 per 1,000 calls outside the outage"),
        format!(
            "{:.2} ({} in {})",
            protected.rate_429_outside_outage(),
            protected.provider_429s_outside_outage,
            protected.calls_outside_outage
        ),
    );
    if plan.requests_in_outage >= OUTAGE_MEANS_SOMETHING {
        let primary = plan.primary().name();
        let steps: Vec<&str> = protected
            .transitions
            .iter()
            .filter(|step| step.provider == primary)
            .map(|step| step.to)
            .collect();
        check(
            protected.recovered(primary),
            format!("{primary}'s circuit goes closed, open, half_open, closed"),
            if steps.is_empty() {
                String::from("it stayed closed")
            } else {
                format!("closed, {}", steps.join(", "))
            },
        );
    }
    if demands.upstream_calls > 0 {
        check(
            protected.upstream_calls >= demands.upstream_calls,
            format!("at least {} calls reach the providers", demands.upstream_calls),
            protected.upstream_calls.to_string(),
        );
    }
    if demands.waited_share > 0.0 {
        check(
            protected.waited_share() >= demands.waited_share,
            format!(
                "the quota binds: at least {:.0} % of the requests wait for it",
                demands.waited_share * 100.0
            ),
            percent(protected.waited_share()),
        );
    }
    if demands.unprotected_429s > 0.0 {
        check(
            unprotected.rate_429() >= demands.unprotected_429s,
            format!("without protection at least {:.0} of 1,000 requests get 429", demands.unprotected_429s),
            format!("{:.0}", unprotected.rate_429()),
        );
    }
    if let Some(limit) = demands.wall_seconds {
        check(
            wall.as_secs_f64() <= limit,
            format!("both runs take at most {limit:.0} s"),
            format!("{:.1} s", wall.as_secs_f64()),
        );
    }
    checks
}
