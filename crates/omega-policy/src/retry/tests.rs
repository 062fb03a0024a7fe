use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_secs(seconds)
}

fn budget(percent: u32, per_second: u32, opening: u32) -> RetryBudget {
    RetryBudget::new(Some(BudgetConfig { percent, per_second, opening }), at(0))
}

fn drain(budget: &mut RetryBudget, now: Timestamp) -> u32 {
    let mut count = 0;
    while budget.withdraw(now) {
        count += 1;
    }
    count
}

#[test]
fn defaults_are_the_specification_s() {
    let config = RetryConfig::default();
    assert_eq!(config.max_attempts, 3);
    assert_eq!(config.budget, Some(BudgetConfig { percent: 100, per_second: 1, opening: 10 }));
}

#[test]
fn the_opening_balance_is_spent_and_then_refused_at_once() {
    let mut budget = budget(100, 1, 10);
    assert_eq!(drain(&mut budget, at(0)), 10);
    assert_eq!(budget.stats(at(0)).budget_refused, 1);
    assert!(budget.withdraw(at(1)), "one per second for quiet clients");
    assert!(!budget.withdraw(at(1)));
}

// tower: `(1 / ratio) as isize` turns 30 % into 33 %, and check-then-add can overspend.
#[test]
fn tower_thirty_percent_is_thirty_and_not_thirty_three() {
    let mut budget = budget(30, 0, 0);
    for _ in 0..100 {
        budget.sent(true, at(0));
    }
    assert_eq!(drain(&mut budget, at(0)), 30);
}

#[test]
fn retries_earn_nothing() {
    let mut budget = budget(100, 0, 0);
    for _ in 0..100 {
        budget.sent(false, at(0));
    }
    assert_eq!(drain(&mut budget, at(0)), 0);
    assert_eq!((budget.stats(at(0)).attempts, budget.stats(at(0)).retries), (100, 100));
}

#[test]
fn first_tries_are_forgotten_after_the_window_and_not_before() {
    let mut early = budget(100, 0, 0);
    early.sent(true, at(0));
    assert!(early.withdraw(at(100)), "a call that hung for two minutes may still be retried");
    let mut late = budget(100, 0, 0);
    late.sent(true, at(0));
    assert!(!late.withdraw(at(120)));
    let mut gap = budget(100, 0, 0);
    gap.sent(true, at(5));
    gap.sent(true, at(10_000_000_000));
    assert_eq!(drain(&mut gap, at(10_000_000_000)), 1);
}

#[test]
fn the_floor_accrues_exactly_and_is_capped() {
    let mut budget = budget(0, 1, 0);
    let mut granted = 0;
    for tick in 1..=30_000u64 {
        granted += u32::from(budget.withdraw(Timestamp::from_millis(tick)));
    }
    assert_eq!(granted, 30, "thirty seconds, however often it is asked");
    assert_eq!(drain(&mut budget, at(100_000)), 10, "a long silence saves up ten seconds' worth");
}

#[test]
fn a_clock_that_steps_back_gives_nothing() {
    let mut budget = budget(0, 1, 0);
    assert!(budget.withdraw(at(10)));
    drain(&mut budget, at(10));
    assert!(!budget.withdraw(at(3)));
    assert!(!budget.withdraw(at(10)));
    assert!(budget.withdraw(at(11)));
}

#[test]
fn without_a_budget_nothing_is_refused() {
    let mut budget = RetryBudget::new(None, at(0));
    assert!((0..10_000).all(|_| budget.withdraw(at(0))));
}

#[test]
fn extremes_saturate() {
    let mut budget = budget(u32::MAX, u32::MAX, u32::MAX);
    for _ in 0..1_000 {
        budget.sent(true, Timestamp::MAX);
    }
    assert!(budget.withdraw(Timestamp::MAX));
    assert!(budget.stats(Timestamp::MAX).budget_available > 0);
}
