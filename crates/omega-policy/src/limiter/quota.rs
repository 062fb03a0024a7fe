//! The buckets of one scope, asked and taken together.

use std::time::Duration;

use super::Moved;
use crate::bucket::{Keep, TokenBucket};
use crate::{Dimension, ModelLimits, Timestamp, TokenLimits};

/// What one call takes: one request and these tokens, as the provider counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) requests: u64,
    pub(crate) input: u64,
    pub(crate) output: u64,
}

impl Cost {
    pub(crate) fn of_call(input: u64, output: u64) -> Self {
        Self { requests: 1, input, output }
    }

    pub(crate) fn tokens(self) -> u64 {
        self.input.saturating_add(self.output)
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
        }
    }

    /// Undoes [`Cost::plus`]. Sums of a bounded queue of costs near `u64::MAX` may have saturated; they then err low,
    /// which only makes a forecast too early.
    pub(crate) fn less(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            input: self.input.saturating_sub(other.input),
            output: self.output.saturating_sub(other.output),
        }
    }

    /// What it takes of each flowing dimension, in their order.
    fn amounts(self) -> [u64; 4] {
        [self.requests, self.tokens(), self.input, self.output]
    }
}

/// What a call takes when it is let go, and what it will have taken in the end.
///
/// The two differ only in output: a provider that gives back unused `max_tokens` takes more at first, one that counts
/// output as it is written takes less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Taken when it is let go.
    pub(crate) reserve: Cost,
    /// The output it is expected to have been charged for in the end.
    pub(crate) output: u64,
}

impl Load {
    /// What is taken of one dimension when it is let go.
    pub(crate) fn of(self, dimension: Dimension) -> u64 {
        slot(dimension).map_or(0, |slot| self.reserve.amounts()[slot])
    }

    /// What it comes to in the end.
    pub(crate) fn net(self) -> Cost {
        Cost { output: self.output, ..self.reserve }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { reserve: self.reserve.plus(other.reserve), output: self.output.saturating_add(other.output) }
    }

    /// Output tokens to be charged beyond the reservation; negative: to be given back.
    pub(crate) fn due(self) -> i128 {
        i128::from(self.output) - i128::from(self.reserve.output)
    }

    /// Undoes [`Load::plus`]; see [`Cost::less`].
    pub(crate) fn less(self, other: Self) -> Self {
        Self { reserve: self.reserve.less(other.reserve), output: self.output.saturating_sub(other.output) }
    }

    /// The part `of / whole` of it, rounded up.
    pub(crate) fn part(self, of: u64, whole: u64) -> Self {
        if of >= whole {
            return self;
        }
        let cut = |amount: u64| {
            let share = (u128::from(amount) * u128::from(of)).div_ceil(u128::from(whole));
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        let Cost { requests, input, output } = self.reserve;
        let reserve = Cost { requests: cut(requests), input: cut(input), output: cut(output) };
        Self { reserve, output: cut(self.output) }
    }
}

/// The dimensions that flow, in the order of [`Quotas`].
const FLOWING: [Dimension; 4] =
    [Dimension::Requests, Dimension::Tokens, Dimension::InputTokens, Dimension::OutputTokens];

/// Up to four buckets. An absent one does not limit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quotas([Option<TokenBucket>; 4]);

impl Quotas {
    pub(crate) fn new(
        requests: Option<u64>,
        tokens: TokenLimits,
        burst: Duration,
        margin: Duration,
        now: Timestamp,
    ) -> Self {
        let bucket = |limit: Option<u64>| limit.map(|limit| TokenBucket::new(limit, burst, margin, now));
        let (total, input, output) = match tokens {
            TokenLimits::Total(total) => (total, None, None),
            TokenLimits::Split { input, output } => (None, input, output),
        };
        Self([bucket(requests), bucket(total), bucket(input), bucket(output)])
    }

    pub(crate) fn of_model(limits: &ModelLimits, burst: Duration, margin: Duration, now: Timestamp) -> Self {
        Self::new(
            limits.requests_per_minute,
            TokenLimits::Total(limits.tokens_per_minute),
            burst,
            margin,
            now,
        )
    }

    /// These buckets under other limits. One that was there keeps its level; a new one begins with what `spent` leaves.
    pub(crate) fn reconfigured(&self, fresh: &Self, spent: Cost, now: Timestamp) -> Self {
        let mut next = fresh.clone();
        for (dimension, (bucket, before)) in FLOWING.iter().zip(next.0.iter_mut().zip(&self.0)) {
            let Some(bucket) = bucket else { continue };
            match before {
                Some(before) => {
                    let mut before = before.clone();
                    before.refill(now);
                    before.resize_if_changed(bucket);
                    *bucket = before;
                }
                None if *dimension == Dimension::Requests => bucket.take(spent.requests),
                None => bucket.take(spent.input),
            }
        }
        next
    }

    pub(crate) fn bucket(&self, dimension: Dimension) -> Option<&TokenBucket> {
        self.0[slot(dimension)?].as_ref()
    }

    pub(crate) fn bucket_mut(&mut self, dimension: Dimension) -> Option<&mut TokenBucket> {
        self.0[slot(dimension)?].as_mut()
    }

    /// Puts a bucket in place, or leaves the one that is there.
    pub(crate) fn bucket_or_insert(
        &mut self,
        dimension: Dimension,
        bucket: TokenBucket,
    ) -> Option<&mut TokenBucket> {
        Some(self.0[slot(dimension)?].get_or_insert(bucket))
    }

    /// Puts in place what is missing here and is there in `others`, as it stands there.
    pub(crate) fn complete_from(&mut self, others: &Self) {
        for (bucket, other) in self.0.iter_mut().zip(&others.0) {
            if bucket.is_none() {
                *bucket = other.as_ref().map(TokenBucket::alone);
            }
        }
    }

    /// Takes away the buckets whose moment has come. Is any left?
    pub(crate) fn expire(&mut self, until: &[Timestamp; 4], now: Timestamp) -> bool {
        let mut left = false;
        for (bucket, until) in self.0.iter_mut().zip(until) {
            if *until <= now {
                *bucket = None;
            }
            left |= bucket.is_some();
        }
        left
    }

    /// The buckets there are.
    pub(crate) fn present(&self) -> impl Iterator<Item = (Dimension, &TokenBucket)> {
        FLOWING.iter().zip(&self.0).filter_map(|(dimension, bucket)| Some((*dimension, bucket.as_ref()?)))
    }

    /// The same, to be changed.
    pub(crate) fn present_mut(&mut self) -> impl Iterator<Item = (Dimension, &mut TokenBucket)> {
        let all = FLOWING.iter().zip(&mut self.0);
        all.filter_map(|(dimension, bucket)| Some((*dimension, bucket.as_mut()?)))
    }

    pub(crate) fn limit(&self, dimension: Dimension) -> Option<u64> {
        self.bucket(dimension).map(TokenBucket::limit)
    }

    /// Could `cost` be taken from every bucket now?
    pub(crate) fn fits(&mut self, cost: Cost, now: Timestamp) -> bool {
        let mut fits = true;
        for (bucket, amount) in self.each(cost) {
            bucket.refill(now);
            fits &= bucket.fits(amount);
        }
        fits
    }

    pub(crate) fn take(&mut self, cost: Cost) {
        self.each(cost).for_each(|(bucket, amount)| bucket.take(amount));
    }

    /// Exchanges what was reserved for what was charged.
    pub(crate) fn settle(&mut self, reserved: Cost, charged: Cost, now: Timestamp) {
        for ((bucket, before), after) in self.0.iter_mut().zip(reserved.amounts()).zip(charged.amounts()) {
            let Some(bucket) = bucket else { continue };
            if before != after {
                bucket.refill(now);
                if after < before {
                    bucket.refund(before - after);
                } else {
                    bucket.owe(after - before);
                }
            }
        }
    }

    /// When `cost` could be taken from every bucket if nobody else took, and what it would wait for last.
    pub(crate) fn available(&self, cost: Cost) -> (Timestamp, Dimension) {
        self.available_while(cost, &[Timestamp::MAX; 4])
    }

    /// The same if each bucket is there only until its own moment.
    pub(crate) fn available_while(&self, cost: Cost, until: &[Timestamp; 4]) -> (Timestamp, Dimension) {
        let mut latest = (Timestamp::ZERO, Dimension::Requests);
        let buckets = FLOWING.iter().zip(&self.0).zip(until);
        for (((dimension, bucket), until), amount) in buckets.zip(cost.amounts()) {
            let Some(bucket) = bucket else { continue };
            let at = bucket.when_available(amount).unwrap_or(Timestamp::MAX).min(*until);
            if at > latest.0 {
                latest = (at, *dimension);
            }
        }
        latest
    }

    /// Starts with a part of what `whole` has now.
    pub(crate) fn inherit(&mut self, whole: &mut Self, thousandths: u32, now: Timestamp) {
        for (own, all) in self.0.iter_mut().zip(&mut whole.0) {
            if let (Some(own), Some(all)) = (own, all) {
                all.refill(now);
                own.inherit(all, thousandths);
            }
        }
    }

    /// Is nothing limited?
    pub(crate) fn is_unlimited(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// A call went through.
    pub(crate) fn went_through(&mut self, cost: Cost) {
        self.each(cost).for_each(|(bucket, amount)| bucket.was_not_too_much(amount));
    }

    /// The tightest token limit.
    pub(crate) fn roomy(&self) -> u64 {
        self.0[1..].iter().flatten().map(TokenBucket::limit).min().unwrap_or(u64::MAX)
    }

    /// The limit that `cost` exceeds, if no wait would help. `shares`: how many of these limits the whole quota holds.
    pub(crate) fn exceeded(&self, cost: Cost, shares: u32) -> Option<(Dimension, u64, u64)> {
        FLOWING.iter().zip(&self.0).zip(cost.amounts()).find_map(|((dimension, bucket), requested)| {
            let limit = bucket.as_ref()?.limit();
            (requested > limit.saturating_mul(shares.max(1).into())).then_some((*dimension, limit, requested))
        })
    }

    /// Lets `cost` through at the first moment at or after `from` at which it fits, and says when that is. A rehearsal
    /// on a copy: how long a queue takes.
    pub(crate) fn pass(&mut self, cost: Cost, from: Timestamp) -> (Timestamp, Option<Dimension>) {
        let (at, dimension) = self.available(cost);
        let waited = (at > from).then_some(dimension);
        let at = at.max(from);
        if at < Timestamp::MAX {
            self.fits(cost, at);
            self.take(cost);
        }
        (at, waited)
    }

    /// Charges everything that stands before a newcomer, and foresees what calls in flight are still charged or given
    /// back while it waits. Refill first.
    ///
    /// - `due`: what calls in flight will be charged beyond their reservations, in output tokens; negative: given back.
    /// - `hold`: how long a call lately took, in nanoseconds.
    ///
    /// While a queue is worked off, as much is outstanding at its end as one call's length of traffic carries. Only
    /// what is outstanding now beyond that comes in (or goes out) during the wait, and of a wait shorter than a call
    /// only that part of it.
    pub(crate) fn foresee(&mut self, ahead: Load, newcomer: Load, due: i128, hold: u64) {
        let net = ahead.net();
        let all = ahead.plus(newcomer);
        let later = i128::from(all.output) - i128::from(all.reserve.output);
        let amounts =
            FLOWING.iter().zip(net.amounts()).zip(all.net().amounts()).zip(newcomer.reserve.amounts());
        for ((((dimension, ahead), whole), own), bucket) in amounts.zip(&mut self.0) {
            let Some(bucket) = bucket else { continue };
            bucket.take(ahead);
            if holds_output(*dimension) && (due != 0 || later != 0) {
                bucket.foresee(own, later, whole, due, hold);
            }
        }
    }

    /// Empties the buckets a throttled call found empty, or, if it did not say, leaves so little in each that what
    /// follows is paced. They fill again from `from`.
    pub(crate) fn drain(&mut self, exhausted: Option<Dimension>, now: Timestamp, from: Timestamp) {
        use Dimension::{Concurrency, InputTokens, OutputTokens, Requests, Tokens};
        for (dimension, bucket) in FLOWING.iter().zip(&mut self.0) {
            let Some(bucket) = bucket else { continue };
            let keep = match (exhausted, *dimension) {
                (Some(Concurrency), _) => continue,
                (Some(named), dimension) if named == dimension => Keep::Nothing,
                (Some(Tokens), InputTokens | OutputTokens) => Keep::Nothing,
                (Some(InputTokens | OutputTokens), Tokens) => Keep::Nothing,
                (Some(_), _) => continue,
                (None, Requests) => Keep::Tokens(1),
                (None, _) => Keep::Seconds(1),
            };
            bucket.refill(now);
            bucket.drain(keep, from);
        }
    }

    /// A call that took `cost` was throttled although there was room by our own count: the bucket it found empty is not
    /// as deep as was thought. `since`: what has moved since it was let go.
    ///
    /// A provider that does not say which bucket it was enforces all of its limits over the same span, as far as is
    /// known: the span is shorter than the longest that any of the buckets had been spent ahead.
    pub(crate) fn surprised(
        &mut self,
        cost: Cost,
        exhausted: Option<Dimension>,
        since: impl Fn(Dimension) -> Moved,
        now: Timestamp,
    ) {
        use Dimension::{InputTokens, OutputTokens, Tokens};
        let meant = |dimension: Dimension| match (exhausted, dimension) {
            (None, _) | (Some(Tokens), InputTokens | OutputTokens) => true,
            (Some(InputTokens | OutputTokens), Tokens) => true,
            (Some(named), dimension) => named == dimension,
        };
        let mut ahead = Duration::ZERO;
        for (dimension, bucket) in FLOWING.iter().zip(&mut self.0) {
            if let Some(bucket) = bucket.as_mut().filter(|_| meant(*dimension)) {
                bucket.refill(now);
                ahead = ahead.max(bucket.spent_ahead(&since(*dimension)));
            }
        }
        for ((dimension, bucket), amount) in FLOWING.iter().zip(&mut self.0).zip(cost.amounts()) {
            if let Some(bucket) = bucket.as_mut().filter(|_| meant(*dimension)) {
                bucket.was_too_much(amount, ahead);
            }
        }
    }

    fn each(&mut self, cost: Cost) -> impl Iterator<Item = (&mut TokenBucket, u64)> {
        let amounts = self.0.iter_mut().zip(cost.amounts());
        amounts.filter_map(|(bucket, amount)| bucket.as_mut().map(|bucket| (bucket, amount)))
    }
}

/// Does output count against it?
pub(crate) fn holds_output(dimension: Dimension) -> bool {
    matches!(dimension, Dimension::Tokens | Dimension::OutputTokens)
}

/// Where the bucket of `dimension` stands; nowhere for one that does not flow.
pub(crate) fn slot(dimension: Dimension) -> Option<usize> {
    FLOWING.iter().position(|flowing| *flowing == dimension)
}
