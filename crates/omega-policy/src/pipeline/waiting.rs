//! Those who wait: who is next, when a newcomer would be served, and who is refused after all.

use crate::breaker::{Gate, probe_retry};
use crate::limiter::Load;
use crate::queue::{Rank, Waiter};
use crate::{Admission, Call, Dimension, Event, Pipeline, Rejection, Ticket, Timestamp};

/// Before a queue of at most this many, a refusal names the exact moment: the queue is rehearsed call by call, a few dozen
/// instructions each. Before a longer one, or where tenants, priorities or later charges make it a forecast anyway, the
/// sums say it as well and cost the same however many wait.
const REHEARSED_MAX: usize = 64;

impl Pipeline {
    /// Is somebody in front of a newcomer? Those whose own model holds them back are not.
    pub(super) fn must_wait(&mut self, call: &Call, slot: usize, now: Timestamp) -> bool {
        if self.queue.is_empty() {
            return false;
        }
        let rank = self.queue.rank(call.priority, call.tenant, call.arrived.min(now));
        self.queue.is_behind(slot, &rank, now)
            || self.next_in_turn(now).is_some_and(|(first, _)| first < rank)
    }

    /// The first waiter that only the provider's limits can still hold back.
    pub(super) fn next_in_turn(&mut self, now: Timestamp) -> Option<(Rank, Ticket)> {
        let Self { queue, limiter, breakers, .. } = self;
        queue
            .heads(now)
            .filter(|(_, _, waiter)| {
                breakers.look(waiter.slot, now) == Gate::Pass
                    && limiter.model_fits(waiter.slot, waiter.load.reserve, now)
            })
            .map(|(rank, ticket, _)| (rank, ticket))
            .min()
    }

    /// Queues a call that cannot go now, or says why not. `not_before`: its circuit is open until then.
    pub(super) fn enqueue(
        &mut self,
        call: &Call,
        slot: usize,
        load: Load,
        not_before: Timestamp,
        now: Timestamp,
    ) -> Admission {
        let mut deadline = call.waits_until();
        let (mut earliest, dimension) = self.served_at(call, slot, load, now);
        let (slots_taken, full) =
            (self.limiter.slots_taken(slot), self.queue.len() >= self.limiter.max_queue());
        let waits_for_slot = slots_taken && earliest <= now;
        let dimension = if waits_for_slot { Dimension::Concurrency } else { dimension };
        if let Some(answer) = self.store_answers_by(earliest, slots_taken, now) {
            // Nobody is refused what is there before the store was asked for it, however little time he has.
            (earliest, deadline) = (now, deadline.max(answer.min(call.deadline)));
        } else if earliest > now || slots_taken || not_before <= now {
            self.note_limited(dimension, now);
        }
        let earliest = earliest.max(not_before);
        // Whoever may not wait at all is not served by a slot freed later either.
        let no_time = earliest > deadline || deadline <= now;
        if no_time || full {
            self.limiter.refused_total += 1;
            let expected = if slots_taken { self.limiter.slot_expected(self.queue.len(), now) } else { now };
            let (exact, dimension) = self.rehearsed_at(slot, load, now).unwrap_or((now, dimension));
            let earliest = earliest.max(exact).max(expected);
            return Admission::Rejected(match no_time {
                true => Rejection::DeadlineTooSoon { earliest, dimension },
                false => Rejection::QueueFull { earliest },
            });
        }
        let waiter = Waiter {
            model: call.model,
            slot,
            load,
            service: self.limiter.service(load),
            priority: call.priority,
            tenant: call.tenant,
            arrived: call.arrived.min(now),
            deadline,
            first_try: call.attempts == 0,
            stays: self.breakers.queues_when_open() && !call.alternative,
        };
        Admission::Queued(self.queue.push(waiter, now))
    }

    /// When a newcomer would be served behind those who wait, as far as quota decides.
    ///
    /// Waiters whose own model holds them back now are not in front of another model's call. They may come before it
    /// after all when their model lets them go: the forecast then was too early, never too late, so that nobody is
    /// refused who could be served. A retry stands in front of everybody who came after it, and is told so.
    fn served_at(&self, call: &Call, slot: usize, load: Load, now: Timestamp) -> (Timestamp, Dimension) {
        if call.attempts > 0 || self.queue.is_empty() {
            return self.limiter.served_at(slot, load, Load::default(), Load::default(), now);
        }
        let ahead = self.queue.ahead(
            call.priority,
            call.tenant,
            |lane, head| self.stands_ahead(lane, head, slot, now),
            now,
        );
        let own = self.queue.ahead(call.priority, call.tenant, |lane, _| lane == slot, now);
        self.limiter.served_at(slot, load, ahead, own, now)
    }

    /// Do the waiters of this lane take quota before a newcomer of `slot`? Its own do; others only while neither their
    /// circuit nor their model's limits hold them back.
    fn stands_ahead(&self, lane: usize, head: &Waiter, slot: usize, now: Timestamp) -> bool {
        lane == slot
            || (self.breakers.look(lane, now) == Gate::Pass
                && self.limiter.model_available(lane, head.load.reserve).is_some_and(|at| at <= now))
    }

    /// The exact moment at which a newcomer of a short queue would be served, and what it would wait for.
    fn rehearsed_at(&self, slot: usize, load: Load, now: Timestamp) -> Option<(Timestamp, Dimension)> {
        if self.queue.is_empty() || self.queue.len() > REHEARSED_MAX || self.limiter.charges_later() {
            return None;
        }
        let waiting = self.queue.first_come()?;
        let ahead = waiting.iter().filter(|(_, waiter)| self.stands_ahead(waiter.slot, waiter, slot, now));
        let ahead = ahead.map(|(_, waiter)| waiter.load.reserve);
        let own =
            waiting.iter().filter(|(_, waiter)| waiter.slot == slot).map(|(_, waiter)| waiter.load.reserve);
        Some(self.limiter.rehearse(slot, load.reserve, ahead, own, now))
    }

    pub(super) fn note_limited(&mut self, dimension: Dimension, now: Timestamp) {
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

    /// Refuses the waiters of open circuits and of models whose quota is spent. Who stays while a circuit is open, and
    /// has the time, is kept.
    pub(super) fn refuse_shut_lanes(&mut self, now: Timestamp) {
        let shut: Vec<(usize, Rejection)> = self
            .queue
            .lanes()
            .filter_map(|slot| match self.breakers.of(slot).gate(now, &mut self.events) {
                Gate::Shut(retry_at) if self.queue.outlasts(slot, retry_at) => None,
                Gate::Shut(retry_at) => Some((slot, Rejection::CircuitOpen { retry_at })),
                _ => self
                    .limiter
                    .blocked_until(slot, now)
                    .map(|until| (slot, Rejection::ModelBlocked { until })),
            })
            .collect();
        for (slot, why) in shut {
            let kept_until = match why {
                Rejection::CircuitOpen { retry_at } if self.breakers.queues_when_open() => Some(retry_at),
                _ => None,
            };
            let goes = |waiter: &Waiter| kept_until.is_none_or(|at| !waiter.stays || waiter.deadline < at);
            let lane = self.queue.lane(slot).filter(|(_, waiter)| goes(waiter));
            let tickets: Vec<Ticket> = lane.map(|(ticket, _)| ticket).collect();
            match why {
                Rejection::CircuitOpen { .. } => self.breakers.of(slot).count_refused(tickets.len() as u64),
                _ => self.limiter.refused_total += tickets.len() as u64,
            }
            tickets.into_iter().for_each(|ticket| self.queue.refuse(ticket, why.clone()));
            if let Some(until) = kept_until {
                self.queue.note_shut(slot, until);
            }
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
            let circuit = match self.breakers.look(waiter.slot, now) {
                Gate::Wait(deadline) => Some(probe_retry(deadline, now)),
                Gate::Shut(retry_at) => Some(retry_at),
                Gate::Pass => None,
            };
            if let Some(retry_at) = circuit {
                self.breakers.of(waiter.slot).count_refused(1);
                self.queue.refuse(ticket, Rejection::CircuitOpen { retry_at });
                continue;
            }
            // What a newcomer in its place would be told.
            let (mut earliest, mut dimension) =
                self.limiter.available(waiter.slot, waiter.load.reserve).unwrap_or_else(|| {
                    (self.limiter.slot_expected(self.queue.len(), now), Dimension::Concurrency)
                });
            if earliest <= now {
                let slot = waiter.slot;
                let counts = |lane: usize, head: &Waiter| self.stands_ahead(lane, head, slot, now);
                let ahead = self.queue.ahead(waiter.priority, waiter.tenant, counts, now);
                let own = self.queue.ahead(waiter.priority, waiter.tenant, |lane, _| lane == slot, now);
                (earliest, dimension) = self.limiter.served_at(slot, waiter.load, ahead, own, now);
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
