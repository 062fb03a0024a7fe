//! A rate found by trial, where no limit is known: CUBIC on 429s.
//!
//! Off until the first 429, which cuts the rate to 0.7 of what was measured; then it grows back along a cubic curve,
//! flat around the rate that was too much, and beyond it steeply until the next 429. Never more than twice what is
//! really sent. Source: the adaptive retry mode of the AWS SDKs (smithy-rs `client_rate_limiter.rs`): beta 0.7, measured
//! in half seconds with a smoothing of 0.8. Theirs grows by 0.4 t^3 requests per second and keeps at least 0.5, which is
//! made for services of thousands per second: at the twenty or sixty per *minute* of a language model it would be back
//! at the limit within a second. Here the curve is scaled to reach the old rate after [`EPOCH`] whatever that rate is.
//!
//! The one place with floating point: the curve is no account of anything, and a rate that is off by a rounding error
//! is as good a guess.

use std::time::Duration;

use crate::Timestamp;

const BETA: f64 = 0.7;
const SMOOTH: f64 = 0.8;
/// One in twenty seconds.
const MIN_RATE: f64 = 0.05;
/// Seconds until the rate is again what was too much. Ten windows of a second fit in, and a raised limit is found within
/// the minute.
const EPOCH: f64 = 20.0;
const MEASURED_EVERY: f64 = 0.5;
/// A throttle this soon after another is the same event: calls that were in flight together.
const EVENT: Duration = Duration::from_secs(1);

/// Requests per second, when there is a bound.
#[derive(Debug)]
pub(crate) struct Pace {
    /// `None` until the first 429.
    curve: Option<Curve>,
    /// What was sent lately, per second.
    measured: f64,
    /// Sent since the measuring began.
    counted: f64,
    since: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Curve {
    /// The rate that was too much.
    too_much: f64,
    throttled: Timestamp,
    rate: f64,
    /// Requests that may go now; fills at `rate`, one second deep and at least one.
    level: f64,
    as_of: Timestamp,
}

impl Pace {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { curve: None, measured: 0.0, counted: 0.0, since: now }
    }

    /// May a request go?
    pub(crate) fn allows(&mut self, now: Timestamp) -> bool {
        let measured = self.measured;
        self.curve.as_mut().is_none_or(|curve| {
            curve.follow(measured, now);
            curve.level >= 1.0
        })
    }

    /// One goes.
    pub(crate) fn take(&mut self, now: Timestamp) {
        let elapsed = seconds(now.saturating_since(self.since));
        self.counted += 1.0;
        if elapsed >= MEASURED_EVERY {
            let rate = self.counted / elapsed;
            self.measured =
                if self.measured == 0.0 { rate } else { SMOOTH * rate + (1.0 - SMOOTH) * self.measured };
            (self.counted, self.since) = (0.0, now);
        }
        if let Some(curve) = &mut self.curve {
            curve.level -= 1.0;
        }
    }

    /// A 429.
    pub(crate) fn throttled(&mut self, now: Timestamp) {
        let sent = if self.measured > 0.0 { self.measured } else { self.counted.max(MIN_RATE) };
        let rate = match &self.curve {
            Some(curve) if now.saturating_since(curve.throttled) < EVENT => return,
            Some(curve) => sent.min(curve.rate),
            None => sent,
        };
        let cut = (rate * BETA).max(MIN_RATE);
        self.curve = Some(Curve { too_much: rate, throttled: now, rate: cut, level: 0.0, as_of: now });
    }

    /// When the `n`-th request from now could go.
    pub(crate) fn when(&self, n: u64) -> Timestamp {
        let Some(curve) = &self.curve else { return Timestamp::ZERO };
        let missing = n as f64 - curve.level;
        if missing <= 0.0 {
            return curve.as_of;
        }
        // Rounded up by a microsecond, so that whoever sleeps until then finds it there.
        curve.as_of + Duration::from_secs_f64((missing / curve.rate).min(1e9)) + Duration::from_micros(1)
    }
}

impl Curve {
    fn follow(&mut self, measured: f64, now: Timestamp) {
        let elapsed = seconds(now.saturating_since(self.as_of));
        if elapsed > 0.0 {
            self.level = (self.level + elapsed * self.rate).min(self.rate.max(1.0));
            self.as_of = now;
        }
        let t = seconds(now.saturating_since(self.throttled)) / EPOCH - 1.0;
        let grown = self.too_much * (1.0 + (1.0 - BETA) * t * t * t);
        self.rate = grown.min((2.0 * measured).max(self.rate)).max(MIN_RATE);
    }
}

fn seconds(span: Duration) -> f64 {
    span.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends whatever is allowed to a provider that takes `limit` per second, for `span` seconds; (sent, throttled).
    fn drive(pace: &mut Pace, limit: f64, from: u64, span: u64) -> (u32, u32) {
        let (mut level, mut sent, mut throttled) = (limit, 0, 0);
        for millis in (from * 1_000..(from + span) * 1_000).step_by(10) {
            let now = Timestamp::from_millis(millis);
            level = (level + limit / 100.0).min(limit.max(1.0));
            if pace.allows(now) {
                pace.take(now);
                sent += 1;
                if level >= 1.0 {
                    level -= 1.0;
                } else {
                    throttled += 1;
                    pace.throttled(now);
                }
            }
        }
        (sent, throttled)
    }

    #[test]
    fn nothing_is_held_back_before_the_first_429() {
        let mut pace = Pace::new(Timestamp::ZERO);
        for millis in 0..1_000 {
            let now = Timestamp::from_millis(millis);
            assert!(pace.allows(now));
            pace.take(now);
        }
        assert_eq!(pace.when(1_000_000), Timestamp::ZERO);
    }

    #[test]
    fn the_rate_settles_around_what_the_provider_takes_whatever_that_is() {
        for per_minute in [20.0, 60.0, 300.0, 1_200.0] {
            let limit = per_minute / 60.0;
            let mut pace = Pace::new(Timestamp::ZERO);
            drive(&mut pace, limit, 0, 120);
            let (sent, throttled) = drive(&mut pace, limit, 120, 1_200);
            let answered = f64::from(sent - throttled) / 1_200.0;
            assert!(answered > 0.75 * limit, "{answered} of {limit} per second");
            assert!(
                f64::from(throttled) / f64::from(sent) < 0.25,
                "{throttled} of {sent} at {per_minute}/min"
            );
        }
    }

    #[test]
    fn calls_throttled_together_are_one_event() {
        let mut pace = Pace::new(Timestamp::ZERO);
        for millis in 0..2_000 {
            pace.take(Timestamp::from_millis(millis));
        }
        (0..50).for_each(|_| pace.throttled(Timestamp::from_secs(2)));
        let rate = pace.curve.expect("throttled").rate;
        assert!((600.0..800.0).contains(&rate), "{rate}");
    }

    #[test]
    fn whoever_sleeps_until_its_moment_may_go() {
        let mut pace = Pace::new(Timestamp::ZERO);
        pace.take(Timestamp::ZERO);
        pace.throttled(Timestamp::from_secs(1));
        let at = pace.when(1);
        assert!(at > Timestamp::from_secs(1));
        assert!(pace.allows(at));
    }
}
