//! The store of a fleet, and the way to it: the account that the real stores keep, with delays and an outage.

use std::collections::{HashMap, VecDeque};

use omega_policy::{Holder, LEASE_EXPIRY, LeaseGrant, LeaseRequest, Ledger, ModelId};

use crate::fault::Window;
use crate::service::SECOND;

/// A client gives up on the store after this long: the default of `state.timeout_seconds`.
pub(crate) const TIMEOUT: u64 = SECOND / 40;

/// A process in one of its lives.
type Name = (u32, u32);

/// An answer on its way back; `None`: nobody answered.
pub(crate) type Errand = (LeaseRequest, Option<LeaseGrant>);

#[derive(Debug)]
pub(crate) struct LeaseStore {
    ledger: Ledger,
    holders: HashMap<Name, Holder>,
    /// Who was seen when, oldest first; out of date for those that were seen again.
    seen: VecDeque<(u64, Name)>,
    /// One way.
    delay: u64,
    down: Option<Window>,
}

impl LeaseStore {
    pub(crate) fn new(delay: u64, down: Option<Window>) -> Self {
        Self { ledger: Ledger::default(), holders: HashMap::new(), seen: VecDeque::new(), delay, down }
    }

    /// A question leaves: what comes back, and when. A store that is down hears nothing.
    ///
    /// All questions take as long to the store, so they arrive in the order in which they leave, and each is carried out
    /// as of its arrival.
    pub(crate) fn ask(&mut self, process: u32, request: LeaseRequest, now: u64) -> (Errand, u64) {
        if self.down.is_some_and(|down| down.contains(now)) || 2 * self.delay > TIMEOUT {
            return ((request, None), now + TIMEOUT);
        }
        let grant = self.carry_out(process, &request, now + self.delay);
        ((request, Some(grant)), now + 2 * self.delay)
    }

    fn carry_out(&mut self, process: u32, request: &LeaseRequest, now: u64) -> LeaseGrant {
        self.forget_expired(now);
        let name = (process, request.life);
        let wire = request.clone().named(|model| model.map_or(String::new(), |model| model.0.to_string()));
        let mut holder = self.holders.remove(&name);
        let written = format!("{process}-{}", request.life);
        let grant = self.ledger.exchange(&written, &mut holder, &wire, seconds(now));
        if let Some(holder) = holder {
            self.holders.insert(name, holder);
            self.seen.push_back((now, name));
        }
        grant.named(|model| model.parse().ok().map(ModelId))
    }

    fn forget_expired(&mut self, now: u64) {
        let before = now.saturating_sub(LEASE_EXPIRY.as_nanos() as u64);
        while let Some((at, name)) = self.seen.front().copied()
            && at < before
        {
            self.seen.pop_front();
            let is_last = self.holders.get(&name).is_some_and(|holder| holder.seen <= seconds(at));
            if is_last && let Some(holder) = self.holders.remove(&name) {
                self.ledger.forget(&format!("{}-{}", name.0, name.1), &holder);
            }
        }
    }
}

/// The store's clock does not begin at nothing.
fn seconds(now: u64) -> f64 {
    1.0 + now as f64 / 1e9
}
