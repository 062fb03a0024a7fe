//! What a reservation becomes when its call ends.

use super::{ChargeRule, Cost, CountedTokens, RateLimiter, Reservation};
use crate::{Charge, Failure, Timestamp, Usage};

impl RateLimiter {
    /// A call was answered: the provider's charge rule decides what the reservation becomes.
    ///
    /// - `promised`: did the caller bound the output? Only such a bound can have been charged in advance; where there
    ///   was none, the reserved output was a guess of ours and is settled like any other.
    pub(crate) fn settle(
        &mut self,
        slot: usize,
        reservation: Reservation,
        usage: Option<Usage>,
        promised: bool,
        now: Timestamp,
    ) {
        let reserved = reservation.cost;
        let charged = usage.map_or(reserved, |usage| {
            self.models[slot].learn(usage.output_tokens);
            let used = self.counted(usage);
            match self.config.charge {
                ChargeRule::Estimate if promised => larger(reserved, used),
                _ => used,
            }
        });
        self.exchange(slot, reservation, charged, now);
    }

    /// A call failed: its row of the table decides what goes back.
    pub(crate) fn settle_failed(
        &mut self,
        slot: usize,
        reservation: Reservation,
        failure: &Failure,
        now: Timestamp,
    ) {
        let reserved = reservation.cost;
        let seen = failure.seen.map(|usage| self.counted(usage));
        let charged = match (failure.kind.meaning().charge, self.config.charge) {
            (Charge::Refund, _) => Cost::of_call(0, 0),
            (Charge::Keep, _) => seen.map_or(reserved, |seen| larger(reserved, seen)),
            // What was charged in advance and is never returned stays, whatever became of the call.
            (Charge::AsTheRuleSays | Charge::Seen, ChargeRule::Estimate) => {
                seen.map_or(reserved, |seen| larger(reserved, seen))
            }
            // These rules charge the input when the call arrives, and give back output that was never written.
            (Charge::AsTheRuleSays | Charge::Seen, ChargeRule::EstimateThenRefund | ChargeRule::Actual) => {
                // Input that came from the cache altogether may count as nothing; input nobody counted does not.
                let counted = failure.seen.is_some_and(|usage| usage.input_tokens > 0);
                let seen = seen.unwrap_or_default();
                Cost::of_call(if counted { seen.input } else { reserved.input }, seen.output)
            }
        };
        self.exchange(slot, reservation, charged, now);
    }

    /// A call was let go and never sent: everything goes back, the request too.
    pub(crate) fn put_back(&mut self, slot: usize, reservation: Reservation, now: Timestamp) {
        self.recent.unsent(reservation.cost.tokens(), reservation.granted);
        self.exchange_quotas(slot, &reservation, Cost::default(), now);
        self.free(slot, reservation.cost);
    }

    /// A call was sent and its caller went away: at least the estimated input was charged, and what was seen.
    pub(crate) fn settle_abandoned(
        &mut self,
        slot: usize,
        reservation: Reservation,
        seen: Option<Usage>,
        now: Timestamp,
    ) {
        let reserved = reservation.cost;
        let seen = seen.map(|usage| self.counted(usage)).unwrap_or_default();
        let charged = match self.config.charge {
            ChargeRule::Estimate => larger(reserved, seen),
            ChargeRule::EstimateThenRefund | ChargeRule::Actual => {
                Cost::of_call(reserved.input.max(seen.input), seen.output)
            }
        };
        self.exchange(slot, reservation, charged, now);
    }

    /// A provider's count, in what it counts.
    fn counted(&self, usage: Usage) -> Cost {
        let fresh = usage.input_tokens.saturating_sub(usage.cached_input_tokens);
        match self.config.counted {
            CountedTokens::All => Cost::of_call(usage.input_tokens, usage.output_tokens),
            CountedTokens::WithoutCacheReads => Cost::of_call(fresh, usage.output_tokens),
            CountedTokens::InputOnly => Cost::of_call(usage.input_tokens, 0),
        }
    }

    /// A sent call ended: `charged` takes the place of its reservation and its slot is free.
    fn exchange(&mut self, slot: usize, reservation: Reservation, charged: Cost, now: Timestamp) {
        self.recent.settled(reservation.cost.tokens(), charged.tokens(), reservation.granted);
        self.exchange_quotas(slot, &reservation, charged, now);
        let held = now.as_nanos().saturating_sub(reservation.granted.as_nanos());
        self.hold = self.hold - self.hold / 8 + held / 8;
        self.free(slot, reservation.cost);
    }

    fn exchange_quotas(&mut self, slot: usize, reservation: &Reservation, charged: Cost, now: Timestamp) {
        if !self.config.enabled || charged == reservation.cost {
            return;
        }
        self.quotas.settle(reservation.cost, charged, now);
        let model = &mut self.models[slot];
        if let Some(own) = model.limits.as_mut().filter(|own| own.edition == reservation.own) {
            own.quotas.settle(reservation.cost, charged, now);
        }
        if let Some(seen) = model.observed.as_mut().filter(|seen| seen.edition == reservation.observed) {
            seen.quotas.settle(reservation.cost, charged, now);
        }
    }
}

fn larger(a: Cost, b: Cost) -> Cost {
    Cost::of_call(a.input.max(b.input), a.output.max(b.output))
}
