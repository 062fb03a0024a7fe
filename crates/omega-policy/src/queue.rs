//! Who waits, and in what order: by priority, then the tenant that has had least, then first come.
//!
//! Nothing is booked for those who wait: quota is granted to whoever stands first at the moment it is there, so whoever
//! leaves gives its place to the next at once. Waiters stand in one lane per model, because a model that is paused or
//! has spent its own limits must hold up nobody else; among the lanes that may go, the first waiter is *the* head, and
//! blocks the rest until it fits, so that a large call is never starved by small ones.
//!
//! Within a lane there is a class per [`Priority`], and in a class a line per tenant. Which class comes first is decided
//! by priority and age: a class whose oldest waiter has waited for [`LimiterConfig::aging`](crate::LimiterConfig) counts
//! one class higher, after twice that two, so that a stream of urgent calls delays the others and does not starve them.
//! Which tenant comes first is decided by virtual token counters (`tenants.rs`).
//!
//! Every operation is logarithmic in waiters and tenants, and linear only in the models that somebody waits for. The
//! queue knows order and deadlines and nothing of limits: who may go is asked by the pipeline.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::limiter::Load;
use crate::time::nanos;
use crate::{ModelId, Priority, Rejection, TenantId, Ticket, Timestamp};
use tenants::Tenants;

mod tenants;

/// A call that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) model: ModelId,
    /// Where the limiter keeps that model's state; also the lane.
    pub(crate) slot: usize,
    pub(crate) load: Load,
    /// What it counts for between tenants.
    pub(crate) service: u64,
    pub(crate) priority: Priority,
    pub(crate) tenant: TenantId,
    /// When the call itself came, before its first attempt: a retry stands before those who came after it.
    pub(crate) arrived: Timestamp,
    /// Refused when it has not been granted by then.
    pub(crate) deadline: Timestamp,
    /// Is it a call's first attempt?
    pub(crate) first_try: bool,
    /// Does it stay while its circuit is open?
    pub(crate) stays: bool,
}

/// A place in one tenant's line: first come, first served.
type Place = (Timestamp, u64);

/// A tenant's place in a class: who has had least, then whose first waiter came first.
type Turn = (u64, Place, u32);

/// The smaller goes first: class (aged), tenant's counter, place.
pub(crate) type Rank = (Reverse<u8>, u64, Place);

/// Priority classes.
const CLASSES: usize = Priority::ALL.len();

/// One tenant's waiters of one class and model.
#[derive(Debug, Default)]
struct Line {
    order: BTreeSet<Place>,
    /// What all of them need together.
    sum: Load,
    service: u64,
    /// As it stands in the class.
    turn: Option<Turn>,
}

#[derive(Debug, Default)]
struct Class {
    lines: BTreeMap<u32, Line>,
    turns: BTreeSet<Turn>,
    /// The first of each line, the oldest first.
    heads: BTreeSet<Place>,
}

#[derive(Debug, Default)]
struct Lane {
    classes: [Class; CLASSES],
    /// What all of them need together.
    sum: Load,
    len: usize,
    /// The open period its waiters are known to outlast.
    shut_until: Option<Timestamp>,
}

/// Everybody who waits for one credential.
#[derive(Debug)]
pub(crate) struct Queue {
    waiters: BTreeMap<u64, Waiter>,
    lanes: BTreeMap<usize, Lane>,
    deadlines: BTreeSet<(Timestamp, u64)>,
    /// Refused while waiting, and not told yet; whoever waited longest is told first. By number, because a refused
    /// waiter may still go away, and thousands may at once.
    refused: BTreeMap<u64, Rejection>,
    tenants: Tenants,
    /// How many wait in each class.
    populated: [usize; CLASSES],
    /// Waiting this long counts like one class.
    aging: Duration,
    /// The number of the next ticket; also how many ever waited.
    next: u64,
}

impl Queue {
    pub(crate) fn new(aging: Duration) -> Self {
        Self {
            waiters: BTreeMap::new(),
            lanes: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            refused: BTreeMap::new(),
            tenants: Tenants::default(),
            populated: [0; CLASSES],
            aging,
            next: 0,
        }
    }

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

    /// A tenant's part of what there is to share, relative to the others'.
    pub(crate) fn set_weight(&mut self, tenant: TenantId, weight: u32) {
        self.tenants.set_weight(tenant, weight);
    }

    pub(crate) fn push(&mut self, waiter: Waiter) -> Ticket {
        let number = self.next;
        self.next += 1;
        if self.waiters.is_empty() {
            self.tenants.begin();
        }
        let tenant = Tenants::slot(waiter.tenant);
        self.tenants.joined(tenant);
        let lane = self.lanes.entry(waiter.slot).or_default();
        lane.sum = lane.sum.plus(waiter.load);
        lane.len += 1;
        let class = waiter.priority as usize;
        self.populated[class] += 1;
        let line = lane.classes[class].lines.entry(tenant).or_default();
        line.order.insert((waiter.arrived, number));
        line.sum = line.sum.plus(waiter.load);
        line.service = line.service.saturating_add(waiter.service);
        lane.classes[class].reorder(tenant, self.tenants.counter(tenant));
        self.deadlines.insert((waiter.deadline, number));
        self.waiters.insert(number, waiter);
        Ticket(number)
    }

    /// Takes a waiter out, whatever its place.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.waiters.remove(&ticket.0)?;
        self.deadlines.remove(&(waiter.deadline, ticket.0));
        let (class, tenant) = (waiter.priority as usize, Tenants::slot(waiter.tenant));
        self.populated[class] -= 1;
        if let Some(lane) = self.lanes.get_mut(&waiter.slot) {
            lane.sum = lane.sum.less(waiter.load);
            lane.len -= 1;
            if let Some(line) = lane.classes[class].lines.get_mut(&tenant) {
                line.order.remove(&(waiter.arrived, ticket.0));
                line.sum = line.sum.less(waiter.load);
                line.service = line.service.saturating_sub(waiter.service);
            }
            lane.classes[class].reorder(tenant, self.tenants.counter(tenant));
            if lane.len == 0 {
                self.lanes.remove(&waiter.slot);
            }
        }
        self.tenants.left(tenant);
        Some(waiter)
    }

    /// A tenant was served this much, or, by a correction, less. Counts only while somebody waits: what is plenty
    /// needs no sharing.
    pub(crate) fn served(&mut self, tenant: TenantId, service: i64) {
        let tenant = Tenants::slot(tenant);
        if self.waiters.is_empty() || !self.tenants.charge(tenant, service) {
            return;
        }
        let counter = self.tenants.counter(tenant);
        for lane in self.lanes.values_mut() {
            lane.classes.iter_mut().for_each(|class| class.reorder(tenant, counter));
        }
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

    /// The one whose place was taken first.
    pub(crate) fn oldest(&self) -> Option<Ticket> {
        self.waiters.first_key_value().map(|(number, _)| Ticket(*number))
    }

    pub(crate) fn get(&self, ticket: Ticket) -> Option<&Waiter> {
        self.waiters.get(&ticket.0)
    }

    /// The first of each lane, with its rank among them.
    pub(crate) fn heads(&self, now: Timestamp) -> impl Iterator<Item = (Rank, Ticket, &Waiter)> {
        let classes = self.classes(now);
        self.lanes.values().filter_map(move |lane| {
            let (rank, number) = lane.first(&classes)?;
            Some((rank, Ticket(number), self.waiters.get(&number)?))
        })
    }

    /// Where a newcomer would stand.
    pub(crate) fn rank(
        &self,
        priority: Priority,
        tenant: TenantId,
        arrived: Timestamp,
        now: Timestamp,
    ) -> Rank {
        let class = self.classes(now)[priority as usize].max(priority as u8);
        let counter = self.tenants.counter_on_joining(Tenants::slot(tenant));
        (Reverse(class), counter, (arrived, self.next))
    }

    /// Does somebody in this lane stand before `rank`?
    pub(crate) fn is_behind(&self, slot: usize, rank: &Rank, now: Timestamp) -> bool {
        let first = self.lanes.get(&slot).and_then(|lane| lane.first(&self.classes(now)));
        first.is_some_and(|(first, _)| first < *rank)
    }

    /// When a class next counts higher than now for its age. `None` while all who wait are of one class.
    pub(crate) fn next_promotion(&self, now: Timestamp) -> Option<Timestamp> {
        if self.populated.iter().filter(|count| **count > 0).count() < 2 || self.aging.is_zero() {
            return None;
        }
        let classes = self.classes(now);
        let step = nanos(self.aging);
        (0..CLASSES)
            .filter(|class| usize::from(classes[*class]) + 1 < CLASSES)
            .filter_map(|class| {
                let oldest = self.oldest_of(class)?;
                let waited = nanos(now.saturating_since(oldest));
                Some(oldest + Duration::from_nanos((waited / step + 1).saturating_mul(step)))
            })
            .min()
    }

    /// How high each class counts now.
    fn classes(&self, now: Timestamp) -> [u8; CLASSES] {
        let mut classes = [0, 1, 2];
        // Age matters only between classes.
        if self.populated.iter().filter(|count| **count > 0).count() < 2 || self.aging.is_zero() {
            return classes;
        }
        for (class, counts) in classes.iter_mut().enumerate() {
            if let Some(oldest) = self.oldest_of(class) {
                let steps = nanos(now.saturating_since(oldest)) / nanos(self.aging);
                *counts = u64::from(*counts).saturating_add(steps).min(CLASSES as u64 - 1) as u8;
            }
        }
        classes
    }

    fn oldest_of(&self, class: usize) -> Option<Timestamp> {
        let firsts = self.lanes.values().filter_map(|lane| lane.classes[class].heads.first());
        firsts.map(|(arrived, _)| *arrived).min()
    }

    /// What would be served before a newcomer of this class and tenant, in the lanes that `counts` lets through.
    ///
    /// Every higher class; of its own, what its tenant has in front of it, and of each other tenant as much as brings
    /// that one's counter to where the newcomer's will be at its turn. Nobody who comes later is foreseen.
    pub(crate) fn ahead(
        &self,
        priority: Priority,
        tenant: TenantId,
        counts: impl Fn(usize, &Waiter) -> bool,
        now: Timestamp,
    ) -> Load {
        let classes = self.classes(now);
        let own = Tenants::slot(tenant);
        let lanes = self.lanes.iter().filter(|(slot, lane)| {
            let head = lane.first(&classes).and_then(|(_, number)| self.waiters.get(&number));
            head.is_some_and(|head| counts(**slot, head))
        });
        // Nearly always everybody is of one class and tenant.
        let alone = self.populated[priority as usize] == self.len() && self.tenants.is_only(own);
        if alone {
            return lanes.fold(Load::default(), |sum, (_, lane)| sum.plus(lane.sum));
        }
        let mut sum = Load::default();
        let mut peers: BTreeMap<u32, (Load, u64)> = BTreeMap::new();
        for (_, lane) in lanes {
            for (class, lines) in lane.classes.iter().enumerate() {
                if classes[class] > classes[priority as usize].max(priority as u8) {
                    sum = lines.lines.values().fold(sum, |sum, line| sum.plus(line.sum));
                } else if class == priority as usize {
                    for (tenant, line) in &lines.lines {
                        let (load, service) = peers.entry(*tenant).or_default();
                        *load = load.plus(line.sum);
                        *service = service.saturating_add(line.service);
                    }
                }
            }
        }
        let queued = peers.get(&own).map_or(0, |(_, service)| *service);
        let turn = self.tenants.counter_on_joining(own).saturating_add(self.tenants.scaled(own, queued));
        for (tenant, (load, service)) in peers {
            let before = if tenant == own { service } else { self.tenants.until(tenant, turn).min(service) };
            sum = sum.plus(load.part(before, service));
        }
        sum
    }

    /// What everybody in one lane of at least this class needs.
    pub(crate) fn ahead_in_lane(&self, slot: usize, priority: Priority) -> Load {
        let Some(lane) = self.lanes.get(&slot) else { return Load::default() };
        if self.populated[priority as usize] == self.len() {
            return lane.sum;
        }
        let classes = &lane.classes[priority as usize..];
        let lines = classes.iter().flat_map(|class| class.lines.values());
        lines.fold(Load::default(), |sum, line| sum.plus(line.sum))
    }

    /// Everybody in the order of service, where that is first come, first served: one class and one tenant.
    pub(crate) fn first_come(&self) -> Option<Vec<&Waiter>> {
        let first = self.waiters.values().next()?;
        let plain = self.populated[first.priority as usize] == self.len()
            && self.tenants.is_only(Tenants::slot(first.tenant));
        plain.then(|| {
            let mut order: Vec<(Place, &Waiter)> =
                self.waiters.iter().map(|(number, waiter)| ((waiter.arrived, *number), waiter)).collect();
            order.sort_unstable_by_key(|(place, _)| *place);
            order.into_iter().map(|(_, waiter)| waiter).collect()
        })
    }

    /// Everybody in one lane, in no particular order.
    pub(crate) fn lane(&self, slot: usize) -> impl Iterator<Item = (Ticket, &Waiter)> {
        let lines = self.lanes.get(&slot).into_iter().flat_map(|lane| &lane.classes);
        let places = lines.flat_map(|class| class.lines.values()).flat_map(|line| &line.order);
        places.filter_map(|(_, number)| Some((Ticket(*number), self.waiters.get(number)?)))
    }

    /// Has everybody in this lane been asked whether it outlasts an open period until then?
    pub(crate) fn outlasts(&self, slot: usize, until: Timestamp) -> bool {
        self.lanes.get(&slot).is_none_or(|lane| lane.shut_until == Some(until))
    }

    /// They have.
    pub(crate) fn note_shut(&mut self, slot: usize, until: Timestamp) {
        if let Some(lane) = self.lanes.get_mut(&slot) {
            lane.shut_until = Some(until);
        }
    }

    /// Which lanes there are.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = usize> {
        self.lanes.keys().copied()
    }

    /// Whose deadline comes first.
    pub(crate) fn next_deadline(&self) -> Option<(Timestamp, Ticket)> {
        self.deadlines.first().map(|(deadline, number)| (*deadline, Ticket(*number)))
    }
}

impl Lane {
    /// Who goes first, with `classes` counting as they do.
    fn first(&self, classes: &[u8; CLASSES]) -> Option<(Rank, u64)> {
        let firsts = self.classes.iter().zip(classes).filter_map(|(class, counts)| {
            let (counter, place, _) = class.turns.first()?;
            Some(((Reverse(*counts), *counter, *place), place.1))
        });
        firsts.min()
    }
}

impl Class {
    /// Puts a tenant where its counter and its first waiter say, or takes it out if nobody is left.
    fn reorder(&mut self, tenant: u32, counter: u64) {
        let Some(line) = self.lines.get_mut(&tenant) else { return };
        let turn = line.order.first().map(|place| (counter, *place, tenant));
        if line.turn == turn {
            return;
        }
        if let Some(old) = std::mem::replace(&mut line.turn, turn) {
            self.turns.remove(&old);
            self.heads.remove(&old.1);
        }
        match turn {
            Some(turn) => {
                self.turns.insert(turn);
                self.heads.insert(turn.1);
            }
            None => {
                self.lines.remove(&tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests;
