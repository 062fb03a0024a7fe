//! The provider, modelled: two buckets, a charge rule, and an answer to every call that reaches it.
//!
//! Written apart from the limiter it is used to judge: nothing is shared with `omega-policy` but the names of the
//! dimensions, so a mistake there cannot hide here.

use omega_policy::Dimension;

/// When tokens are charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Charge {
    /// Input and `max_tokens` when the call arrives, never returned.
    #[default]
    Estimate,
    /// The same, unused `max_tokens` returned at the end.
    Refund,
    /// Input when the call arrives, the real output at the end; the bucket may go below zero.
    Actual,
}

/// The provider's quota and manners.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Provider {
    /// Requests per minute.
    pub requests_per_minute: u64,
    /// Tokens per minute.
    pub tokens_per_minute: u64,
    /// How many seconds of quota may be spent at once.
    pub burst_seconds: f64,
    /// When tokens are charged.
    pub charge: Charge,
    /// A rejected call takes nothing. Otherwise it takes one request like any other.
    pub free_429: bool,
    /// Neither limit headers, nor word of which bucket was empty, nor a documented burst.
    pub blind: bool,
}

/// A rejected call is answered after this long.
pub(crate) const THROTTLED_AFTER: u64 = 80_000_000;

/// Units in one token: the nanoseconds of a minute, so that a limit of `n` per minute adds `n` units per nanosecond.
const UNITS: i128 = 60_000_000_000;

/// A bucket of the provider.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    per_minute: i128,
    level: i128,
    capacity: i128,
    as_of: u64,
}

impl Bucket {
    pub(crate) fn full(per_minute: u64, burst_seconds: f64) -> Self {
        let per_minute = i128::from(per_minute.max(1));
        let burst = (burst_seconds * 1e9).round() as i128;
        // A bucket that cannot hold one token could never let anything through.
        let capacity = (per_minute * burst).max(UNITS);
        Self { per_minute, level: capacity, capacity, as_of: 0 }
    }

    pub(crate) fn refill(&mut self, now: u64) {
        let gained = self.per_minute * i128::from(now.saturating_sub(self.as_of));
        self.level = (self.level + gained).min(self.capacity);
        self.as_of = self.as_of.max(now);
    }

    /// A call larger than the whole bucket passes when the bucket is full: otherwise a provider that enforces by the
    /// second could never serve a long prompt that is well within the minute.
    pub(crate) fn fits(&self, amount: u64) -> bool {
        self.level >= self.needed(amount)
    }

    /// Nanoseconds until `amount` would fit if nothing else came; rounded up.
    pub(crate) fn wait(&self, amount: u64) -> u64 {
        let missing = self.needed(amount) - self.level;
        if missing <= 0 {
            0
        } else {
            u64::try_from((missing + self.per_minute - 1) / self.per_minute).unwrap_or(u64::MAX)
        }
    }

    pub(crate) fn take(&mut self, amount: u64) {
        self.level -= i128::from(amount) * UNITS;
    }

    pub(crate) fn give(&mut self, amount: u64) {
        self.level = (self.level + i128::from(amount) * UNITS).min(self.capacity);
    }

    /// Takes one if it is there; what is not there cannot be taken.
    fn take_one_of_what_is_left(&mut self) {
        self.level = (self.level - UNITS).max(self.level.min(0));
    }

    /// Whole tokens left.
    pub(crate) fn remaining(&self) -> u64 {
        u64::try_from(self.level.div_euclid(UNITS)).unwrap_or(0)
    }

    fn needed(&self, amount: u64) -> i128 {
        (i128::from(amount) * UNITS).min(self.capacity)
    }
}

/// What one request costs here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bill {
    /// Tokens taken when the call arrives.
    pub(crate) at_arrival: u64,
    /// Tokens taken when it ends.
    pub(crate) at_end: u64,
    /// Tokens given back when it ends.
    pub(crate) back: u64,
}

impl Bill {
    /// Of a call that is answered. `output` never exceeds `max_tokens`.
    pub(crate) fn of(charge: Charge, input: u32, output: u32, max_tokens: u32) -> Self {
        let (input, output, most) = (u64::from(input), u64::from(output), u64::from(max_tokens));
        match charge {
            Charge::Estimate => Self { at_arrival: input + most, at_end: 0, back: 0 },
            Charge::Refund => Self { at_arrival: input + most, at_end: 0, back: most - output.min(most) },
            Charge::Actual => Self { at_arrival: input, at_end: output, back: 0 },
        }
    }

    /// What it comes to.
    pub(crate) fn net(self) -> u64 {
        self.at_arrival + self.at_end - self.back
    }
}

/// What the provider's headers say: its buckets when the call was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) requests: u64,
    pub(crate) tokens: u64,
}

/// A call that did not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Throttled {
    /// Whole seconds, rounded up.
    pub(crate) retry_after: u32,
    /// The bucket that takes longest to hold enough.
    pub(crate) exhausted: Dimension,
}

/// The provider while it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upstream {
    provider: Provider,
    requests: Bucket,
    tokens: Bucket,
}

impl Upstream {
    pub(crate) fn new(provider: Provider) -> Self {
        Self {
            provider,
            requests: Bucket::full(provider.requests_per_minute, provider.burst_seconds),
            tokens: Bucket::full(provider.tokens_per_minute, provider.burst_seconds),
        }
    }

    /// A call of `tokens` arrives: taken, or not.
    pub(crate) fn arrive(&mut self, tokens: u64, now: u64) -> Result<(), Throttled> {
        self.refill(now);
        if self.fits(tokens) {
            self.requests.take(1);
            self.tokens.take(tokens);
            return Ok(());
        }
        let (requests, wait) = (self.requests.wait(1), self.tokens.wait(tokens));
        let exhausted = if requests > wait { Dimension::Requests } else { Dimension::Tokens };
        if !self.provider.free_429 {
            self.requests.take_one_of_what_is_left();
        }
        let retry_after = requests.max(wait).div_ceil(1_000_000_000).clamp(1, u64::from(u32::MAX)) as u32;
        Err(Throttled { retry_after, exhausted })
    }

    /// A call ended.
    pub(crate) fn settle(&mut self, bill: Bill, now: u64) {
        self.refill(now);
        self.tokens.take(bill.at_end);
        self.tokens.give(bill.back);
    }

    /// Both buckets, as headers would show them.
    pub(crate) fn headers(&self) -> Option<Headers> {
        (!self.provider.blind)
            .then(|| Headers { requests: self.requests.remaining(), tokens: self.tokens.remaining() })
    }

    pub(crate) fn refill(&mut self, now: u64) {
        self.requests.refill(now);
        self.tokens.refill(now);
    }

    /// Refill first.
    pub(crate) fn fits(&self, tokens: u64) -> bool {
        self.requests.fits(1) && self.tokens.fits(tokens)
    }

    /// Nanoseconds from the last refill until a call of `tokens` fits, if nothing else happens.
    pub(crate) fn wait(&self, tokens: u64) -> u64 {
        self.requests.wait(1).max(self.tokens.wait(tokens))
    }
}

#[cfg(test)]
mod tests;
