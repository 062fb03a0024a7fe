//! The scope under schedules by the ten thousand: five to twenty tasks arrive, wait, go away at any poll, run out of time,
//! answer, fail and are throttled, while limits change and the circuit is opened and closed over their heads.
//!
//! Run by hand, with a scheduler in the place of the operating system's (CONTRIBUTING.md, slow checks):
//!
//! ```text
//! RUSTFLAGS='--cfg omega_shuttle' cargo test --profile schedules -p omega-client --lib scope::schedules
//! ```
//!
//! `OMEGA_SCHEDULES` is how many each test tries. A failure prints its schedule; `SHUTTLE_RANDOM_SEED` repeats a run.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use omega_policy::{
    BreakerConfig, BreakerMode, BreakerScope, Call, Chance, Demand, Failure, FailureKind, HintedQuota,
    LimiterConfig, ModelId, ModelLimits, Outcome, PipelineConfig, Priority, QuotaHint, RetryConfig,
    Scope as Concerns, TenantId, TokenLimits, Usage, Verdict,
};
use omega_protocol::InputEstimate;
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

use crate::clock::Timer;
use crate::scope::{Counters, Decision, Held, Place};
use world::{Bounds, Me, World, happenings};

mod world;

const MODELS: u32 = 3;
/// Requests per minute at least, where the provider as a whole is limited.
const RPM_MIN: u64 = 30;
/// Its tokens per minute, if these are.
const TPM: u64 = 60_000;
/// For each test, in ten seconds.
const SCHEDULES: usize = 20_000;

#[test]
fn random_schedules_lose_no_waiter_and_no_permit() {
    check(RandomScheduler::new(schedules()));
}

#[test]
fn schedules_with_few_preemptions_lose_no_waiter_and_no_permit() {
    for depth in [2, 3, 5] {
        check(PctScheduler::new(depth, schedules() / 3));
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a check that is run by hand may take")]
fn schedules() -> usize {
    std::env::var("OMEGA_SCHEDULES").ok().and_then(|number| number.parse().ok()).unwrap_or(SCHEDULES)
}

fn check(scheduler: impl Scheduler + 'static) {
    let mut config = Config::new();
    config.max_steps = MaxSteps::FailAfter(1_000_000);
    config.stack_size = 0x2_0000;
    config.silence_warnings = true;
    let seen = Arc::<Counters>::default();
    let schedules = {
        let seen = Arc::clone(&seen);
        Runner::new(scheduler, config).run(move || one_schedule(&seen))
    };
    println!("{schedules} schedules: {seen:?}");
    for counter in happenings(&seen) {
        let times = counter.load(Ordering::SeqCst);
        assert!(times as usize > schedules / 10, "what is checked hardly happens: {seen:?}");
    }
}

fn one_schedule(seen: &Counters) {
    let (config, bounds) = limits();
    let world = World::new(config, bounds, MODELS);
    let callers = thread_rng().gen_range(4..=19);
    let mut tasks: Vec<_> = (0..callers).map(|_| world.spawn(caller)).collect();
    tasks.push(world.spawn(operator));
    world.run();
    for task in tasks {
        task.join().expect("no task panics");
    }
    world.check_end(seen);
}

/// Limits that a few calls reach.
fn limits() -> (PipelineConfig, Bounds) {
    let mut rng = thread_rng();
    let bounds = Bounds {
        in_flight: rng.gen_range(1..=4),
        burst: rng.gen_range(1..=6),
        per_minute: rng.gen_range(RPM_MIN..=1_200),
    };
    let limiter = LimiterConfig {
        requests_per_minute: Some(bounds.per_minute),
        tokens: TokenLimits::Total(rng.gen_bool(0.7).then_some(TPM)),
        max_concurrent: Some(bounds.in_flight as u32),
        burst: Duration::from_secs(60) * bounds.burst as u32 / bounds.per_minute as u32,
        depth_margin: Duration::ZERO,
        ease_off: rng.gen_bool(0.3),
        aging: Duration::from_millis(rng.gen_range(0..500)),
        max_queue: if rng.gen_bool(0.2) { 4 } else { 100 },
        ..LimiterConfig::default()
    };
    let breaker = BreakerConfig {
        failure_threshold: rng.gen_range(1..=4),
        success_threshold: 1,
        timeout: Duration::from_millis(rng.gen_range(10..2_000)),
        half_open_max_calls: rng.gen_range(1..=2),
        half_open_timeout: Duration::from_millis(rng.gen_range(10..1_000)),
        scope: if rng.gen_bool(0.5) { BreakerScope::Model } else { BreakerScope::Provider },
        queue_when_open: rng.gen_bool(0.5),
        ..BreakerConfig::default()
    };
    (PipelineConfig { breaker, limiter, retry: RetryConfig::default() }, bounds)
}

/// Somebody who calls once or twice, as the driver does, and may go away at any moment.
fn caller(me: &Me) {
    me.sleep(milliseconds(0..300));
    for _ in 0..thread_rng().gen_range(1..=2) {
        call_once(me);
    }
}

fn call_once(me: &Me) {
    let (world, mut rng) = (&me.world, thread_rng());
    let now = world.now();
    let demand = Demand {
        input_tokens: rng.gen_range(1..2_000),
        max_output_tokens: rng.gen_bool(0.5).then(|| rng.gen_range(1..1_000)),
    };
    let mut call = Call::new(ModelId(rng.gen_range(1..=MODELS)), demand, now + milliseconds(1..8_000), now);
    call.admit_by = now + milliseconds(0..4_000);
    call.priority = Priority::ALL[rng.gen_range(0..3)];
    call.tenant = TenantId(rng.gen_range(0..3));
    call.alternative = rng.gen_bool(0.3);
    call.failover_wait = milliseconds(0..500);
    loop {
        let now = world.now();
        if rng.gen_bool(0.1) {
            // Somebody who hedges asks for what is free at this moment, and then thinks better of it.
            if let Some(held) = world.scope.admit_now(&call, now) {
                world.took();
                world.gives_back(false);
                drop(held);
            }
        }
        let patience = call.alternative.then(|| milliseconds(0..100));
        let held = match world.scope.admit(&call, patience, now) {
            Decision::Granted(held) => held,
            Decision::Queued(place) => match wait(me, place) {
                Some(held) => held,
                None => return,
            },
            Decision::Busy(_) | Decision::Refused(_) => return,
        };
        world.took();
        match attempt(me, held, &mut call) {
            Some(Verdict::RetryAt { at, .. }) if at < call.deadline => me.sleep_until(at),
            _ => return,
        }
    }
}

/// How a caller waits for its turn.
enum Waiting {
    /// To the end.
    Patiently,
    /// For so many polls, at most; then it drops its place or leaves it for a better one.
    Polls(u32),
    /// So long at most.
    Time(Duration),
    /// It looks once, then does something else for so long, and only then looks again or goes.
    Frozen(Duration),
}

fn wait(me: &Me, mut place: Place) -> Option<Held> {
    let mut rng = thread_rng();
    let waiting = match rng.gen_range(0..10) {
        0..=4 => Waiting::Patiently,
        5 | 6 => Waiting::Polls(rng.gen_range(0..4)),
        7 | 8 => Waiting::Time(milliseconds(0..1_000)),
        _ => Waiting::Frozen(milliseconds(1..3_000)),
    };
    let ends = match waiting {
        Waiting::Time(time) => Some(me.world.now() + time),
        _ => None,
    };
    let (mut timer, mut waker, mut polls) = (Timer::default(), me.waker(), 0);
    loop {
        if let Waiting::Polls(most) = waiting
            && polls == most
        {
            if rng.gen_bool(0.5) {
                place.leave();
            }
            return None;
        }
        if rng.gen_bool(0.2) {
            waker = me.waker();
        }
        let mut cx = Context::from_waker(&waker);
        if let Poll::Ready(result) = Pin::new(&mut place).poll(&mut cx) {
            return result.ok();
        }
        polls += 1;
        if let Some(ends) = ends
            && timer.poll_at(ends, &me.world.clock, &mut cx).is_ready()
        {
            return None;
        }
        match waiting {
            Waiting::Frozen(time)
                if polls == 1 && place.ticket.is_some_and(|ticket| me.world.freeze(ticket)) =>
            {
                me.sleep(time);
                let goes = rng.gen_bool(0.5);
                if goes {
                    drop(place);
                    me.world.thaw();
                    return None;
                }
                me.world.thaw();
                waker = me.waker();
            }
            _ => me.park(),
        }
    }
}

/// One attempt, from the permit to its verdict; `None` if its caller goes away in the middle.
fn attempt(me: &Me, mut held: Held, call: &mut Call) -> Option<Verdict> {
    let (world, mut rng) = (&me.world, thread_rng());
    if rng.gen_bool(0.1) {
        world.gives_back(false);
        return None;
    }
    held.sent(InputEstimate::default());
    if rng.gen_bool(0.8) {
        me.sleep(milliseconds(0..400));
    }
    if rng.gen_bool(0.3) {
        held.first_token(call.model, false, milliseconds(1..400), world.now());
    }
    if rng.gen_bool(0.4) {
        held.handle_hint(&hint(), world.now());
    }
    if rng.gen_bool(0.1) {
        world.gives_back(true);
        return None;
    }
    let outcome = outcome();
    world.gives_back(true);
    Some(held.complete(call, &outcome, world.now(), Chance::from_bits(rng.r#gen())))
}

fn outcome() -> Outcome {
    let mut rng = thread_rng();
    let mut failure = match rng.gen_range(0..10) {
        0..=4 => {
            let usage =
                Usage { input_tokens: rng.gen_range(1..2_000), output_tokens: 100, ..Usage::default() };
            return Outcome::Success { usage: rng.gen_bool(0.8).then_some(usage) };
        }
        5 | 6 => Failure::new(FailureKind::Throttled),
        7 => Failure::new(FailureKind::Server),
        8 => Failure::new(FailureKind::Overloaded),
        _ => Failure::new(FailureKind::OutOfQuota),
    };
    if failure.kind == FailureKind::OutOfQuota || rng.gen_bool(0.3) {
        failure.scope = Concerns::Model { resets_in: Some(milliseconds(1..1_000)) };
    }
    if rng.gen_bool(0.5) {
        failure = failure.with_retry_after(milliseconds(0..1_500));
    }
    Outcome::Failure(failure)
}

/// Headers that tighten what the limiter believes, or loosen it. Requests are only ever tightened: where a header names
/// the configured limit, what it says is left is believed, and then a burst is no bound on what is granted.
fn hint() -> QuotaHint {
    let mut rng = thread_rng();
    let mut quota = |limit: u64, most: u64| {
        rng.gen_bool(0.7).then(|| HintedQuota {
            limit: rng.gen_bool(0.7).then_some(limit),
            remaining: rng.gen_bool(0.7).then(|| rng.gen_range(0..most)),
            reset: None,
        })
    };
    let requests = quota(RPM_MIN - 1, 8);
    QuotaHint { requests, tokens: quota(TPM, 4_000), ..QuotaHint::default() }
}

/// Somebody with the keys: resets and forces the circuit, and changes the limits of a model.
fn operator(me: &Me) {
    let (world, mut rng) = (&me.world, thread_rng());
    for _ in 0..rng.gen_range(0..6) {
        me.sleep(milliseconds(0..600));
        let now = world.now();
        match rng.gen_range(0..5) {
            0 => world.scope.reset_circuit(),
            1 => {
                world.scope.decide(now, |state| state.pipeline.set_breaker_mode(BreakerMode::ForcedOpen, now))
            }
            2 => world.scope.decide(now, |state| state.pipeline.set_breaker_mode(BreakerMode::Auto, now)),
            3 => {
                let (tenant, weight) = (TenantId(rng.gen_range(0..3)), rng.gen_range(1..5));
                world.scope.decide(now, |state| state.pipeline.weigh_tenant(tenant, weight));
            }
            _ => {
                let limits = ModelLimits {
                    requests_per_minute: rng.gen_bool(0.7).then(|| rng.gen_range(30..1_200)),
                    tokens_per_minute: rng.gen_bool(0.5).then(|| rng.gen_range(20_000..60_000)),
                    max_concurrent: rng.gen_bool(0.7).then(|| rng.gen_range(1..4)),
                };
                let model = ModelId(rng.gen_range(1..=MODELS));
                world.scope.decide(now, |state| state.pipeline.limit_model(model, limits, now));
            }
        }
        let _ = world.scope.stats();
        let _ = world.scope.is_shut("model-1", now);
    }
    world.scope.decide(world.now(), |state| state.pipeline.set_breaker_mode(BreakerMode::Auto, world.now()));
}

fn milliseconds(range: std::ops::Range<u64>) -> Duration {
    // Not only whole ones: what happens hardly apart is what the thresholds in the scope are about.
    Duration::from_micros(thread_rng().gen_range(range.start * 1_000..range.end * 1_000))
}
