//! The hand-over of a permit under every schedule that two or three threads can have: one gives a permit back, those who
//! wait are served, look, and go away, in any order. The real scope, with time standing still: no timer comes to the aid
//! of a wake-up that was lost, so a waiter that was forgotten waits for ever, and that is reported.
//!
//! Run by hand (CONTRIBUTING.md, slow checks):
//!
//! ```text
//! RUSTFLAGS='--cfg omega_loom' cargo test --profile schedules -p omega-client --lib scope::handover
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake};
use std::time::Duration;

use loom::model::Builder;
use loom::sync::{Condvar, Mutex};
use loom::thread;
use omega_policy::{
    Call, Chance, Demand, LimiterConfig, ModelId, Outcome, Pipeline, PipelineConfig, Timestamp, TokenLimits,
};
use tokio::sync::broadcast;

use crate::clock::SimulatedClock;
use crate::registry::Models;
use crate::scope::{Decision, Held, Place, Scope};

#[test]
fn a_permit_given_back_reaches_the_one_who_waits() {
    check(|| {
        let (scope, held) = one_slot();
        let waiter = queue(&scope);
        let gives_back = thread::spawn(move || complete(held));
        drop(wait(waiter));
        gives_back.join().expect("it ends");
        assert_eq!(scope.outstanding(), (0, 0));
    });
}

#[test]
fn a_waiter_that_goes_away_leaves_the_permit_to_the_next() {
    check(|| {
        let (scope, held) = one_slot();
        let (first, second) = (queue(&scope), queue(&scope));
        let gives_back = thread::spawn(move || drop(held));
        let goes_away = thread::spawn(move || {
            let mut first = first;
            let seen = look(&mut first, &Arc::default());
            drop((first, seen));
        });
        drop(wait(second));
        gives_back.join().expect("it ends");
        goes_away.join().expect("it ends");
        assert_eq!(scope.outstanding(), (0, 0));
    });
}

#[test]
fn of_two_waiters_both_are_served_by_one_slot() {
    check(|| {
        let (scope, held) = one_slot();
        let (first, second) = (queue(&scope), queue(&scope));
        let gives_back = thread::spawn(move || complete(held));
        let other = thread::spawn(move || drop(wait(second)));
        complete(wait(first));
        gives_back.join().expect("it ends");
        other.join().expect("it ends");
        assert_eq!(scope.outstanding(), (0, 0));
    });
}

#[test]
fn a_task_that_polls_with_a_new_waker_is_woken_by_that_one() {
    check(|| {
        let (scope, held) = one_slot();
        let mut waiter = queue(&scope);
        let gives_back = thread::spawn(move || drop(held));
        let held = look(&mut waiter, &Arc::default()).unwrap_or_else(|| wait(waiter));
        drop(held);
        gives_back.join().expect("it ends");
        assert_eq!(scope.outstanding(), (0, 0));
    });
}

#[test]
fn a_newcomer_and_a_waiter_do_not_share_one_slot() {
    check(|| {
        let (scope, held) = one_slot();
        let waiter = queue(&scope);
        let newcomer = {
            let scope = Arc::clone(&scope);
            thread::spawn(move || {
                let held = scope.admit_now(&call(), Timestamp::ZERO);
                assert!(scope.outstanding().0 <= 2, "its own, and one that another has given up since");
                drop(held);
            })
        };
        drop(held);
        drop(wait(waiter));
        newcomer.join().expect("it ends");
        assert_eq!(scope.outstanding(), (0, 0));
    });
}

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.max_branches = 10_000;
    let schedules = Arc::new(AtomicUsize::new(0));
    let tried = Arc::clone(&schedules);
    builder.check(move || {
        tried.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!("{schedules:?} schedules");
}

/// A scope whose only slot is taken.
fn one_slot() -> (Arc<Scope>, Held) {
    let limiter = LimiterConfig {
        requests_per_minute: None,
        tokens: TokenLimits::Total(None),
        max_concurrent: Some(1),
        ..LimiterConfig::default()
    };
    let pipeline = Pipeline::new(PipelineConfig { limiter, ..PipelineConfig::default() }, Timestamp::ZERO);
    let (subscribers, _) = broadcast::channel(1);
    let scope =
        Scope::new("provider", pipeline, Models::default(), Arc::new(SimulatedClock::default()), subscribers);
    match scope.admit(&call(), None, Timestamp::ZERO) {
        Decision::Granted(held) => (scope, held),
        _ => panic!("a full limiter grants"),
    }
}

fn call() -> Call {
    let demand = Demand { input_tokens: 1, max_output_tokens: Some(1) };
    Call::new(ModelId::OTHER, demand, Timestamp::ZERO + Duration::from_secs(60), Timestamp::ZERO)
}

fn queue(scope: &Arc<Scope>) -> Place {
    match scope.admit(&call(), None, Timestamp::ZERO) {
        Decision::Queued(place) => place,
        _ => panic!("its only slot is taken"),
    }
}

fn complete(held: Held) {
    let _ = held.complete(&mut call(), &Outcome::Success { usage: None }, Timestamp::ZERO, Chance::ZERO);
}

fn look(place: &mut Place, bell: &Arc<Bell>) -> Option<Held> {
    match Pin::new(place).poll(&mut Context::from_waker(&Arc::clone(bell).into())) {
        Poll::Ready(result) => Some(result.expect("nothing here is refused")),
        Poll::Pending => None,
    }
}

/// Waits for its turn as an executor would.
fn wait(mut place: Place) -> Held {
    let bell = Arc::<Bell>::default();
    loop {
        if let Some(held) = look(&mut place, &bell) {
            return held;
        }
        let mut rung = bell.rung.lock().expect("nothing panics");
        while !*rung {
            rung = bell.rings.wait(rung).expect("nothing panics");
        }
        *rung = false;
    }
}

#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    rings: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().expect("nothing panics") = true;
        self.rings.notify_one();
    }
}
