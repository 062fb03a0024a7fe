//! What is written down of a call that does not go as wished: refusals, the end of its time, the one error out of all.

use std::time::Duration;

use omega_policy::{Call, Failure, FailureKind, FirstTokens, Outcome, Rejection, Timestamp, Usage, Verdict};
use omega_protocol::ProviderError;

use super::{Began, Driver};
use crate::answer::{Attempt, AttemptOutcome};
use crate::client::Inner;
use crate::error::{Error, ErrorKind};
use crate::exchange::Exchange;
use crate::refusal::rejected;
use crate::registry::Target;
use crate::scope::{Counters, Held};
use crate::telemetry;
use crate::watch::seconds;

impl<E: Exchange> Driver<'_, E> {
    /// The call's own time ran out while the provider was at work.
    pub(super) fn interrupted(
        &mut self,
        target: &Target,
        held: Held,
        call: &mut Call,
        heard: bool,
        began: &Began,
    ) -> Error {
        let now = self.client.clock.now();
        let waited = now.saturating_since(began.at).saturating_sub(began.queued);
        let attempt = call.attempts + 1;
        // Whoever sets a short deadline learns nothing about the provider by it. But one that has not sent a byte
        // for as long as counts as silence elsewhere has earned the verdict: else a hanging provider would never
        // open its circuit for callers in a hurry.
        if !heard && waited >= FirstTokens::FLOOR {
            self.client.fail(held, call, Failure::new(FailureKind::Timeout));
        } else {
            drop(held);
        }
        let message = format!("no answer before the call's deadline ({} s)", seconds(self.allowed()));
        telemetry::attempt_out_of_time(attempt, self.plan.max_attempts, &message);
        let outcome = AttemptOutcome::Failed {
            kind: FailureKind::Timeout,
            status: None,
            code: None,
            message: message.clone(),
        };
        self.record(target, began, outcome);
        Error::new(ErrorKind::Deadline, format!("{}: {message}", target.member.name))
            .at(&target.member.name, &target.model)
    }

    pub(super) fn out_of_time(&self) -> Error {
        Error::new(
            ErrorKind::Deadline,
            format!("the call's deadline ({} s) passed before it could be sent", seconds(self.allowed())),
        )
    }

    fn allowed(&self) -> Duration {
        self.plan.deadline.saturating_since(self.plan.started)
    }

    /// Our own layers said no. `last`: what the provider had said before, if this was a retry.
    pub(super) fn refused(
        &mut self,
        target: &Target,
        rejection: &Rejection,
        last: Option<Error>,
        began: &Began,
    ) -> Error {
        Counters::add(&target.member.scope.counters.refused);
        let error = rejected(target, rejection, self.client.clock.now());
        let outcome = AttemptOutcome::Refused {
            kind: error.kind(),
            retry_after: error.retry_after(),
            message: error.message().to_owned(),
        };
        self.record(target, began, outcome);
        match last {
            // A retry that finds no quota in time: what the provider said explains more than our own limit does.
            Some(said) if !matches!(rejection, Rejection::CircuitOpen { .. }) => {
                said.with_retry_after(error.retry_after())
            }
            _ => error,
        }
    }

    /// Another target was free.
    pub(super) fn moved(&mut self, target: &Target, began: &Began) -> Error {
        let name = &target.member.name;
        let message = format!(
            "{name}: its queue is longer than {} s while another target is free",
            seconds(self.client.failover_wait)
        );
        let (kind, retry_after) = (ErrorKind::RateLimited, None);
        self.record(target, began, AttemptOutcome::Refused { kind, retry_after, message: message.clone() });
        Error::new(kind, message).at(name, &target.model)
    }

    pub(super) fn record(&mut self, target: &Target, began: &Began, outcome: AttemptOutcome) {
        self.attempts.push(Attempt {
            provider: target.member.name.to_string(),
            model: target.model.clone(),
            started: began.at.saturating_since(self.plan.started),
            elapsed: self.client.clock.now().saturating_since(began.at),
            queued: began.queued,
            outcome,
        });
    }

    /// One error out of all: what a provider said before what we refused, what we refused before what could not be
    /// asked; among equals the first, since it is about the model the caller wanted. The others are named behind it.
    pub(super) fn conclusion(self) -> Error {
        let rank = |error: &Error| match (error.origin(), error.kind()) {
            (_, ErrorKind::Config | ErrorKind::Unsupported) => 0,
            (crate::Origin::Local, ErrorKind::CircuitOpen | ErrorKind::RateLimited) => 1,
            _ => 2,
        };
        let soonest = self.errors.iter().filter_map(Error::retry_after).min();
        let best = (0..self.errors.len()).rev().max_by_key(|at| rank(&self.errors[*at])).unwrap_or(0);
        let mut errors = self.errors;
        let mut error = if errors.is_empty() {
            Error::new(ErrorKind::Config, "the call has no target")
        } else {
            errors.remove(best)
        };
        for other in &errors {
            error = error.with_note(&format!("; also: {}", other.message()));
        }
        error.with_retry_after(soonest).with_attempts(self.attempts)
    }
}

impl Inner {
    /// An attempt was answered completely.
    pub(crate) fn succeed(&self, held: Held, call: &mut Call, usage: Option<Usage>) {
        Counters::add(&held.scope().counters.answered);
        let now = self.clock.now();
        // A success draws no chance: there is no delay to vary.
        held.complete(call, &Outcome::Success { usage }, now, omega_policy::Chance::ZERO);
    }

    /// An attempt failed.
    pub(crate) fn fail(&self, held: Held, call: &mut Call, failure: Failure) -> (Verdict, Timestamp) {
        let counters = &held.scope().counters;
        Counters::add(&counters.failed);
        if failure.kind == FailureKind::Throttled {
            Counters::add(&counters.throttled);
        }
        let now = self.clock.now();
        (held.complete(call, &Outcome::Failure(failure), now, self.dice.roll()), now)
    }
}

pub(crate) fn failed_outcome(said: &ProviderError) -> AttemptOutcome {
    AttemptOutcome::Failed {
        kind: said.failure.kind,
        status: said.status,
        code: said.code.clone().or_else(|| said.error_type.clone()),
        message: said.message.clone(),
    }
}
