//! Hedging: a call that is slow to begin is sent to a second target as well, and whoever begins to answer first has it.
//!
//! A hedge starts only before the first content of a call's first attempt, when that is later than 95 % of the model's
//! recent ones; only at another provider that is healthy and admits at once; and only while the budget has one. There
//! is never a third. The slower one is dropped: its connection is left, its permit goes back as a call that was sent,
//! and no breaker hears of it. One that fails tells its layers at once, and the other goes on alone; only when both
//! have failed does the loop take over, with what the first one's failure means.
//!
//! Why the 95th percentile: a second request that waits for it adds about 5 % of load, which the budget cuts further.
//! Source: J. Dean, L. A. Barroso, "The Tail at Scale", <https://research.google/pubs/the-tail-at-scale/>, quoted in
//! docs/hedging.md.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use omega_policy::{Call, Retry, Timestamp};
use omega_protocol::Streaming;

use super::{Began, Driver, Retries, Served, Then};
use crate::answer::AttemptOutcome;
use crate::asked::Asked as _;
use crate::client::Inner;
use crate::error::Error;
use crate::events::ClientEvent;
use crate::exchange::{Exchange, Facts, Received};
use crate::registry::Target;
use crate::scope::{Counters, Held};
use crate::send::{Outgoing, send};
use crate::telemetry;
use crate::watch::{Fault, Watch};

/// An attempt that has ended, and what still flies beside it.
pub(super) struct Landed<'c, A> {
    pub(super) held: Held,
    pub(super) result: Result<Received<A>, Fault>,
    /// Only beside a failure.
    pub(super) hedge: Option<Box<Hedge<'c, A>>>,
}

impl<A> Landed<'_, A> {
    fn alone((held, result): End<A>) -> Self {
        Self { held, result, hedge: None }
    }
}

/// How an attempt ended whose hedge was first.
pub(super) enum Overtaken<A> {
    /// The hedge answered.
    Won(Box<Served<A>>),
    /// The hedge's answer broke before anybody had it.
    Broke(Error),
}

/// How a flight ends: with its permit, and what came.
type End<A> = (Held, Result<Received<A>, Fault>);

/// An attempt under way. Dropped, its connection is left and its permit goes back as a call that was sent.
pub(super) struct Flight<'c, A> {
    future: Pin<Box<dyn Future<Output = End<A>> + Send + 'c>>,
    begun: Arc<AtomicBool>,
}

/// The second of two attempts.
pub(super) struct Hedge<'c, A> {
    /// Which target.
    to: usize,
    target: Target,
    call: Call,
    began: Began,
    flight: Flight<'c, A>,
}

impl<'c, A> Flight<'c, A> {
    pub(super) fn new<E: Exchange<Answer = A>>(
        client: &'c Inner,
        target: Target,
        outgoing: Outgoing<E::How>,
        facts: Facts,
        mut held: Held,
    ) -> Self {
        let begun = Arc::new(AtomicBool::new(false));
        held.announce(&begun);
        let future = Box::pin(async move {
            let result = send::<E>(client, &target, outgoing, &facts, &mut held).await;
            (held, result)
        });
        Self { future, begun }
    }

    /// Its end, or `None` when its first content has come before that.
    async fn news(&mut self) -> Option<End<A>> {
        // Whoever flies is polled here, so what it sets is seen right after.
        std::future::poll_fn(|cx| match self.future.as_mut().poll(cx) {
            Poll::Ready(end) => Poll::Ready(Some(end)),
            Poll::Pending if self.begun.load(Ordering::Relaxed) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    async fn end(self) -> End<A> {
        self.future.await
    }
}

impl<'c, E: Exchange> Driver<'c, E> {
    /// Sends an attempt and awaits its end, hedged if it may be and is slow to begin.
    pub(super) async fn dispatch(
        &mut self,
        index: usize,
        target: &Target,
        outgoing: Outgoing<E::How>,
        facts: &Facts,
        mut held: Held,
        began: &Began,
    ) -> Result<Landed<'c, E::Answer>, Overtaken<E::Answer>> {
        match self.hedge_after(index, outgoing.encoded.streaming, facts) {
            None => {
                let result = send::<E>(self.client, target, outgoing, facts, &mut held).await;
                Ok(Landed::alone((held, result)))
            }
            Some(after) => {
                let first = Flight::new::<E>(self.client, target.clone(), outgoing, *facts, held);
                self.race(index, first, facts, began, after).await
            }
        }
    }

    /// After how long an attempt is slow enough to be hedged; `None` where it is not to be hedged at all.
    fn hedge_after(&self, index: usize, streaming: Streaming, facts: &Facts) -> Option<Duration> {
        let settings = &self.client.loaded.config.hedging;
        // Only a call's first attempt: later ones belong to a call in trouble, and retries have a budget of their own.
        // Vectors of two models must not be mixed at random, so embeddings are left alone.
        if !settings.enabled || !self.attempts.is_empty() || !E::GENERATES {
            return None;
        }
        let head = self.plan.targets[index].member.head();
        self.later(index).find(|at| self.plan.targets[*at].member.head() != head)?;
        self.client.hedges.deposit(settings.percent);
        // A whole answer is written before its first byte is sent, so its silence does not make it slow.
        if streaming == Streaming::Whole {
            return None;
        }
        self.plan.targets[index].member.scope.slow_first_token(facts.model, facts.reasons_first)
    }

    /// Awaits an attempt, and hedges it if its first content has not come `after` it was sent.
    async fn race(
        &mut self,
        index: usize,
        mut first: Flight<'c, E::Answer>,
        facts: &Facts,
        began: &Began,
        after: Duration,
    ) -> Result<Landed<'c, E::Answer>, Overtaken<E::Answer>> {
        let slow_at = self.client.clock.instant(began.sent_at() + after);
        let hedge = match tokio::time::timeout_at(slow_at, first.news()).await {
            Ok(Some(end)) => return Ok(Landed::alone(end)),
            Ok(None) => None,
            Err(_) => self.launch(index, began),
        };
        let Some(mut hedge) = hedge else { return Ok(Landed::alone(first.end().await)) };
        tokio::select! {
            // Of two that begin in the same moment, the target that was asked for has it.
            biased;
            news = first.news() => match news {
                Some((held, result @ Err(_))) => Ok(Landed { held, result, hedge: Some(hedge) }),
                Some(end) => {
                    self.leave_hedge(*hedge);
                    Ok(Landed::alone(end))
                }
                None => {
                    self.leave_hedge(*hedge);
                    Ok(Landed::alone(first.end().await))
                }
            },
            news = hedge.flight.news() => match news {
                Some((held, Err(fault))) => {
                    let Hedge { to, target, call, began, .. } = *hedge;
                    self.hedge_failed(to, &target, call, &began, held, fault);
                    Ok(Landed::alone(first.end().await))
                }
                Some((held, Ok(received))) => {
                    drop(first);
                    self.note_left(index, facts, began);
                    self.note_won(index, &hedge.target);
                    let Hedge { target, call, began, .. } = *hedge;
                    Err(Overtaken::Won(Box::new(self.answered(target, received, held, call, &began))))
                }
                None => {
                    drop(first);
                    self.note_left(index, facts, began);
                    self.note_won(index, &hedge.target);
                    Err(self.hedge_end(hedge).await.map_or_else(Overtaken::Broke, Overtaken::Won))
                }
            },
        }
    }

    /// Awaits the hedge of an attempt that has failed.
    pub(super) async fn await_hedge(
        &mut self,
        index: usize,
        hedge: Option<Box<Hedge<'c, E::Answer>>>,
    ) -> Option<Box<Served<E::Answer>>> {
        let hedge = hedge?;
        let target = hedge.target.clone();
        let served = self.hedge_end(hedge).await.ok()?;
        self.note_won(index, &target);
        Some(served)
    }

    /// Leaves a hedge because the attempt it was to help has decided the call.
    pub(super) fn leave_hedge(&mut self, hedge: Hedge<'c, E::Answer>) {
        let Hedge { target, began, flight, .. } = hedge;
        drop(flight);
        self.record(&target, &began, AttemptOutcome::Cancelled);
    }

    /// Sends the call to the first later target that may have it at this moment, if the budget has a hedge.
    fn launch(&mut self, index: usize, slow: &Began) -> Option<Box<Hedge<'c, E::Answer>>> {
        let now = self.client.clock.now();
        if now >= self.plan.deadline || !self.client.hedges.try_withdraw() {
            return None;
        }
        let others: Vec<usize> = self.alternatives(index, now).collect();
        let hedge = others.into_iter().find_map(|to| self.hedge_to(index, to, now));
        let Some(hedge) = hedge else {
            self.client.hedges.give_back();
            return None;
        };
        let (from, to) = (&self.plan.targets[index].member, &hedge.target);
        let waited = now.saturating_since(slow.sent_at());
        Counters::add(&self.client.calls.hedged);
        telemetry::hedged(&from.name, &to.member.name, &to.model, waited);
        let at = now.saturating_since(Timestamp::ZERO);
        from.scope.publish(|| ClientEvent::Hedged {
            from: from.name.to_string(),
            to: to.member.name.to_string(),
            waited,
            at,
        });
        Some(Box::new(hedge))
    }

    /// The call on its way to this target, if it is another provider's, healthy, able to take it and free. Another key
    /// of the same provider is not another provider: what is slow there is slow for both.
    fn hedge_to(&mut self, index: usize, to: usize, now: Timestamp) -> Option<Hedge<'c, E::Answer>> {
        let target = self.plan.targets[to].clone();
        let scope = Arc::clone(&target.member.scope);
        // A circuit that is being tested has no slot to spare for a call that somebody else is likely to answer.
        if target.member.head() == self.plan.targets[index].member.head() || !scope.is_closed(&target.model) {
            return None;
        }
        let asked = self.exchange.asked().model().to_owned();
        let guard = self.client.loaded.config.guard_whole_answers && !target.refuses_streams();
        let encoded = self.try_encode(&target, guard);
        let facts = self.facts(&target);
        self.exchange.asked_mut().set_model(&asked);
        // Whole, it could not tell when it begins.
        let encoded = encoded.ok().filter(|encoded| encoded.streaming == Streaming::Stream)?;
        let mut call = self.call(&target, &facts, now);
        call.alternative = self.alternatives(to, now).next().is_some();
        let held = scope.admit_now(&call, now)?;
        let limits = self.limits(&target, &call, Streaming::Stream, facts.reasons_first);
        let watch = Watch::new(Arc::clone(&self.client.clock), limits, now, self.plan.deadline);
        let outgoing = Outgoing { encoded, watch };
        let flight = Flight::new::<E>(self.client, target.clone(), outgoing, facts, held);
        Some(Hedge { to, target, call, began: Began { at: now, queued: Duration::ZERO }, flight })
    }

    /// The end of a hedge that flies alone.
    async fn hedge_end(&mut self, hedge: Box<Hedge<'c, E::Answer>>) -> Result<Box<Served<E::Answer>>, Error> {
        let Hedge { to, target, call, began, flight } = *hedge;
        let (held, result) = flight.end().await;
        match result {
            Ok(received) => Ok(Box::new(self.answered(target, received, held, call, &began))),
            Err(fault) => Err(self.hedge_failed(to, &target, call, &began, held, fault)),
        }
    }

    /// Tells the layers that a hedge failed. It is not tried again as a hedge, so it takes no retry from a budget.
    fn hedge_failed(
        &mut self,
        to: usize,
        target: &Target,
        mut call: Call,
        began: &Began,
        held: Held,
        fault: Fault,
    ) -> Error {
        let said = match fault {
            Fault::Deadline { heard } => return self.interrupted(target, held, &mut call, heard, began),
            Fault::Provider(said) => said,
        };
        let never = said.failure.kind.meaning().retry == Retry::Never;
        let then = self.failed(target, said, held, &mut call, Retries::None, began);
        let (Then::Again { error, .. } | Then::Next(error) | Then::Stop(error)) = &then;
        let error = error.clone();
        if never {
            self.hopeless = Some((to, then));
        }
        error
    }

    /// The slow attempt was left. What is known of its first content is that it takes longer.
    fn note_left(&mut self, index: usize, facts: &Facts, began: &Began) {
        let target = self.plan.targets[index].clone();
        let elapsed = self.client.clock.now().saturating_since(began.sent_at());
        target.member.scope.missed_first_token(facts.model, facts.reasons_first, elapsed);
        self.record(&target, began, AttemptOutcome::Cancelled);
    }

    fn note_won(&self, index: usize, winner: &Target) {
        let from = &self.plan.targets[index].member;
        Counters::add(&self.client.calls.hedges_won);
        telemetry::hedge_won(&from.name, &winner.member.name);
        let at = self.client.clock.now().saturating_since(Timestamp::ZERO);
        from.scope.publish(|| ClientEvent::HedgeWon {
            from: from.name.to_string(),
            to: winner.member.name.to_string(),
            at,
        });
    }
}
