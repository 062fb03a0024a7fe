//! How long first tokens of a model lately took, and how long is too long when somebody else could answer.
//!
//! A silent provider must cost seconds, not minutes, where another target exists. How many seconds is learned: a
//! multiple of the recent 99th percentile, so that a slow but healthy model is not given up. What is merely slow, and
//! worth a hedge, is the recent 95th percentile itself.

use std::time::Duration;

/// Times remembered for each model. The percentile of 128 is nearly its largest, which is what a limit wants.
const REMEMBERED: usize = 128;
/// Before this many are known, the percentiles say little: [`UNKNOWN`] or [`UNKNOWN_REASONING`] stands in, and nothing
/// is slow.
const ENOUGH: usize = 20;
/// The clock is this multiple of the percentile: first tokens have heavy tails, and a failover costs a whole prompt.
const MULTIPLE: u32 = 3;
/// Never shorter: shorter silences happen on healthy connections (a lost packet, a cold cache).
const FLOOR: Duration = Duration::from_secs(10);
/// While little is known: what the documentation promises a silent provider costs at most.
const UNKNOWN: Duration = FLOOR;
/// The same for a model that reasons before it writes.
const UNKNOWN_REASONING: Duration = Duration::from_secs(60);

/// Nothing is slow before this: a model that nearly always begins within milliseconds would else be hedged for a lost
/// packet. Judgement.
const SLOW_FLOOR: Duration = Duration::from_millis(100);

/// The recent first-token times of one model, apart for requests that reason first. Bounded: the last 128 of each.
#[derive(Debug, Default)]
pub struct FirstTokens {
    plain: Ring,
    reasoning: Ring,
}

impl FirstTokens {
    /// The shortest clock there is: silence for as long as this says something about the provider.
    pub const FLOOR: Duration = FLOOR;

    /// A first token came after `elapsed`.
    pub fn record(&mut self, reasons_first: bool, elapsed: Duration) {
        self.ring(reasons_first).record(elapsed);
    }

    /// How long to wait for a first token when another target could answer.
    pub fn patience(&mut self, reasons_first: bool) -> Duration {
        let unknown = if reasons_first { UNKNOWN_REASONING } else { UNKNOWN };
        self.ring(reasons_first).p99().map_or(unknown, |p99| FLOOR.max(p99.saturating_mul(MULTIPLE)))
    }

    /// After how long a first token is slow: later than 95 % of the recent ones. `None` while too few are known.
    pub fn slow(&mut self, reasons_first: bool) -> Option<Duration> {
        self.ring(reasons_first).p95().map(|p95| p95.max(SLOW_FLOOR))
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
    /// The percentiles, once they were asked for.
    p95: Option<Duration>,
    p99: Option<Duration>,
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
        (self.p95, self.p99) = (None, None);
    }

    fn p95(&mut self) -> Option<Duration> {
        self.p95 = self.p95.or_else(|| self.percentile(95));
        self.p95
    }

    fn p99(&mut self) -> Option<Duration> {
        self.p99 = self.p99.or_else(|| self.percentile(99));
        self.p99
    }

    fn percentile(&self, percent: usize) -> Option<Duration> {
        if self.millis.len() < ENOUGH {
            return None;
        }
        let mut sorted = self.millis.clone();
        let rank = (sorted.len() * percent).div_ceil(100) - 1;
        let (_, at_rank, _) = sorted.select_nth_unstable(rank);
        Some(Duration::from_millis(u64::from(*at_rank)))
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

    #[test]
    fn slow_is_later_than_nineteen_of_twenty_and_unknown_before_that_many() {
        let mut times = FirstTokens::default();
        for seconds in 1..=19 {
            times.record(false, Duration::from_secs(seconds));
            assert_eq!(times.slow(false), None);
        }
        times.record(false, Duration::from_secs(500));
        assert_eq!(times.slow(false), Some(Duration::from_secs(19)));
        assert_eq!(times.slow(true), None, "requests that reason first are another matter");
        // A slower hour moves it, as soon as one in twenty is slower.
        times.record(false, Duration::from_secs(600));
        assert_eq!(times.slow(false), Some(Duration::from_secs(500)));
    }

    #[test]
    fn nothing_is_slow_within_a_tenth_of_a_second() {
        let mut times = FirstTokens::default();
        (0..ENOUGH).for_each(|_| times.record(false, Duration::from_millis(3)));
        assert_eq!(times.slow(false), Some(SLOW_FLOOR));
    }
}
