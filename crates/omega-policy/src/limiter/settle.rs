//! What a reservation becomes when its call ends.

use super::{ChargeRule, Cost, CountedTokens, RateLimiter, Reservation};
use crate::{Charge, Failure, Timestamp, Usage};

/// The length of a call is averaged over about so many of the last ones. Forecasts of a minute stand on it, and lengths
/// of answers scatter widely: see the mean of outputs in `model.rs`.
const HOLD_SAMPLES: u64 = 128;

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
    ) -> u64 {
        let reserved = reservation.load.reserve;
        let charged = usage.map_or(reservation.load.net(), |usage| {
            self.models[slot].learn(usage.output_tokens);
            let used = self.counted(usage);
            match self.config.charge {
                ChargeRule::Estimate if promised => larger(reserved, used),
                _ => used,
            }
        });
        self.exchange(slot, reservation, charged, now)
    }

    /// A call failed: its row of the table decides what goes back.
    pub(crate) fn settle_failed(
        &mut self,
        slot: usize,
        reservation: Reservation,
        failure: &Failure,
        now: Timestamp,
    ) -> u64 {
        let reserved = reservation.load.reserve;
        let seen = failure.seen.map(|usage| self.counted(usage));
        let charged = match (failure.kind.meaning().charge, self.config.charge) {
            (Charge::Refund, _) => Cost::of_call(0, 0),
            // It may have run: what it would have cost.
            (Charge::Keep, _) => larger(larger(reserved, reservation.load.net()), seen.unwrap_or_default()),
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
        self.exchange(slot, reservation, charged, now)
    }

    /// A call was let go and never sent: everything goes back, the request too.
    pub(crate) fn put_back(&mut self, slot: usize, reservation: Reservation, now: Timestamp) {
        self.recent.unsent(reservation.load.net().tokens(), reservation.granted);
        self.exchange_quotas(slot, &reservation, Cost::default(), now);
        self.free(slot, reservation.load);
    }

    /// A call was sent and its caller went away: at least the estimated input was charged, and what was seen.
    pub(crate) fn settle_abandoned(
        &mut self,
        slot: usize,
        reservation: Reservation,
        seen: Option<Usage>,
        now: Timestamp,
    ) -> u64 {
        let reserved = reservation.load.reserve;
        let seen = seen.map(|usage| self.counted(usage)).unwrap_or_default();
        let charged = match self.config.charge {
            ChargeRule::Estimate => larger(reserved, seen),
            ChargeRule::EstimateThenRefund | ChargeRule::Actual => {
                Cost::of_call(reserved.input.max(seen.input), seen.output)
            }
        };
        self.exchange(slot, reservation, charged, now)
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
    /// Says what it counts for between tenants.
    fn exchange(&mut self, slot: usize, reservation: Reservation, charged: Cost, now: Timestamp) -> u64 {
        self.recent.settled(reservation.load.net().tokens(), charged.tokens(), reservation.granted);
        self.exchange_quotas(slot, &reservation, charged, now);
        let held = now.as_nanos().saturating_sub(reservation.granted.as_nanos());
        self.ended = self.ended.saturating_add(1).min(HOLD_SAMPLES);
        self.hold = self.hold - self.hold / self.ended + held / self.ended;
        self.free(slot, reservation.load);
        charged.tokens().max(self.request_worth)
    }

    fn exchange_quotas(&mut self, slot: usize, reservation: &Reservation, charged: Cost, now: Timestamp) {
        let reserved = reservation.load.reserve;
        if charged == reserved {
            return;
        }
        self.tide.settle(reserved.tokens(), charged.tokens());
        if let Some(tide) = &mut self.models[slot].tide {
            tide.settle(reserved.tokens(), charged.tokens());
        }
        if !self.config.enabled {
            return;
        }
        self.quotas.settle(reserved, charged, now);
        let model = &mut self.models[slot];
        if let Some(own) = model.limits.as_mut().filter(|own| own.edition == reservation.own) {
            own.quotas.settle(reserved, charged, now);
        }
        if let Some(seen) = model.observed.as_mut().filter(|seen| seen.edition == reservation.observed) {
            seen.quotas.settle(reserved, charged, now);
        }
    }
}

fn larger(a: Cost, b: Cost) -> Cost {
    Cost::of_call(a.input.max(b.input), a.output.max(b.output))
}
