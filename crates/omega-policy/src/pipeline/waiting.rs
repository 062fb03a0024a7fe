//! Those who wait: who is next, when a newcomer would be served, and who is refused after all.

use crate::breaker::{Gate, probe_retry};
use crate::limiter::Cost;
use crate::queue::Waiter;
use crate::{Admission, Call, Dimension, Event, Pipeline, Rejection, Ticket, Timestamp};

/// A queue of at most this many is rehearsed call by call to say when a newcomer would be served (a few dozen
/// instructions each, so at most some 20 microseconds in all); of a longer one the sums are taken, which is as exact
/// while one limit binds and costs the same however many wait.
const REHEARSED_MAX: usize = 256;

impl Pipeline {
    /// Is somebody in front of a newcomer of this model? Those whose own model holds them back are not.
    pub(super) fn must_wait(&mut self, slot: usize, now: Timestamp) -> bool {
        !self.queue.is_empty() && (self.queue.has_lane(slot) || self.next_in_turn(now).is_some())
    }

    /// The oldest waiter that only the provider's limits can still hold back.
    pub(super) fn next_in_turn(&mut self, now: Timestamp) -> Option<Ticket> {
        let Self { queue, limiter, breakers, .. } = self;
        queue
            .lane_heads()
            .filter(|(_, waiter)| {
                breakers.look(waiter.slot, now) == Gate::Pass
                    && limiter.model_fits(waiter.slot, waiter.cost, now)
            })
            .map(|(ticket, _)| ticket)
            .min()
    }

    /// Queues a call that cannot go now, or says why not.
    pub(super) fn enqueue(&mut self, call: &Call, slot: usize, cost: Cost, now: Timestamp) -> Admission {
        let deadline = if call.attempts == 0 { call.admit_by.min(call.deadline) } else { call.deadline };
        let (earliest, dimension) = self.served_at(slot, cost, now);
        let (slots_taken, full) =
            (self.limiter.slots_taken(slot), self.queue.len() >= self.limiter.max_queue());
        let waits_for_slot = slots_taken && earliest <= now;
        let dimension = if waits_for_slot { Dimension::Concurrency } else { dimension };
        self.note_limited(dimension, now);
        // Whoever may not wait at all is not served by a slot freed later either.
        let no_time = earliest > deadline || deadline <= now;
        if no_time || full {
            self.limiter.refused_total += 1;
            let expected = if slots_taken { self.limiter.slot_expected(self.queue.len(), now) } else { now };
            let earliest = earliest.max(expected);
            return Admission::Rejected(match no_time {
                true => Rejection::DeadlineTooSoon { earliest, dimension },
                false => Rejection::QueueFull { earliest },
            });
        }
        let waiter = Waiter { model: call.model, slot, cost, deadline, first_try: call.attempts == 0 };
        Admission::Queued(self.queue.push(waiter))
    }

    /// When a newcomer would be served behind those who wait, as far as quota decides.
    ///
    /// Waiters whose own model holds them back now are not in front of another model's call. They may come before it
    /// after all when their model lets them go: the forecast then was too early, never too late, so that nobody is
    /// refused who could be served.
    fn served_at(&self, slot: usize, cost: Cost, now: Timestamp) -> (Timestamp, Dimension) {
        let ahead = |waiter: &Waiter| {
            waiter.slot == slot
                || self.limiter.model_available(waiter.slot, waiter.cost).is_some_and(|at| at <= now)
        };
        if self.queue.len() <= REHEARSED_MAX {
            let all = self.queue.iter().filter(|waiter| ahead(waiter)).map(|waiter| waiter.cost);
            let own = self.queue.lane(slot).map(|(_, waiter)| waiter.cost);
            self.limiter.served_at(slot, cost, all, own, now)
        } else {
            let heads = self.queue.lane_heads().filter(|(_, head)| ahead(head));
            let sums = heads.filter_map(|(_, head)| self.queue.lane_sum(head.slot));
            let own = self.queue.lane_sum(slot).into_iter();
            self.limiter.served_after(slot, cost, sums, own, now)
        }
    }

    fn note_limited(&mut self, dimension: Dimension, now: Timestamp) {
        if !self.limited {
            self.limited = true;
            let (requests_last_minute, tokens_last_minute) = self.limiter.last_minute(now);
            self.events.push(Event::LimitHit {
                dimension,
                requests_last_minute,
                tokens_last_minute,
                at: now,
            });
        }
    }

    /// Refuses the waiters of open circuits and of models whose quota is spent.
    pub(super) fn refuse_shut_lanes(&mut self, now: Timestamp) {
        let shut: Vec<(usize, Rejection)> = self
            .queue
            .lanes()
            .filter_map(|slot| match self.breakers.of(slot).gate(now, &mut self.events) {
                Gate::Shut(retry_at) => Some((slot, Rejection::CircuitOpen { retry_at })),
                _ => self
                    .limiter
                    .blocked_until(slot, now)
                    .map(|until| (slot, Rejection::ModelBlocked { until })),
            })
            .collect();
        for (slot, why) in shut {
            let tickets: Vec<Ticket> = self.queue.lane(slot).map(|(ticket, _)| ticket).collect();
            match why {
                Rejection::CircuitOpen { .. } => self.breakers.of(slot).count_refused(tickets.len() as u64),
                _ => self.limiter.refused_total += tickets.len() as u64,
            }
            tickets.into_iter().for_each(|ticket| self.queue.refuse(ticket, why.clone()));
        }
    }

    /// Refuses the waiters whose time is up, or certainly will be before anything can be granted again: a pause that
    /// outlasts them is not waited out only to be told so at its end.
    pub(super) fn refuse_late(&mut self, now: Timestamp) {
        while let Some((deadline, ticket)) = self.queue.next_deadline() {
            let Some(waiter) = self.queue.get(ticket).copied() else { return };
            if deadline >= now && deadline >= self.limiter.provider_paused_until() {
                return;
            }
            if let Gate::Wait(deadline) = self.breakers.look(waiter.slot, now) {
                let retry_at = probe_retry(deadline, now);
                self.breakers.of(waiter.slot).count_refused(1);
                self.queue.refuse(ticket, Rejection::CircuitOpen { retry_at });
                continue;
            }
            // What a newcomer in its place would be told.
            let (mut earliest, mut dimension) =
                self.limiter.available(waiter.slot, waiter.cost).unwrap_or_else(|| {
                    (self.limiter.slot_expected(self.queue.len(), now), Dimension::Concurrency)
                });
            if earliest <= now {
                (earliest, dimension) = self.served_at(waiter.slot, waiter.cost, now);
            }
            let earliest = earliest.max(self.limiter.provider_paused_until());
            self.limiter.refused_total += 1;
            self.queue.refuse(ticket, Rejection::DeadlineTooSoon { earliest, dimension });
        }
    }

    /// The same for a model that was just paused. Later ones are refused when they arrive.
    pub(super) fn refuse_paused(&mut self, slot: usize, now: Timestamp) {
        let earliest = self.limiter.model_paused_until(slot);
        if earliest <= now {
            return;
        }
        let lane = self.queue.lane(slot).filter(|(_, waiter)| waiter.deadline < earliest);
        let doomed: Vec<Ticket> = lane.map(|(ticket, _)| ticket).collect();
        self.limiter.refused_total += doomed.len() as u64;
        for ticket in doomed {
            self.queue
                .refuse(ticket, Rejection::DeadlineTooSoon { earliest, dimension: Dimension::Requests });
        }
    }
}
