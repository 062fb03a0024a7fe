//! What counts: who was answered in time, who waited, and what it cost to get there.
//!
//! A request is *good* when it succeeded and the policy added at most the deadline to it. What a policy adds is the
//! time between the arrival and the sending of the attempt that succeeded: everything after that is the request's own
//! service time.

use crate::engine::Answer;
use crate::fault::{Fault, Window};
use crate::trace::Trace;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It has not ended.
    Open,
    /// Answered; the policy added this many nanoseconds.
    Answered { added: u64 },
    /// Given up after being sent at least once.
    Failed,
    /// Turned away by the client's own policy, never sent.
    Refused,
}

/// One request's record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) end: End,
    /// When its latest attempt was sent.
    pub(crate) sent_at: u64,
    pub(crate) attempts: u32,
}

/// Over time, in equal steps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    pub(crate) step: u64,
    /// Net tokens of the requests that arrived.
    pub(crate) offered: Vec<u64>,
    /// Net tokens the provider charged at arrival.
    pub(crate) admitted: Vec<u64>,
    pub(crate) arrivals: Vec<u32>,
    pub(crate) sent: Vec<u32>,
    pub(crate) throttled: Vec<u32>,
    pub(crate) failed: Vec<u32>,
}

/// As many steps as a plot can show.
const STEPS: usize = 240;

/// The state of a circuit, for the plot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Circuit {
    Closed,
    HalfOpen,
    Open,
}

/// Transitions kept for the plot; a circuit that flutters more often than this is drawn up to here.
const TRANSITIONS_MAX: usize = 100_000;

/// Writes down what happens.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) records: Vec<Record>,
    arrivals: Vec<u64>,
    faults: Vec<Window>,
    pub(crate) upstream_calls: u64,
    pub(crate) rate_limited: u64,
    pub(crate) wasted_calls: u64,
    /// For each fault: the first dispatch after its end that succeeded.
    pub(crate) recovered: Vec<Option<u64>>,
    pub(crate) timeline: Timeline,
    pub(crate) circuit: Vec<(u64, Circuit)>,
}

impl Recorder {
    pub(crate) fn new(trace: &Trace, faults: &[Fault]) -> Self {
        let count = trace.requests().len();
        let open = Record { end: End::Open, sent_at: 0, attempts: 0 };
        Self {
            records: vec![open; count],
            arrivals: trace.requests().iter().map(|request| request.arrival).collect(),
            faults: faults.iter().map(|fault| fault.window).collect(),
            upstream_calls: 0,
            rate_limited: 0,
            wasted_calls: 0,
            recovered: vec![None; faults.len()],
            timeline: Timeline {
                step: trace.span() / STEPS as u64 + 1,
                offered: vec![0; STEPS],
                admitted: vec![0; STEPS],
                arrivals: vec![0; STEPS],
                sent: vec![0; STEPS],
                throttled: vec![0; STEPS],
                failed: vec![0; STEPS],
            },
            circuit: Vec::new(),
        }
    }

    pub(crate) fn attempts(&self, number: u32) -> u32 {
        self.records[number as usize].attempts
    }

    pub(crate) fn arrived(&mut self, tokens: u64, now: u64) {
        let step = self.step(now);
        self.timeline.arrivals[step] += 1;
        self.timeline.offered[step] += tokens;
    }

    pub(crate) fn sent(&mut self, number: u32, now: u64) {
        let record = &mut self.records[number as usize];
        record.sent_at = now;
        record.attempts += 1;
        self.upstream_calls += 1;
        let step = self.step(now);
        self.timeline.sent[step] += 1;
    }

    pub(crate) fn admitted(&mut self, tokens: u64, now: u64) {
        let step = self.step(now);
        self.timeline.admitted[step] += tokens;
    }

    pub(crate) fn answered(&mut self, number: u32, answer: Answer, now: u64) {
        let sent_at = self.records[number as usize].sent_at;
        let step = self.step(now);
        match answer {
            Answer::Success => {
                for (fault, recovered) in self.faults.iter().zip(&mut self.recovered) {
                    if sent_at >= fault.end && recovered.is_none_or(|earlier| sent_at < earlier) {
                        *recovered = Some(sent_at);
                    }
                }
            }
            Answer::Throttled { .. } => {
                self.rate_limited += 1;
                self.timeline.throttled[step] += 1;
            }
            Answer::ServerError | Answer::Overloaded | Answer::Silence | Answer::OutOfTime => {
                self.timeline.failed[step] += 1;
                if self.faults.iter().any(|fault| fault.contains(sent_at)) {
                    self.wasted_calls += 1;
                }
            }
        }
    }

    pub(crate) fn succeeded(&mut self, number: u32) {
        let added = self.records[number as usize].sent_at - self.arrivals[number as usize];
        self.end(number, End::Answered { added });
    }

    pub(crate) fn failed(&mut self, number: u32) {
        self.end(number, End::Failed);
    }

    pub(crate) fn refused(&mut self, number: u32) {
        let sent = self.records[number as usize].attempts > 0;
        self.end(number, if sent { End::Failed } else { End::Refused });
    }

    pub(crate) fn circuit(&mut self, state: Circuit, at: u64) {
        if self.circuit.len() < TRANSITIONS_MAX {
            self.circuit.push((at, state));
        }
    }

    fn end(&mut self, number: u32, end: End) {
        let record = &mut self.records[number as usize];
        assert_eq!(
            record.end,
            End::Open,
            "a request ends once: {number} ended as {:?}, then as {end:?}",
            record.end
        );
        record.end = end;
    }

    fn step(&self, now: u64) -> usize {
        // What happens after the last arrival belongs to the last step.
        usize::try_from(now / self.timeline.step).map_or(STEPS - 1, |step| step.min(STEPS - 1))
    }
}

/// The value at `share` (0 to 1) of sorted values: the smallest that at least this share does not exceed.
pub(crate) fn quantile(sorted: &[u64], share: f64) -> Option<u64> {
    let rank = (sorted.len() as f64 * share).ceil().max(1.0) as usize;
    sorted.get(rank.min(sorted.len()).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(quantile(&values, 0.5), Some(50));
        assert_eq!(quantile(&values, 0.99), Some(99));
        assert_eq!(quantile(&values, 1.0), Some(100));
        assert_eq!(quantile(&[7], 0.99), Some(7));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
