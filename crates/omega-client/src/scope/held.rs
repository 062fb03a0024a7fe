//! A permit out of the queue's hands: what is known of its attempt, and its way back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use omega_policy::{Call, Chance, ModelId, Outcome, Permit, QuotaHint, Spent, Timestamp, Usage, Verdict};
use omega_protocol::InputEstimate;

use super::{Counters, Scope};

/// A permit in the driver's hands. Dropped, it goes back without a verdict: the caller went away.
#[must_use = "a permit that is dropped is returned"]
pub(crate) struct Held {
    pub(super) scope: Arc<Scope>,
    pub(super) permit: Option<Permit>,
    /// What was estimated, for its usage to be compared with.
    pub(super) input: InputEstimate,
    pub(super) spent: Spent,
    /// Set when the first content comes, for whoever hedges the attempt.
    pub(super) begun: Option<Arc<AtomicBool>>,
}

impl Held {
    /// Sets `begun` when the first content comes.
    pub(crate) fn announce(&mut self, begun: &Arc<AtomicBool>) {
        self.begun = Some(Arc::clone(begun));
    }

    /// From here on the provider may have work with it.
    ///
    /// - `input`: as estimated, not as experience corrects it.
    pub(crate) fn sent(&mut self, input: InputEstimate) {
        self.input = input;
        Counters::add(&self.scope.counters.sent);
        self.spent = Spent::Sent { seen: None };
    }

    /// What has been seen of the answer so far.
    pub(crate) fn saw(&mut self, usage: Usage) {
        self.spent = Spent::Sent { seen: Some(usage) };
    }

    /// The first content came, this long after sending.
    pub(crate) fn first_token(
        &mut self,
        model: ModelId,
        reasons_first: bool,
        elapsed: Duration,
        now: Timestamp,
    ) {
        if let Some(begun) = &self.begun {
            begun.store(true, Ordering::Relaxed);
        }
        if let Some(permit) = &mut self.permit {
            self.scope.decide(now, |state| {
                state.pipeline.first_token(permit, now);
                state.learned_of(model).first_tokens.record(reasons_first, elapsed);
            });
        }
    }

    /// What the provider's headers said of its quota in the answer to this attempt.
    pub(crate) fn handle_hint(&self, hint: &QuotaHint, now: Timestamp) {
        if let Some(permit) = &self.permit {
            self.scope.decide(now, |state| state.pipeline.handle_hint(permit, hint, now));
        }
    }

    /// The attempt ended.
    pub(crate) fn complete(
        mut self,
        call: &mut Call,
        outcome: &Outcome,
        now: Timestamp,
        chance: Chance,
    ) -> Verdict {
        let permit = self.permit.take().expect("a held permit is completed once: completing consumes it");
        self.scope.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.scope.decide(now, |state| {
            // What shares one number with others says nothing about them.
            if let Outcome::Success { usage: Some(usage) } = outcome
                && call.model != ModelId::OTHER
            {
                state.learned_of(call.model).calibration.learn(self.input, usage.input_tokens);
            }
            state.pipeline.complete(call, permit, outcome, now, chance)
        })
    }

    pub(crate) fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.scope.in_flight.fetch_sub(1, Ordering::Relaxed);
            Counters::add(&self.scope.counters.cancelled);
            let now = self.scope.clock.now();
            self.scope.decide(now, |state| state.pipeline.cancel(permit, self.spent, now));
        }
    }
}
