//! A queue of any length uses bounded memory: so much for each waiter, and nothing is left when they have gone.
#![cfg(target_os = "linux")]

mod support;

use omega_policy::*;
use support::*;

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("the process has a size");
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4_096
}

#[test]
fn a_waiter_costs_less_than_half_a_kilobyte() {
    const WAITERS: u64 = 20_000;
    let mut rig = Rig::with(|config| config.limiter.max_queue = WAITERS as usize);
    let _permits = rig.exhaust(60);
    let before = resident();
    let tickets: Vec<Ticket> = (0..WAITERS)
        .map(|number| {
            // Spread over priorities, tenants and models, as costly as it gets.
            let call = Call {
                priority: Priority::ALL[number as usize % 3],
                tenant: TenantId(number as u32 % 1_000),
                ..rig.of_model(number as u32 % 10)
            };
            rig.queued(&call)
        })
        .collect();
    let each = resident().saturating_sub(before) / WAITERS;
    assert!(each < 512, "{each} bytes for each");
    for ticket in tickets {
        rig.pipeline.leave(ticket, rig.now);
    }
    assert_eq!((rig.stats().limiter.queued, rig.pipeline.next_timeout()), (0, None));
}
