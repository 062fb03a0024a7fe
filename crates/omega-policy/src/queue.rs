//! Who waits, and in what order.
//!
//! First come, first served, granted at the head: nothing is booked for those who wait, so whoever leaves gives its
//! place to the next at once. Waiters stand in one lane per model, because a model that is paused or has spent its own
//! limits must hold up nobody else; among the lanes that may go, the oldest head is *the* head, and blocks the rest
//! until it fits, so that a large call is never starved by small ones. Every operation is logarithmic in the waiters.
//!
//! The queue knows order and deadlines and nothing of limits: who may go is asked by the pipeline.

use std::collections::{BTreeMap, BTreeSet};

use crate::limiter::Cost;
use crate::{ModelId, Rejection, Ticket, Timestamp};

/// A call that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) model: ModelId,
    /// Where the limiter keeps that model's state; also the lane.
    pub(crate) slot: usize,
    pub(crate) cost: Cost,
    /// Refused when it has not been granted by then.
    pub(crate) deadline: Timestamp,
    /// Is it a call's first attempt?
    pub(crate) first_try: bool,
}

#[derive(Debug, Default)]
struct Lane {
    order: BTreeSet<u64>,
    /// What all of them need together.
    sum: Cost,
}

/// Everybody who waits for one credential.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiters: BTreeMap<u64, Waiter>,
    lanes: BTreeMap<usize, Lane>,
    deadlines: BTreeSet<(Timestamp, u64)>,
    /// Refused while waiting, and not told yet; whoever waited longest is told first. By number, because a refused
    /// waiter may still go away, and thousands may at once.
    refused: BTreeMap<u64, Rejection>,
    /// The number of the next ticket; also how many ever waited.
    next: u64,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Nobody waits (there may be refusals to tell).
    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Has nobody anything to wait for or to be told?
    pub(crate) fn is_idle(&self) -> bool {
        self.waiters.is_empty() && self.refused.is_empty()
    }

    /// How many ever waited.
    pub(crate) fn total(&self) -> u64 {
        self.next
    }

    pub(crate) fn push(&mut self, waiter: Waiter) -> Ticket {
        let number = self.next;
        self.next += 1;
        let lane = self.lanes.entry(waiter.slot).or_default();
        lane.order.insert(number);
        lane.sum = lane.sum.plus(waiter.cost);
        self.deadlines.insert((waiter.deadline, number));
        self.waiters.insert(number, waiter);
        Ticket(number)
    }

    /// Takes a waiter out, whatever its place.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.waiters.remove(&ticket.0)?;
        self.deadlines.remove(&(waiter.deadline, ticket.0));
        if let Some(lane) = self.lanes.get_mut(&waiter.slot) {
            lane.order.remove(&ticket.0);
            lane.sum = lane.sum.less(waiter.cost);
            if lane.order.is_empty() {
                self.lanes.remove(&waiter.slot);
            }
        }
        Some(waiter)
    }

    /// Takes a waiter out and remembers why, until it is told.
    pub(crate) fn refuse(&mut self, ticket: Ticket, why: Rejection) {
        if self.remove(ticket).is_some() {
            self.refused.insert(ticket.0, why);
        }
    }

    /// The next refusal to tell.
    pub(crate) fn pop_refused(&mut self) -> Option<(Ticket, Rejection)> {
        self.refused.pop_first().map(|(number, why)| (Ticket(number), why))
    }

    pub(crate) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// A waiter goes away by itself: also forgets a refusal it was not told.
    pub(crate) fn leave(&mut self, ticket: Ticket) {
        if self.remove(ticket).is_none() {
            self.refused.remove(&ticket.0);
        }
    }

    /// The one who has waited longest.
    pub(crate) fn oldest(&self) -> Option<Ticket> {
        self.waiters.first_key_value().map(|(number, _)| Ticket(*number))
    }

    pub(crate) fn get(&self, ticket: Ticket) -> Option<&Waiter> {
        self.waiters.get(&ticket.0)
    }

    /// The first of each lane.
    pub(crate) fn lane_heads(&self) -> impl Iterator<Item = (Ticket, &Waiter)> {
        self.lanes.values().filter_map(|lane| {
            let number = lane.order.first()?;
            Some((Ticket(*number), self.waiters.get(number)?))
        })
    }

    /// Everybody in one lane, first come first.
    pub(crate) fn lane(&self, slot: usize) -> impl Iterator<Item = (Ticket, &Waiter)> {
        let order = self.lanes.get(&slot).map(|lane| lane.order.iter());
        order.into_iter().flatten().filter_map(|number| Some((Ticket(*number), self.waiters.get(number)?)))
    }

    pub(crate) fn has_lane(&self, slot: usize) -> bool {
        self.lanes.contains_key(&slot)
    }

    /// What all in one lane need together.
    pub(crate) fn lane_sum(&self, slot: usize) -> Option<Cost> {
        self.lanes.get(&slot).map(|lane| lane.sum)
    }

    /// Which lanes there are.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = usize> {
        self.lanes.keys().copied()
    }

    /// Everybody, first come first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.values()
    }

    /// Whose deadline comes first.
    pub(crate) fn next_deadline(&self) -> Option<(Timestamp, Ticket)> {
        self.deadlines.first().map(|(deadline, number)| (*deadline, Ticket(*number)))
    }
}

#[cfg(test)]
mod tests;
