//! What came of one run: sums over calls, over the emulator's journal, and over the client's events.

use omega_client::{AttemptOutcome, Error, ErrorKind, Origin};
use omega_emulator::{Provider, RequestRecord};
use serde_json::Value;

use super::plan::Plan;

/// A request that spent longer than this between asking and being let through has waited; an admission without a queue
/// takes microseconds, and timers have a resolution of a millisecond (15 ms of trace time at scale 15).
const WAITED_S: f64 = 0.1;

/// One run in numbers. All times are seconds of trace time.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// Requests of the trace.
    pub requests: u64,
    /// Answered, whole.
    pub answered: u64,
    /// Called a success although the answer was not whole. Must be none.
    pub truncated: u64,
    /// Refused by a limit or an open circuit of ours, in the end.
    pub refused_by_us: u64,
    /// Ended by an error of a provider, of the network or of the clock.
    pub failed: u64,
    /// Attempts beyond the first at the same target.
    pub retries: u64,
    /// Turns to another target.
    pub failovers: u64,
    /// Requests that waited for quota.
    pub waited: u64,
    /// Half of all requests waited no longer.
    pub wait_p50_s: f64,
    /// 99 of 100 requests waited no longer.
    pub wait_p99_s: f64,
    /// Calls that reached a provider.
    pub upstream_calls: u64,
    /// Those of them that were answered with 429.
    pub provider_429s: u64,
    /// Calls that reached a provider outside the outage.
    pub calls_outside_outage: u64,
    /// 429s outside the outage.
    pub provider_429s_outside_outage: u64,
    /// Calls that the failing provider answered with its failure.
    pub wasted_calls: u64,
    /// What the circuits did.
    pub transitions: Vec<Transition>,
    /// The four providers.
    pub providers: Vec<ProviderTally>,
    /// The client's statistics at the end, as the specification prints them.
    pub stats: Value,
    /// When the last request had ended.
    pub ended_s: f64,
}

/// A circuit changed its state.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// Whose.
    pub provider: String,
    /// Before.
    pub from: &'static str,
    /// After.
    pub to: &'static str,
    /// When, in seconds of trace time since the replay began.
    pub at_s: f64,
}

/// One provider at the end of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderTally {
    /// Its name.
    pub name: &'static str,
    /// Its circuit.
    pub state: String,
    /// Calls it got.
    pub calls: u64,
    /// Calls it answered with 200.
    pub succeeded: u64,
    /// 429s.
    pub provider_429s: u64,
    /// Requests in the last minute of trace time.
    pub requests_last_minute: u64,
    /// Tokens it charged in that minute.
    pub tokens_last_minute: u64,
    /// What it allows per minute.
    pub requests_per_minute: u64,
    /// What it allows per minute.
    pub tokens_per_minute: u64,
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ending {
    pub(super) outcome: Outcome,
    /// Trace seconds in queues.
    pub(super) queued_s: f64,
    pub(super) retries: u64,
    pub(super) failovers: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered,
    Truncated,
    RefusedByUs,
    Failed,
}

impl Outcome {
    pub(super) fn of_error(error: &Error) -> Self {
        match (error.kind(), error.origin()) {
            (ErrorKind::CircuitOpen, _)
            | (ErrorKind::RateLimited | ErrorKind::QuotaExhausted, Origin::Local) => Self::RefusedByUs,
            _ => Self::Failed,
        }
    }
}

/// Retries and turns in a list of attempts: (attempts beyond the first sent to the same target, changes of target).
pub(super) fn retries_and_failovers(attempts: &[omega_client::Attempt]) -> (u64, u64) {
    let mut retries = 0;
    let mut failovers = 0;
    for (index, attempt) in attempts.iter().enumerate() {
        let same = |other: &omega_client::Attempt| {
            other.provider == attempt.provider && other.model == attempt.model
        };
        if attempt.was_sent() && attempts[..index].iter().any(|other| other.was_sent() && same(other)) {
            retries += 1;
        }
        // A hedge runs beside the other one: nobody turned anywhere.
        let pair = &attempts[index.saturating_sub(1)..=index];
        let hedged = pair.iter().any(|one| matches!(one.outcome, AttemptOutcome::Cancelled));
        if index > 0
            && !hedged
            && !same(&attempts[index - 1])
            && !matches!(attempt.outcome, AttemptOutcome::Skipped { .. })
        {
            failovers += 1;
        }
    }
    (retries, failovers)
}

/// What the tally is made of.
pub(super) struct Evidence<'a> {
    pub(super) plan: &'a Plan,
    pub(super) endings: Vec<Ending>,
    /// The emulator's journal; its times are real seconds since the emulator began.
    pub(super) journal: Vec<RequestRecord>,
    /// The emulator's clock when the replay began.
    pub(super) start_s: f64,
    pub(super) transitions: Vec<Transition>,
    pub(super) stats: Value,
    pub(super) ended_s: f64,
}

impl Evidence<'_> {
    pub(super) fn tally(self) -> Tally {
        let count =
            |outcome: Outcome| self.endings.iter().filter(|ending| ending.outcome == outcome).count() as u64;
        let mut waits: Vec<f64> = self.endings.iter().map(|ending| ending.queued_s).collect();
        waits.sort_by(f64::total_cmp);
        let outage = self.plan.outage;
        let outside = |record: &&RequestRecord| !(outage.from_s..outage.until_s).contains(&self.at_s(record));
        let throttled = |record: &&RequestRecord| record.status == Some(429);
        let down = Some("unavailable");
        Tally {
            requests: self.endings.len() as u64,
            answered: count(Outcome::Answered),
            truncated: count(Outcome::Truncated),
            refused_by_us: count(Outcome::RefusedByUs),
            failed: count(Outcome::Failed),
            retries: self.endings.iter().map(|ending| ending.retries).sum(),
            failovers: self.endings.iter().map(|ending| ending.failovers).sum(),
            waited: waits.iter().filter(|wait| **wait > WAITED_S).count() as u64,
            wait_p50_s: percentile(&waits, 50),
            wait_p99_s: percentile(&waits, 99),
            upstream_calls: self.journal.len() as u64,
            provider_429s: self.journal.iter().filter(throttled).count() as u64,
            calls_outside_outage: self.journal.iter().filter(outside).count() as u64,
            provider_429s_outside_outage: self.journal.iter().filter(outside).filter(throttled).count()
                as u64,
            wasted_calls: self.journal.iter().filter(|record| record.fault.as_deref() == down).count() as u64,
            providers: self.plan.providers.iter().map(|planned| self.provider(planned)).collect(),
            transitions: self.transitions,
            stats: self.stats,
            ended_s: self.ended_s,
        }
    }

    fn provider(&self, planned: &super::ProviderPlan) -> ProviderTally {
        let own = || self.journal.iter().filter(|record| record.provider == planned.provider);
        let lately = || own().filter(|record| self.at_s(record) > self.ended_s - 60.0);
        let state = self.stats["circuit_breakers"][planned.name()]["state"].as_str().unwrap_or("unknown");
        ProviderTally {
            name: planned.name(),
            state: state.to_owned(),
            calls: own().count() as u64,
            succeeded: own().filter(|record| record.status == Some(200)).count() as u64,
            provider_429s: own().filter(|record| record.status == Some(429)).count() as u64,
            requests_last_minute: lately().count() as u64,
            tokens_last_minute: lately().map(|record| record.tokens_charged).sum(),
            requests_per_minute: planned.requests_per_minute,
            tokens_per_minute: planned.tokens_per_minute,
        }
    }

    /// When a request arrived, in trace seconds since the replay began.
    fn at_s(&self, record: &RequestRecord) -> f64 {
        (record.at - self.start_s) * self.plan.time_scale
    }
}

impl Tally {
    /// Answered of all.
    pub fn answered_share(&self) -> f64 {
        share(self.answered, self.requests)
    }

    /// Waited of all.
    pub fn waited_share(&self) -> f64 {
        share(self.waited, self.requests)
    }

    /// 429s per 1,000 calls that reached a provider, outside the outage.
    pub fn rate_429_outside_outage(&self) -> f64 {
        share(self.provider_429s_outside_outage, self.calls_outside_outage) * 1_000.0
    }

    /// 429s per 1,000 requests.
    pub fn rate_429(&self) -> f64 {
        share(self.provider_429s, self.requests) * 1_000.0
    }

    /// Did this provider's circuit go closed → open → half-open → closed, in this order?
    pub fn recovered(&self, provider: &str) -> bool {
        let mut steps =
            [("closed", "open"), ("open", "half_open"), ("half_open", "closed")].into_iter().peekable();
        for transition in self.transitions.iter().filter(|transition| transition.provider == provider) {
            if steps.peek() == Some(&(transition.from, transition.to)) {
                steps.next();
            }
        }
        steps.next().is_none()
    }

    /// How often a provider's circuit opened.
    pub fn opened(&self, provider: &str) -> usize {
        self.transitions
            .iter()
            .filter(|transition| transition.provider == provider && transition.to == "open")
            .count()
    }
}

/// The provider of an emulated name; used to tell whether a provider belongs to the plan.
pub(super) fn is_planned(plan: &Plan, name: &str) -> bool {
    Provider::from_name(name)
        .is_some_and(|provider| plan.providers.iter().any(|planned| planned.provider == provider))
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The smallest value that at least `percent` of the sorted values do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use omega_client::Attempt;

    use super::*;

    fn attempt(provider: &str, outcome: AttemptOutcome) -> Attempt {
        Attempt {
            provider: provider.into(),
            model: String::from("m"),
            started: Duration::ZERO,
            elapsed: Duration::ZERO,
            queued: Duration::ZERO,
            outcome,
        }
    }

    fn failed() -> AttemptOutcome {
        AttemptOutcome::Failed {
            kind: omega_policy::FailureKind::Server,
            status: Some(500),
            code: None,
            message: String::new(),
        }
    }

    fn refused() -> AttemptOutcome {
        AttemptOutcome::Refused { kind: ErrorKind::CircuitOpen, retry_after: None, message: String::new() }
    }

    #[test]
    fn retries_stay_and_failovers_turn() {
        let attempts = [
            attempt("openai", failed()),
            attempt("openai", failed()),
            attempt("anthropic", refused()),
            attempt("google", AttemptOutcome::Answered),
        ];
        assert_eq!(retries_and_failovers(&attempts), (1, 2));
        assert_eq!(retries_and_failovers(&attempts[..1]), (0, 0));
        assert_eq!(retries_and_failovers(&[]), (0, 0));
    }

    #[test]
    fn a_hedge_is_neither() {
        let attempts =
            [attempt("openai", AttemptOutcome::Cancelled), attempt("anthropic", AttemptOutcome::Answered)];
        assert_eq!(retries_and_failovers(&attempts), (0, 0));
    }

    #[test]
    fn a_percentile_is_a_value_that_occurred() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (100.0, 198.0));
        assert_eq!(percentile(&[7.0], 99), 7.0);
        assert_eq!(percentile(&[], 99), 0.0);
    }

    #[test]
    fn recovery_is_three_steps_in_order() {
        let transition = |from, to| Transition { provider: String::from("openai"), from, to, at_s: 0.0 };
        let plan = Plan::new(&super::super::Trace::built_in(), 20.0, 1).expect("a plan");
        let tally = |transitions: Vec<Transition>| {
            let evidence = Evidence {
                plan: &plan,
                endings: Vec::new(),
                journal: Vec::new(),
                start_s: 0.0,
                transitions,
                stats: Value::Null,
                ended_s: 0.0,
            };
            evidence.tally()
        };
        let (trip, probe, again, close) = (
            transition("closed", "open"),
            transition("open", "half_open"),
            transition("half_open", "open"),
            transition("half_open", "closed"),
        );
        assert!(tally(vec![trip.clone(), probe.clone(), close.clone()]).recovered("openai"));
        assert!(
            tally(vec![trip.clone(), probe.clone(), again, probe.clone(), close.clone()]).recovered("openai")
        );
        assert!(!tally(vec![trip.clone(), probe]).recovered("openai"));
        assert!(!tally(vec![close, trip]).recovered("openai"));
    }
}
