//! Who waits, and in what order: by priority, then the tenant that has had least, then first come.
//!
//! Nothing is booked for those who wait: quota is granted to whoever stands first at the moment it is there, so whoever
//! leaves gives its place to the next at once. Waiters stand in one lane per model, because a model that is paused or
//! has spent its own limits must hold up nobody else; among the lanes that may go, the first waiter is *the* head, and
//! blocks the rest until it fits, so that a large call is never starved by small ones.
//!
//! Within a lane there is a class per [`Priority`], and in a class a line per tenant. A higher class goes first; a class
//! that has been passed over for [`LimiterConfig::aging`](crate::LimiterConfig) (per class above it) gets one turn, so
//! that a stream of urgent calls delays the others and does not starve them, and a backlog of others never holds up an
//! urgent one for more than that turn. Which tenant comes first is decided by virtual token counters (`tenants.rs`).
//!
//! Joining, leaving and being served are logarithmic in waiters and tenants and linear in the models that somebody waits
//! for; a forecast looks at up to [`PEERS_MAX`] tenants one by one. The queue knows order and deadlines and nothing of
//! limits: who may go is asked by the pipeline.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::limiter::Load;
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

/// The smaller goes first: class (with a turn that is due above all), tenant's counter, place.
pub(crate) type Rank = (Reverse<u8>, u64, Place);

/// Priority classes.
const CLASSES: usize = Priority::ALL.len();

/// How a class counts whose turn is due because it was passed over for long.
const DUE: u8 = CLASSES as u8;

/// Beyond this many tenants in one class and model a forecast takes all of them to be alike.
const PEERS_MAX: usize = 256;

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
    sum: Load,
    service: u64,
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
    /// When each class was last served, or began to wait.
    served: [Timestamp; CLASSES],
    /// A class passed over for this long, per class above it, gets a turn.
    aging: Duration,
    /// The number of the next ticket; also how many ever waited.
    next: u64,
}

impl Queue {
    /// `lead`: see [`Tenants::new`].
    pub(crate) fn new(aging: Duration, lead: u64) -> Self {
        Self {
            waiters: BTreeMap::new(),
            lanes: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            refused: BTreeMap::new(),
            tenants: Tenants::new(lead),
            populated: [0; CLASSES],
            served: [Timestamp::ZERO; CLASSES],
            aging,
            next: 0,
        }
    }

    /// Other rules for those who wait; they keep their places.
    pub(crate) fn reconfigure(&mut self, aging: Duration, lead: u64) {
        self.aging = aging;
        self.tenants.set_lead(lead);
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

    pub(crate) fn push(&mut self, waiter: Waiter, now: Timestamp) -> Ticket {
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
        if self.populated[class] == 0 {
            self.served[class] = now;
        }
        self.populated[class] += 1;
        lane.classes[class].sum = lane.classes[class].sum.plus(waiter.load);
        lane.classes[class].service = lane.classes[class].service.saturating_add(waiter.service);
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
            lane.classes[class].sum = lane.classes[class].sum.less(waiter.load);
            lane.classes[class].service = lane.classes[class].service.saturating_sub(waiter.service);
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

    /// It is a waiter's turn: takes it out.
    pub(crate) fn take_turn(&mut self, ticket: Ticket, now: Timestamp) -> Option<Waiter> {
        let waiter = self.remove(ticket)?;
        self.served[waiter.priority as usize] = now;
        Some(waiter)
    }

    /// A tenant is served. Counts only while somebody waits, since what is plenty needs no sharing; says in which busy
    /// period it was counted.
    pub(crate) fn serve(&mut self, tenant: TenantId, service: u64) -> Option<u64> {
        if self.waiters.is_empty() {
            return None;
        }
        self.tenants.serve(Tenants::slot(tenant), service);
        self.reorder(tenant);
        Some(self.tenants.period())
    }

    /// What was counted for a tenant in that busy period came to something else.
    pub(crate) fn correct(&mut self, tenant: TenantId, period: u64, counted: u64, charged: u64) {
        if counted != charged && !self.waiters.is_empty() && period == self.tenants.period() {
            self.tenants.correct(Tenants::slot(tenant), counted, charged);
            self.reorder(tenant);
        }
    }

    fn reorder(&mut self, tenant: TenantId) {
        let tenant = Tenants::slot(tenant);
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
    pub(crate) fn rank(&self, priority: Priority, tenant: TenantId, arrived: Timestamp) -> Rank {
        let class = priority as u8;
        let counter = self.tenants.counter_on_joining(Tenants::slot(tenant));
        (Reverse(class), counter, (arrived, self.next))
    }

    /// Does somebody in this lane stand before `rank`?
    pub(crate) fn is_behind(&self, slot: usize, rank: &Rank, now: Timestamp) -> bool {
        let first = self.lanes.get(&slot).and_then(|lane| lane.first(&self.classes(now)));
        first.is_some_and(|(first, _)| first < *rank)
    }

    /// When a class that is passed over gets its turn next. `None` while all who wait are of one class.
    pub(crate) fn next_promotion(&self, now: Timestamp) -> Option<Timestamp> {
        (0..CLASSES).filter_map(|class| self.due_at(class)).filter(|at| *at > now).min()
    }

    /// How each class counts now.
    fn classes(&self, now: Timestamp) -> [u8; CLASSES] {
        let mut classes = [0, 1, 2];
        for (class, counts) in classes.iter_mut().enumerate() {
            if self.due_at(class).is_some_and(|at| at <= now) {
                *counts = DUE;
            }
        }
        classes
    }

    /// When a class gets a turn for having been passed over: only while a higher one waits.
    fn due_at(&self, class: usize) -> Option<Timestamp> {
        let above = (class + 1..CLASSES).rev().find(|above| self.populated[*above] > 0)?;
        if self.populated[class] == 0 || self.aging.is_zero() {
            return None;
        }
        Some(self.served[class] + self.aging.saturating_mul((above - class) as u32))
    }

    /// What would be served before a newcomer of this class and tenant, in the lanes that `counts` lets through.
    ///
    /// Every higher class; of its own, what its tenant has in front of it, and of each other tenant as much as brings
    /// that one's counter to where the newcomer's will be at its turn. Nobody who comes later is foreseen, nor the turns
    /// of lower classes.
    pub(crate) fn ahead(
        &self,
        priority: Priority,
        tenant: TenantId,
        counts: impl Fn(usize, &Waiter) -> bool,
        now: Timestamp,
    ) -> Load {
        let classes = self.classes(now);
        let (class, own) = (priority as usize, Tenants::slot(tenant));
        let lanes = self.lanes.iter().filter(|(slot, lane)| {
            let head = lane.first(&classes).and_then(|(_, number)| self.waiters.get(&number));
            head.is_some_and(|head| counts(**slot, head))
        });
        // Nearly always everybody is of one class and tenant.
        if self.populated[class] == self.len() && self.tenants.is_only(own) {
            return lanes.fold(Load::default(), |sum, (_, lane)| sum.plus(lane.sum));
        }
        let mut sum = Load::default();
        let (mut mine, mut peers) = (Load::default(), Vec::new());
        let mut queued = 0_u64;
        for (_, lane) in lanes {
            for higher in &lane.classes[class + 1..] {
                sum = sum.plus(higher.sum);
            }
            let lines = &lane.classes[class].lines;
            if let Some(line) = lines.get(&own) {
                mine = mine.plus(line.sum);
                queued = queued.saturating_add(line.service);
            }
            if lines.len() <= PEERS_MAX {
                peers.extend(
                    lines
                        .iter()
                        .filter(|(tenant, _)| **tenant != own)
                        .map(|(tenant, line)| (*tenant, 1, line.sum, line.service)),
                );
            } else {
                let others = lines.len() as u64 - u64::from(lines.contains_key(&own));
                let all = &lane.classes[class];
                peers.push((own, others, all.sum, all.service));
            }
        }
        let turn = self.tenants.counter_on_joining(own).saturating_add(self.tenants.scaled(own, queued));
        for (tenant, count, load, service) in peers {
            let before = self.tenants.until(tenant, turn).saturating_mul(count).min(service);
            sum = sum.plus(load.part(before, service));
        }
        sum.plus(mine)
    }

    /// Everybody in the order of service, where that is first come, first served: one class and one tenant.
    pub(crate) fn first_come(&self) -> Option<Vec<(Ticket, &Waiter)>> {
        let first = self.waiters.values().next()?;
        let plain = self.populated[first.priority as usize] == self.len()
            && self.tenants.is_only(Tenants::slot(first.tenant));
        plain.then(|| {
            let mut order: Vec<(Place, &Waiter)> =
                self.waiters.iter().map(|(number, waiter)| ((waiter.arrived, *number), waiter)).collect();
            order.sort_unstable_by_key(|(place, _)| *place);
            order.into_iter().map(|((_, number), waiter)| (Ticket(number), waiter)).collect()
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

    /// What everybody in one lane needs together.
    pub(crate) fn waiting_in(&self, slot: usize) -> Load {
        self.lanes.get(&slot).map_or(Load::default(), |lane| lane.sum)
    }

    /// How many wait in one lane.
    pub(crate) fn waiting_count(&self, slot: usize) -> usize {
        self.lanes.get(&slot).map_or(0, |lane| lane.len)
    }

    /// Which lanes there are.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = usize> {
        self.lanes.keys().copied()
    }

    /// The last deadline of all who wait.
    pub(crate) fn last_deadline(&self) -> Option<Timestamp> {
        self.deadlines.last().map(|(deadline, _)| *deadline)
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
        }
        match turn {
            Some(turn) => {
                self.turns.insert(turn);
            }
            None => {
                self.lines.remove(&tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests;
