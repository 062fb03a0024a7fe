//! Who waits in vain: a newcomer is told so where the whole line is known, and in a fleet that is the store's answer.

use super::{Pool, seconds};
use crate::{BucketGrant, Dimension, Pipeline, Rejection, Ticket, Timestamp};

impl Pipeline {
    /// Refuses those whom a grant does not reach before their time.
    ///
    /// A process lets a newcomer wait by what it last heard of the fleet; others let theirs in meanwhile. Whoever turns
    /// out to stand too far back would hold what little it was given, and its place before others here, until its time is
    /// up: of a code service's calls, a fleet of sixteen lost 2 % to that (`omega simulate --load 1.2 --clients 16`).
    /// The order of service must be known, so this is only for those who wait first come, first served; nor is it for
    /// those who may hope for what calls in flight give back.
    pub(super) fn refuse_uncovered(
        &mut self,
        pool: Pool,
        dimension: Dimension,
        granted: &BucketGrant,
        now: Timestamp,
    ) {
        if self.queue.is_empty() || self.limiter.expects_returns() {
            return;
        }
        let Some(bucket) = self.limiter.bucket_mut(pool, dimension) else { return };
        let (mut covered, pace) = (bucket.holding(), bucket.pace());
        let is_in = |slot: usize| pool.is_none_or(|model| model.0 as usize == slot);
        let all: u64 = self
            .queue
            .lanes()
            .filter(|slot| is_in(*slot))
            .map(|slot| self.queue.waiting_in(slot).of(dimension))
            .sum();
        if all as f64 <= covered || pace <= 0.0 {
            return;
        }
        let Some(order) = self.queue.first_come() else { return };
        let line = (-granted.level).max(0.0);
        let mut late: Vec<(Ticket, Timestamp)> = Vec::new();
        // What those before it here still have to be given, behind everybody else's.
        let mut missing = 0.0;
        for (ticket, waiter) in order.into_iter().filter(|(_, waiter)| is_in(waiter.slot)) {
            let needs = waiter.load.of(dimension) as f64;
            if needs <= covered {
                covered -= needs;
                continue;
            }
            let rest = needs - covered;
            let comes = now + seconds((line + missing + rest) / pace);
            if comes > waiter.deadline {
                late.push((ticket, comes));
            } else {
                (covered, missing) = (0.0, missing + rest);
            }
        }
        self.limiter.refused_total += late.len() as u64;
        for (ticket, earliest) in late {
            self.queue.refuse(ticket, Rejection::DeadlineTooSoon { earliest, dimension });
        }
    }
}
