//! How long first tokens of a model lately took, and how long is too long when somebody else could answer.
//!
//! A silent provider must cost seconds, not minutes, where another target exists. How many seconds is learned: a
//! multiple of the recent 99th percentile, so that a slow but healthy model is not given up.

use std::time::Duration;

/// Times remembered for each model. The percentile of 128 is nearly its largest, which is what a limit wants.
const REMEMBERED: usize = 128;
/// Before this many are known, the percentile says little and [`UNKNOWN`] or [`UNKNOWN_REASONING`] stands in.
const ENOUGH: usize = 20;
/// The clock is this multiple of the percentile: first tokens have heavy tails, and a failover costs a whole prompt.
const MULTIPLE: u32 = 3;
/// Never shorter: shorter silences happen on healthy connections (a lost packet, a cold cache).
pub(crate) const FLOOR: Duration = Duration::from_secs(10);
/// While little is known: what the documentation promises a silent provider costs at most.
const UNKNOWN: Duration = FLOOR;
/// The same for a model that reasons before it writes.
const UNKNOWN_REASONING: Duration = Duration::from_secs(60);

/// The recent first-token times of one model, apart for requests that reason first.
#[derive(Debug, Default)]
pub(crate) struct FirstTokens {
    plain: Ring,
    reasoning: Ring,
}

impl FirstTokens {
    /// A first token came after `elapsed`.
    pub(crate) fn record(&mut self, reasons_first: bool, elapsed: Duration) {
        self.ring(reasons_first).record(elapsed);
    }

    /// How long to wait for a first token when another target could answer.
    pub(crate) fn patience(&mut self, reasons_first: bool) -> Duration {
        let unknown = if reasons_first { UNKNOWN_REASONING } else { UNKNOWN };
        self.ring(reasons_first).p99().map_or(unknown, |p99| FLOOR.max(p99.saturating_mul(MULTIPLE)))
    }

    fn ring(&mut self, reasons_first: bool) -> &mut Ring {
        if reasons_first { &mut self.reasoning } else { &mut self.plain }
    }
}

/// The last [`REMEMBERED`] times, in milliseconds.
#[derive(Debug, Default)]
struct Ring {
    millis: Vec<u32>,
    next: usize,
    known: Option<Duration>,
}

impl Ring {
    fn record(&mut self, elapsed: Duration) {
        let millis = u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX);
        if self.millis.len() < REMEMBERED {
            self.millis.push(millis);
        } else {
            self.millis[self.next] = millis;
            self.next = (self.next + 1) % REMEMBERED;
        }
        self.known = None;
    }

    fn p99(&mut self) -> Option<Duration> {
        if self.millis.len() < ENOUGH {
            return None;
        }
        if self.known.is_none() {
            let mut sorted = self.millis.clone();
            let rank = (sorted.len() * 99).div_ceil(100) - 1;
            let (_, p99, _) = sorted.select_nth_unstable(rank);
            self.known = Some(Duration::from_millis(u64::from(*p99)));
        }
        self.known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_enough_is_known_it_is_ten_seconds_or_sixty_for_reasoning() {
        let mut times = FirstTokens::default();
        for _ in 1..ENOUGH {
            times.record(false, Duration::from_secs(9));
        }
        assert_eq!(times.patience(false), Duration::from_secs(10));
        assert_eq!(times.patience(true), Duration::from_secs(60));
    }

    #[test]
    fn then_it_is_three_times_the_percentile_and_never_under_ten_seconds() {
        let mut times = FirstTokens::default();
        for _ in 0..ENOUGH {
            times.record(false, Duration::from_millis(400));
            times.record(true, Duration::from_secs(8));
        }
        assert_eq!(times.patience(false), Duration::from_secs(10));
        assert_eq!(times.patience(true), Duration::from_secs(24));
    }

    #[test]
    fn old_times_are_forgotten() {
        let mut times = FirstTokens::default();
        for _ in 0..REMEMBERED {
            times.record(false, Duration::from_secs(30));
        }
        assert_eq!(times.patience(false), Duration::from_secs(90));
        for _ in 0..REMEMBERED {
            times.record(false, Duration::from_secs(5));
        }
        assert_eq!(times.patience(false), Duration::from_secs(15));
    }

    #[test]
    fn one_outlier_in_a_hundred_does_not_move_it() {
        let mut times = FirstTokens::default();
        for at in 0..100 {
            times.record(false, Duration::from_secs(if at == 50 { 3_000 } else { 4 }));
        }
        assert_eq!(times.patience(false), Duration::from_secs(12));
    }
}
