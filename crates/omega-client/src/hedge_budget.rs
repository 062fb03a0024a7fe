//! How many hedges a client may start: a share of its calls, earned first and saved up to a few.
//!
//! A slow hour makes every call slow at once. Without a budget that is the hour in which hedging doubles the load;
//! with one it costs its share and no more.

use std::sync::atomic::{AtomicU32, Ordering};

/// What one hedge costs; each call earns its percentage of it.
const HEDGE: u32 = 100;
/// Hedges that can be saved up. Few, so that a quiet day does not pay for a burst at another provider; more than one,
/// so that two slow calls in a row are both helped. Judgement.
const SAVED_MAX: u32 = 5;

/// Hedges in hand, in hundredths. Never more of them were started than `percent` of the calls so far allow; in any
/// stretch of calls never more than `percent` of these and [`SAVED_MAX`].
#[derive(Debug, Default)]
pub(crate) struct HedgeBudget(AtomicU32);

impl HedgeBudget {
    /// A call that could be hedged was sent.
    ///
    /// - `percent`: hedges for a hundred calls, from 1 to 100.
    pub(crate) fn deposit(&self, percent: u32) {
        self.add(percent);
    }

    /// Takes one hedge. `false`: there is none.
    pub(crate) fn try_withdraw(&self) -> bool {
        let taken = |saved: u32| saved.checked_sub(HEDGE);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// The hedge was not started after all.
    pub(crate) fn give_back(&self) {
        self.add(HEDGE);
    }

    fn add(&self, hundredths: u32) {
        let added = |saved: u32| Some(saved.saturating_add(hundredths).min(SAVED_MAX * HEDGE));
        // The update always has a value, so it cannot fail.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hedge_is_earned_before_it_is_spent() {
        let budget = HedgeBudget::default();
        for _ in 0..49 {
            budget.deposit(2);
            assert!(!budget.try_withdraw());
        }
        budget.deposit(2);
        assert!(budget.try_withdraw());
        assert!(!budget.try_withdraw());
    }

    #[test]
    fn of_a_thousand_calls_two_percent_are_twenty() {
        let budget = HedgeBudget::default();
        let started = (0..1_000).filter(|_| {
            budget.deposit(2);
            budget.try_withdraw()
        });
        assert_eq!(started.count(), 20);
    }

    #[test]
    fn after_a_quiet_day_a_burst_finds_five() {
        let budget = HedgeBudget::default();
        (0..100_000).for_each(|_| budget.deposit(2));
        assert_eq!((0..100).filter(|_| budget.try_withdraw()).count(), 5);
    }

    #[test]
    fn what_was_not_started_can_be_started_later() {
        let budget = HedgeBudget::default();
        budget.deposit(100);
        assert!(budget.try_withdraw());
        budget.give_back();
        assert!(budget.try_withdraw());
        assert!(!budget.try_withdraw());
    }
}
