//! Admit + complete, uncontended and with two threads, beside the two closest things one can build from crates:
//! throttle-net's `MultiLimiter` with its breaker, and governor twice with a tokio semaphore and failsafe.
//!
//! `cargo bench -p omega-bench --bench admission`. Ratios within one run are what counts; see docs/numbers.md.
#![allow(clippy::disallowed_methods, reason = "a benchmark pays for the clock it measures")]
#![allow(missing_docs, reason = "criterion's macros expand to undocumented items")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use contenders::{Composed, Omega, ThrottleNet};
use criterion::{Criterion, criterion_group, criterion_main};
use omega_bench::{admit_and_complete, answered, pipeline};
use omega_policy::Timestamp;

#[path = "support/contenders.rs"]
mod contenders;

/// Runs `work` on two threads for `iterations` each and gives the time one thread took per round.
fn on_two_threads(iterations: u64, work: &(impl Fn() -> bool + Sync)) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..iterations).for_each(|_| assert!(work())));
        }
    });
    start.elapsed()
}

fn admission(criterion: &mut Criterion) {
    let (omega, throttle_net, composed) = (Omega::new(), ThrottleNet::new(), Composed::new());
    let contenders: [(&str, &(dyn Fn() -> bool + Sync)); 3] = [
        ("omega", &|| omega.round_trip()),
        ("throttle-net", &|| throttle_net.round_trip()),
        ("governor x2 + semaphore + failsafe", &|| composed.round_trip()),
    ];
    let mut group = criterion.benchmark_group("admit and complete");
    for (name, work) in contenders {
        assert!(work(), "{name} refused: the quota must not bind");
        group.bench_function(format!("1 thread/{name}"), |bencher| bencher.iter(|| black_box(work())));
    }
    for (name, work) in contenders {
        group.bench_function(format!("2 threads/{name}"), |bencher| {
            bencher.iter_custom(|iterations| on_two_threads(iterations, &|| work()));
        });
    }
    let mut bare = pipeline(Timestamp::ZERO);
    let outcome = answered();
    let mut nanos = 0;
    group.bench_function("1 thread/omega, no lock and no clock", |bencher| {
        bencher.iter(|| {
            nanos += 100;
            black_box(admit_and_complete(&mut bare, &outcome, Timestamp::from_nanos(nanos)))
        });
    });
    group.finish();
}

criterion_group!(benches, admission);
criterion_main!(benches);
