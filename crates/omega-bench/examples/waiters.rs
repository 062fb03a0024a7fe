//! What a queue costs as it grows: `cargo run --release -p omega-bench --example waiters`.
//!
//! For each length: bytes of the process for one waiter, and the time of one more (asked, queued, gone again).
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock itself")]

use std::hint::black_box;
use std::time::Instant;

use omega_policy::{
    Admission, Call, Demand, LimiterConfig, ModelId, Pipeline, PipelineConfig, TenantId, Ticket, Timestamp,
};

const ROUNDS: u64 = 2_000;

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4_096
}

fn main() {
    println!("{:>10} {:>10} {:>18} {:>14}", "tenants", "waiting", "bytes per waiter", "one more, ns");
    for tenants in [1, 1_000] {
        for waiting in [1_000, 10_000, 100_000, 1_000_000] {
            measure(tenants, waiting);
        }
    }
}

fn measure(tenants: u64, waiting: u64) {
    let now = Timestamp::from_secs(1);
    let limiter = LimiterConfig { max_queue: 2_000_000, max_concurrent: None, ..LimiterConfig::default() };
    let mut pipeline = Pipeline::new(PipelineConfig { limiter, ..PipelineConfig::default() }, now);
    let demand = Demand { input_tokens: 100, max_output_tokens: Some(100) };
    let call = |number: u64| Call {
        tenant: TenantId((number % tenants) as u32 + 1),
        ..Call::new(ModelId(1), demand, Timestamp::MAX, now)
    };
    let mut permits = Vec::new();
    while let Admission::Granted(permit) = pipeline.admit(&call(0), now) {
        permits.push(permit);
    }
    let mut ask = |number: u64| match pipeline.admit(black_box(&call(number)), now) {
        Admission::Queued(ticket) => Some(ticket),
        _ => None,
    };
    let before = resident();
    let tickets: Vec<Ticket> = (0..waiting).filter_map(&mut ask).collect();
    let bytes = resident().saturating_sub(before) / waiting;
    let start = Instant::now();
    for number in 0..ROUNDS {
        if let Admission::Queued(ticket) = pipeline.admit(black_box(&call(number)), now) {
            pipeline.leave(ticket, now);
        }
    }
    let each = start.elapsed().as_nanos() as u64 / ROUNDS;
    println!("{tenants:>10} {:>10} {bytes:>18} {each:>14}", tickets.len());
}
