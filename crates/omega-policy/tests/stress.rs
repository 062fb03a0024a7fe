//! Four threads and a real clock: what holds in virtual time holds under a mutex, too.

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use omega_policy::*;
use support::*;

const THREADS: u32 = 4;
const RUN: Duration = Duration::from_millis(1_200);
const PER_SECOND: u64 = 1_000;
const BURST: u64 = 1_000;
const IN_FLIGHT: u64 = 3;

#[expect(
    clippy::disallowed_methods,
    reason = "the clock is what is tested here: readings that race each other"
)]
fn clock() -> Instant {
    Instant::now()
}

// TN-001: with a stale reading reused under contention, a limiter of 1000/s granted 77,000 calls in two seconds. Here
// every thread reads the clock *before* it takes the lock, so that readings arrive out of order all the time.
#[test]
fn tn_001_four_threads_on_a_real_clock_are_never_granted_more_than_depth_and_rate() {
    let config = PipelineConfig {
        limiter: LimiterConfig {
            requests_per_minute: Some(PER_SECOND * 60),
            tokens: TokenLimits::Total(None),
            max_concurrent: Some(IN_FLIGHT as u32),
            burst: seconds(1),
            depth_margin: Duration::ZERO,
            ..LimiterConfig::default()
        },
        ..PipelineConfig::default()
    };
    let origin = clock();
    let now = || Timestamp::from_nanos(origin.elapsed().as_nanos() as u64);
    let pipeline = Mutex::new(Pipeline::new(config, now()));
    let (granted, running) = (AtomicU64::new(0), AtomicU64::new(0));
    let template = Rig::new().call();

    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (pipeline, granted, running, now, template) =
                (&pipeline, &granted, &running, &now, &template);
            scope.spawn(move || {
                for turn in 0u32.. {
                    let at = now();
                    if at >= Timestamp::ZERO + RUN {
                        return;
                    }
                    let mut call = Call { admit_by: at, ..template.clone() };
                    let admission = pipeline.lock().expect("no thread panics").admit(&call, at);
                    let Admission::Granted(permit) = admission else { continue };
                    granted.fetch_add(1, Ordering::Relaxed);
                    assert!(
                        running.fetch_add(1, Ordering::SeqCst) < IN_FLIGHT,
                        "more calls in flight than may be"
                    );
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    let at = now();
                    let mut pipeline = pipeline.lock().expect("no thread panics");
                    if (turn + thread) % 3 == 0 {
                        pipeline.cancel(permit, Spent::Sent { seen: None }, at);
                    } else {
                        pipeline.complete(&mut call, permit, &success(), at, Chance::ZERO);
                    }
                }
            });
        }
    });

    let elapsed = now();
    let granted = granted.into_inner();
    let most = BURST + elapsed.as_nanos() * PER_SECOND / 1_000_000_000 + 1;
    assert!(granted <= most, "{granted} granted, {most} would have been all there was");
    assert!(granted >= BURST, "{granted} granted of a full bucket of {BURST}");
    let stats = pipeline.into_inner().expect("no thread panicked").stats(elapsed);
    assert_eq!((stats.limiter.concurrent_requests, stats.limiter.queued), (0, 0));
    assert_eq!(stats.retry.attempts, granted);
}
