//! The conformance list CB-01 to CB-46, findable by number, and a random walk beside a naive model.
//!
//! Each case is marked: *taken over* (the same scenario), *adapted* (and how), or *true by construction* (and which
//! test shows it).

mod closed;
mod half_open;
mod modes;
mod open;
mod walk;

use super::*;

/// A breaker with a clock of its own and its events.
pub(super) struct Rig {
    pub(super) breaker: CircuitBreaker,
    pub(super) events: Events,
    pub(super) now: Timestamp,
}

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) const FAILURE: Signal = Signal::Failure { hint: None };

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    /// The defaults, changed.
    pub(super) fn with(change: impl FnOnce(&mut BreakerConfig)) -> Self {
        let mut config = BreakerConfig::default();
        change(&mut config);
        let now = Timestamp::from_secs(1_000);
        Self { breaker: CircuitBreaker::new(config, None, now), events: Events::default(), now }
    }

    /// Five failures: open.
    pub(super) fn opened() -> Self {
        let mut rig = Self::new();
        rig.call(FAILURE, 5);
        assert_eq!(rig.state(), BreakerState::Open);
        rig
    }

    /// Opened, and the open period is over.
    pub(super) fn elapsed() -> Self {
        let mut rig = Self::opened();
        rig.pass(60_000);
        rig
    }

    pub(super) fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }

    pub(super) fn state(&self) -> BreakerState {
        self.breaker.stats().state
    }

    pub(super) fn stats(&self) -> BreakerStats {
        self.breaker.stats()
    }

    /// A newcomer: a permit, or when to come back.
    pub(super) fn admit(&mut self) -> Result<BreakerPermit, Timestamp> {
        match self.breaker.turns_away(self.now, &mut self.events) {
            Some(retry_at) => {
                self.breaker.count_refused(1);
                Err(retry_at)
            }
            None => Ok(self.breaker.acquire(self.now, &mut self.events)),
        }
    }

    pub(super) fn admitted(&mut self) -> BreakerPermit {
        self.admit().expect("the circuit lets it pass")
    }

    pub(super) fn settle(&mut self, permit: BreakerPermit, signal: Signal) {
        self.settle_after(permit, signal, Duration::ZERO);
    }

    pub(super) fn settle_after(&mut self, permit: BreakerPermit, signal: Signal, waited: Duration) {
        self.breaker.settle(permit, signal, waited, self.now, Chance::ZERO, &mut self.events);
    }

    pub(super) fn first_token(&mut self, permit: &mut BreakerPermit, waited: Duration) {
        self.breaker.first_token(permit, waited, self.now, &mut self.events);
    }

    /// So many calls, one after the other, all ending like this.
    pub(super) fn call(&mut self, signal: Signal, times: u32) {
        for _ in 0..times {
            let permit = self.admitted();
            self.settle(permit, signal);
        }
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.pop()).collect()
    }

    /// The names of the events so far.
    pub(super) fn transitions(&mut self) -> Vec<&'static str> {
        let name = |event: Event| match event {
            Event::Opened { .. } => "opened",
            Event::HalfOpened { .. } => "half-opened",
            Event::Closed { .. } => "closed",
            _ => "other",
        };
        self.events().into_iter().map(name).collect()
    }
}
