//! The clairvoyant: what could have been done with the provider's quota.
//!
//! First in, first out, never idle while the head fits, sends nothing that fails, and sheds at once what cannot make
//! its deadline. It knows true charges and the fault schedule: while the provider is down or hangs it sends nothing,
//! and of a brown-out or an overload it never draws the bad lot. It reads the provider's own buckets, so it is a bound
//! for every policy that keeps the order of arrival. (One that prefers small requests can be answered for more of
//! them; no policy here does so on purpose.)

use std::collections::BTreeSet;

use crate::engine::Setting;
use crate::fault::{FaultKind, Window};
use crate::upstream::{Bill, Upstream};

/// What became of each request: `Some(added)` in nanoseconds, or shed.
pub(crate) fn run(setting: Setting<'_>, deadline: u64, progress: &mut dyn FnMut(usize)) -> Vec<Option<u64>> {
    let mut oracle = Oracle {
        setting,
        deadline,
        upstream: Upstream::new(setting.provider),
        in_flight: BTreeSet::new(),
        bills: Vec::new(),
        blocked: setting
            .faults
            .iter()
            .filter(|fault| matches!(fault.kind, FaultKind::Down | FaultKind::Hang))
            .map(|fault| fault.window)
            .collect(),
        clock: 0,
    };
    let count = setting.trace.requests().len();
    let mut added = Vec::with_capacity(count);
    for number in 0..count as u32 {
        added.push(oracle.serve(number));
        if number % 16_384 == 0 {
            progress(number as usize);
        }
    }
    progress(count);
    added
}

struct Oracle<'a> {
    setting: Setting<'a>,
    deadline: u64,
    upstream: Upstream,
    /// When calls in flight end: (when, request). Their bills are in `bills`.
    in_flight: BTreeSet<(u64, u32)>,
    bills: Vec<Bill>,
    blocked: Vec<Window>,
    /// The latest admission: nobody overtakes.
    clock: u64,
}

impl Oracle<'_> {
    fn serve(&mut self, number: u32) -> Option<u64> {
        let request = self.setting.trace.requests()[number as usize];
        let bill = self.setting.bill(&request);
        self.bills.push(bill);
        let draw = self.setting.draw(number);
        let reached = request.arrival + draw.there;
        let latest = reached + self.deadline;
        let at = self.earliest(bill.at_arrival, reached.max(self.clock), latest)?;
        self.pass_until(at);
        // It fits: `earliest` has looked at this very state.
        if self.upstream.arrive(bill.at_arrival, at).is_err() {
            return None;
        }
        self.clock = at;
        let slow = self
            .setting
            .faults
            .iter()
            .any(|fault| matches!(fault.kind, FaultKind::Brown(_)) && fault.window.contains(at));
        let service = draw.first_token + draw.writing;
        let service = if slow { service + service / 2 } else { service };
        if bill.at_end > 0 || bill.back > 0 {
            self.in_flight.insert((at + service, number));
        }
        Some(at - reached)
    }

    /// The first moment from `from` to `latest` at which `tokens` fit, looking ahead without changing anything.
    fn earliest(&self, tokens: u64, from: u64, latest: u64) -> Option<u64> {
        let mut ahead = self.upstream;
        let mut ends = self.in_flight.iter().peekable();
        let mut at = from;
        loop {
            if at > latest {
                return None;
            }
            if let Some(blocked) = self.blocked.iter().find(|window| window.contains(at)) {
                at = blocked.end;
                continue;
            }
            while let Some((end, number)) = ends.next_if(|(end, _)| *end <= at) {
                ahead.settle(self.bills[*number as usize], *end);
            }
            ahead.refill(at);
            if ahead.fits(tokens) {
                return Some(at);
            }
            let refilled = at.saturating_add(ahead.wait(tokens));
            at = ends.peek().map_or(refilled, |(end, _)| refilled.min(*end));
        }
    }

    /// Lets calls in flight end up to `at`.
    fn pass_until(&mut self, at: u64) {
        while let Some((end, number)) = self.in_flight.first().copied() {
            if end > at {
                return;
            }
            self.in_flight.pop_first();
            self.upstream.settle(self.bills[number as usize], end);
        }
    }
}
