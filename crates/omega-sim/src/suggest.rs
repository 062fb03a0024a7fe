//! The other way round: how much quota does this trace need?
//!
//! Halving: first the tokens per minute that reach the goal while requests are plentiful, then the requests per minute
//! that reach it beside them. More quota helps nearly always but not strictly (a larger bucket may let a large request
//! through in front of several small ones), so what is found is checked, and it is enough rather than least.

use serde::Serialize;

use crate::report::Report;
use crate::simulation::{Quota, Scenario, ScenarioError};
use crate::trace::Trace;

/// Quota that reaches a goal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Suggestion {
    /// The share of requests that was to be answered in time.
    pub goal: f64,
    /// Requests per minute that are enough.
    pub requests_per_minute: u64,
    /// Tokens per minute that are enough.
    pub tokens_per_minute: u64,
    /// The run with just these.
    pub report: Report,
}

/// The search ends when the bounds are this close.
const PRECISION: f64 = 0.01;

/// Quota is looked for up to this many times what the trace uses on average.
const MOST: f64 = 1_000.0;

/// Finds limits with which at least `goal` of the requests are answered in time; `None` if none do, because something
/// other than quota stands in the way.
///
/// # Errors
/// As [`Scenario::run`]; and a goal outside of 0 to 1.
pub fn suggest(scenario: &Scenario, trace: &Trace, goal: f64) -> Result<Option<Suggestion>, ScenarioError> {
    if !(goal > 0.0 && goal <= 1.0) {
        return Err(ScenarioError::new("the goal must be above 0 and at most 1"));
    }
    let run = |requests: f64, tokens: f64| {
        let quota = Quota::PerMinute { requests: whole(requests), tokens: whole(tokens) };
        Scenario { quota, ..scenario.clone() }.run(trace, &mut |_| {})
    };
    let reaches = |report: &Report| report.good as f64 >= goal * report.requests as f64;
    let average = Scenario { quota: Quota::Load(1.0), ..scenario.clone() };
    let average = average.provider_for(trace, scenario.max_tokens.unwrap_or_else(|| trace.max_tokens()));
    let (requests, tokens) = (average.requests_per_minute as f64, average.tokens_per_minute as f64);
    let plenty = requests * MOST;
    if !reaches(&run(plenty, tokens * MOST)?) {
        return Ok(None);
    }
    let tokens = least(tokens, |tokens| Ok(reaches(&run(plenty, tokens)?)))?;
    let requests = least(requests, |requests| Ok(reaches(&run(requests, tokens)?)))?;
    let report = run(requests, tokens)?;
    let found = Suggestion {
        goal,
        requests_per_minute: report.requests_per_minute,
        tokens_per_minute: report.tokens_per_minute,
        report,
    };
    Ok(reaches(&found.report).then_some(found))
}

/// The smallest value found, around `start`, that is enough; `start * MOST` is.
fn least(start: f64, enough: impl Fn(f64) -> Result<bool, ScenarioError>) -> Result<f64, ScenarioError> {
    let (mut low, mut high) = (start / 16.0, start);
    while !enough(whole(high) as f64)? {
        low = high;
        high *= 2.0;
        if high > start * MOST {
            return Ok(start * MOST);
        }
    }
    while high / low > 1.0 + PRECISION && high - low > 1.0 {
        let middle = (low * high).sqrt();
        if enough(whole(middle) as f64)? {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(whole(high) as f64)
}

fn whole(value: f64) -> u64 {
    (value.ceil() as u64).max(1)
}
