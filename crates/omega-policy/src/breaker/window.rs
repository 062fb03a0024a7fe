//! A sliding window of shares: ten buckets, counted exactly.
//!
//! Exact buckets and not a decaying average: an average weighted by time between arrivals gives each call of a tight
//! burst almost no weight and can hide a total outage (why linkerd replaced its own).

use std::time::Duration;

use crate::Timestamp;
use crate::time::nanos;

const BUCKETS: usize = 10;

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    bad: u64,
    all: u64,
}

/// The share of bad calls lately.
#[derive(Debug)]
pub(crate) struct RateWindow {
    /// Nanoseconds per bucket.
    width: u64,
    /// The number, since the origin of time, of the bucket now being filled.
    head: u64,
    buckets: [Count; BUCKETS],
    total: Count,
}

impl RateWindow {
    pub(crate) fn new(length: Duration, now: Timestamp) -> Self {
        let width = (nanos(length) / BUCKETS as u64).max(1);
        let (buckets, total) = Default::default();
        Self { width, head: now.as_nanos() / width, buckets, total }
    }

    pub(crate) fn record(&mut self, bad: bool, now: Timestamp) {
        self.advance(now);
        let bucket = &mut self.buckets[(self.head % BUCKETS as u64) as usize];
        for count in [bucket, &mut self.total] {
            count.all += 1;
            count.bad += u64::from(bad);
        }
    }

    /// Are at least `percent` of at least `min_calls` calls bad? An empty window never is.
    pub(crate) fn reaches(&self, percent: u32, min_calls: u32) -> bool {
        let Count { bad, all } = self.total;
        // In integers, so that the boundary is the boundary.
        all >= u64::from(min_calls.max(1)) && u128::from(bad) * 100 >= u128::from(percent) * u128::from(all)
    }

    pub(crate) fn bad_calls(&self) -> u32 {
        u32::try_from(self.total.bad).unwrap_or(u32::MAX)
    }

    pub(crate) fn clear(&mut self, now: Timestamp) {
        self.buckets = Default::default();
        self.total = Count::default();
        self.head = self.head.max(now.as_nanos() / self.width);
    }

    /// Forgets the buckets that have left the window. A clock that stepped back stays in the present bucket.
    fn advance(&mut self, now: Timestamp) {
        let head = now.as_nanos() / self.width;
        let gone = head.saturating_sub(self.head);
        if gone >= BUCKETS as u64 {
            self.clear(now);
            return;
        }
        for step in 1..=gone {
            let bucket = &mut self.buckets[((self.head + step) % BUCKETS as u64) as usize];
            self.total.all -= bucket.all;
            self.total.bad -= bucket.bad;
            *bucket = Count::default();
        }
        self.head = self.head.max(head);
    }
}
