//! Instruction counts of the same round trips: the regression gate. Counts do not depend on how busy the machine is.
//!
//! `cargo install gungraun-runner --version =0.20.0 --locked`, valgrind, then
//! `cargo bench -p omega-bench --bench instructions`. A count of ours above its limit fails the run; the peers' are
//! shown beside it.
#![allow(clippy::disallowed_methods, reason = "a benchmark pays for the clock it measures")]
#![allow(missing_docs, reason = "gungraun's macros expand to undocumented items")]

use std::hint::black_box;

use contenders::{Composed, Omega, ThrottleNet};
use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};

#[path = "support/contenders.rs"]
mod contenders;

/// Round trips in one measurement, so that entering and leaving it disappears among them.
const ROUNDS: u32 = 1_000;

/// Instructions that [`ROUNDS`] round trips of ours may take: 5 % above what was last measured (docs/numbers.md).
///
/// It was 1,106,000 before the limiter learned bursts, remembered departures for the headers of late answers, and
/// queued by class and tenant: each of these is asked on every admission.
const OURS_AT_MOST: u64 = 1_546_000;

fn rounds(work: impl Fn() -> bool) {
    for _ in 0..ROUNDS {
        assert!(black_box(work()));
    }
}

#[library_benchmark(config = LibraryBenchmarkConfig::default()
    .tool(Callgrind::default().hard_limits([(EventKind::Ir, OURS_AT_MOST)])))]
#[bench::uncontended(Omega::new())]
fn omega(contender: Omega) -> Omega {
    rounds(|| contender.round_trip());
    contender
}

#[library_benchmark]
#[bench::uncontended(ThrottleNet::new())]
fn throttle_net(contender: ThrottleNet) -> ThrottleNet {
    rounds(|| contender.round_trip());
    contender
}

#[library_benchmark]
#[bench::uncontended(Composed::new())]
fn composed(contender: Composed) -> Composed {
    rounds(|| contender.round_trip());
    contender
}

library_benchmark_group!(name = admit_and_complete_1000, benchmarks = [omega, throttle_net, composed]);

main!(library_benchmark_groups = admit_and_complete_1000);
