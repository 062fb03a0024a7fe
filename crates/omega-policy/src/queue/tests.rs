use std::time::Duration;

use super::*;
use crate::limiter::Cost;

const AGING: Duration = Duration::from_millis(7_500);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_secs(seconds)
}

fn queue() -> Queue {
    Queue::new(AGING, 0)
}

fn waiter(slot: usize, seconds: u64) -> Waiter {
    Waiter {
        model: ModelId(slot as u32),
        slot,
        load: Load { reserve: Cost::of_call(10, 5), output: 5 },
        service: 15,
        priority: Priority::Normal,
        tenant: TenantId::NONE,
        arrived: Timestamp::ZERO,
        deadline: at(seconds),
        first_try: true,
        stays: false,
    }
}

fn of_tenant(tenant: u32, service: u64) -> Waiter {
    let load = Load { reserve: Cost::of_call(service, 0), output: 0 };
    Waiter { tenant: TenantId(tenant), service, load, ..waiter(0, 1_000) }
}

fn urgent(priority: Priority, arrived: u64) -> Waiter {
    Waiter { priority, arrived: at(arrived), ..waiter(0, 1_000) }
}

fn heads(queue: &Queue) -> Vec<Ticket> {
    queue.heads(at(0)).map(|(_, ticket, _)| ticket).collect()
}

/// Serves everybody, the first in turn at a time, and says whose turns they were.
fn served(queue: &mut Queue, now: Timestamp) -> Vec<(u32, u64)> {
    let mut order = Vec::new();
    while let Some((_, ticket, _)) = queue.heads(now).min_by_key(|(rank, ..)| *rank) {
        let waiter = queue.take_turn(ticket, now).expect("it waits");
        queue.serve(waiter.tenant, waiter.service);
        order.push((waiter.tenant.0, waiter.service));
    }
    order
}

#[test]
fn the_oldest_stands_in_front_and_each_lane_has_a_head() {
    let mut queue = queue();
    let tickets: Vec<_> =
        [0, 1, 0, 2, 1].into_iter().map(|slot| queue.push(waiter(slot, 10), at(0))).collect();
    assert_eq!(queue.oldest(), Some(tickets[0]));
    assert_eq!(heads(&queue), [tickets[0], tickets[1], tickets[3]]);
    queue.remove(tickets[0]);
    assert_eq!(heads(&queue), [tickets[2], tickets[1], tickets[3]]);
}

#[test]
fn whoever_leaves_leaves_nothing_behind() {
    let mut queue = queue();
    let tickets: Vec<_> = (0..100)
        .map(|number| {
            let priority = Priority::ALL[number % 3];
            let tenant = TenantId((number % 5) as u32);
            queue.push(Waiter { priority, tenant, ..waiter(number % 7, 1_000 - number as u64) }, at(0))
        })
        .collect();
    let all = |queue: &Queue| queue.lanes.get(&0).map(|lane| lane.sum.reserve).unwrap_or_default();
    assert_eq!(all(&queue), Cost { requests: 15, input: 150, output: 75 });
    queue.leave(tickets[14]);
    assert_eq!(all(&queue), Cost { requests: 14, input: 140, output: 70 });
    for ticket in tickets.iter().rev().step_by(2).chain(tickets.iter().step_by(2)) {
        queue.leave(*ticket);
    }
    assert!(queue.is_idle());
    assert_eq!((queue.len(), queue.populated), (0, [0; 3]));
    assert!(queue.next_deadline().is_none());
    assert_eq!(queue.lanes().count(), 0);
    assert_eq!(queue.total(), 100);
}

#[test]
fn a_refusal_is_told_once_and_not_to_one_who_left() {
    let mut queue = queue();
    let (stays, leaves) = (queue.push(waiter(0, 1), at(0)), queue.push(waiter(0, 1), at(0)));
    let why = Rejection::CircuitOpen { retry_at: at(9) };
    queue.refuse(stays, why.clone());
    queue.refuse(leaves, why.clone());
    queue.refuse(leaves, why.clone());
    queue.leave(leaves);
    assert_eq!(queue.pop_refused(), Some((stays, why)));
    assert_eq!(queue.pop_refused(), None);
    assert!(queue.is_idle());
}

#[test]
fn deadlines_come_out_in_order_whatever_the_order_of_arrival() {
    let mut queue = queue();
    for seconds in [5, 3, 9, 1, 7] {
        queue.push(waiter(seconds as usize, seconds), at(0));
    }
    let mut seen = Vec::new();
    while let Some((deadline, ticket)) = queue.next_deadline() {
        seen.push(deadline.as_nanos() / 1_000_000_000);
        queue.remove(ticket);
    }
    assert_eq!(seen, [1, 3, 5, 7, 9]);
}

#[test]
fn a_retry_stands_before_those_who_came_after_its_call() {
    let mut queue = queue();
    let first = queue.push(Waiter { arrived: at(10), ..waiter(0, 100) }, at(0));
    let retry = queue.push(Waiter { arrived: at(3), first_try: false, ..waiter(0, 100) }, at(0));
    assert_eq!(heads(&queue), [retry]);
    queue.remove(retry);
    assert_eq!(heads(&queue), [first]);
}

#[test]
fn tenants_take_turns_by_tokens_and_each_is_served_first_come_first_served() {
    let mut queue = queue();
    for _ in 0..4 {
        queue.push(of_tenant(1, 100), at(0));
    }
    queue.push(of_tenant(2, 50), at(0));
    queue.push(of_tenant(2, 150), at(0));
    // By tokens served: 1 has 100, 2 has 50 and then 200, so 1 catches up.
    let order = served(&mut queue, at(0));
    assert_eq!(order, [(1, 100), (2, 50), (2, 150), (1, 100), (1, 100), (1, 100)]);
}

#[test]
fn a_light_tenant_does_not_wait_behind_a_heavy_one_s_queue() {
    let mut queue = queue();
    for _ in 0..1_000 {
        queue.push(of_tenant(1, 100), at(0));
    }
    queue.push(of_tenant(2, 100), at(0));
    let order = served(&mut queue, at(0));
    assert_eq!(order.iter().position(|(tenant, _)| *tenant == 2), Some(1));
}

#[test]
fn weights_divide_what_tenants_are_served() {
    let mut queue = queue();
    queue.set_weight(TenantId(1), 3);
    for _ in 0..300 {
        queue.push(of_tenant(1, 10), at(0));
        queue.push(of_tenant(2, 10), at(0));
    }
    let order = served(&mut queue, at(0));
    let first = order[..200].iter().filter(|(tenant, _)| *tenant == 1).count();
    assert!((149..=151).contains(&first), "{first} of 200");
}

#[test]
fn idleness_is_not_saved_up_and_what_nobody_missed_is_not_held_against_anybody() {
    let mut queue = queue();
    // Tenant 1 is served alone for long; while nobody else waits that costs it nothing.
    queue.serve(TenantId(1), 1_000_000);
    for _ in 0..10 {
        queue.push(of_tenant(1, 100), at(0));
    }
    for _ in 0..5 {
        let (_, ticket, _) = queue.heads(at(0)).next().expect("waits");
        queue.remove(ticket);
        queue.serve(TenantId(1), 100);
    }
    // Tenant 2 comes late and starts from where tenant 1 stands, not from zero.
    for _ in 0..10 {
        queue.push(of_tenant(2, 100), at(0));
    }
    let order = served(&mut queue, at(0));
    let first_ten: Vec<_> = order[..10].iter().map(|(tenant, _)| *tenant).collect();
    assert_eq!(first_ten.iter().filter(|tenant| **tenant == 1).count(), 5, "{first_ten:?}");
}

#[test]
fn two_tenants_that_always_wait_never_differ_by_more_than_twice_the_largest_call() {
    let mut queue = queue();
    let mut chance = 12_345_u64;
    let mut had = [0_i64; 2];
    let mut draw = |most: u64| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (chance >> 33) % most
    };
    for tenant in [1, 2] {
        for _ in 0..3 {
            queue.push(of_tenant(tenant, draw(100)), at(0));
        }
    }
    for _ in 0..10_000 {
        let (_, ticket, waiter) = queue.heads(at(0)).next().expect("waits");
        let (tenant, service) = (waiter.tenant, waiter.service);
        queue.push(of_tenant(tenant.0, draw(100)), at(0));
        queue.remove(ticket);
        queue.serve(tenant, service);
        had[tenant.0 as usize - 1] += service as i64;
        assert!((had[0] - had[1]).abs() <= 200, "{had:?}");
    }
}

#[test]
fn a_tenant_that_comes_back_may_be_served_its_lead_first_and_no_more() {
    let mut queue = Queue::new(AGING, 250);
    for _ in 0..20 {
        queue.push(of_tenant(1, 100), at(0));
    }
    for _ in 0..5 {
        let (_, ticket, _) = queue.heads(at(0)).next().expect("waits");
        queue.take_turn(ticket, at(0));
        queue.serve(TenantId(1), 100);
    }
    for _ in 0..10 {
        queue.push(of_tenant(2, 100), at(0));
    }
    // Tenant 1 has had 500; 400 when it was last served, and tenant 2 starts 250 below that.
    let order: Vec<u32> = served(&mut queue, at(0)).into_iter().map(|(tenant, _)| tenant).collect();
    assert_eq!(order[..8], [2, 2, 2, 2, 1, 2, 1, 2]);
}

#[test]
fn a_tenant_that_waits_and_cannot_go_saves_up_nothing_for_itself_or_others() {
    let mut queue = queue();
    let stuck = Waiter { slot: 5, ..of_tenant(9, 100) };
    queue.push(stuck, at(0));
    for _ in 0..50 {
        queue.push(of_tenant(1, 100), at(0));
        queue.push(of_tenant(2, 100), at(0));
    }
    let serve = |queue: &mut Queue| {
        let heads = queue.heads(at(0)).filter(|(_, _, waiter)| waiter.slot == 0);
        let (_, ticket, waiter) = heads.min_by_key(|(rank, ..)| *rank).expect("waits");
        let (tenant, service) = (waiter.tenant, waiter.service);
        queue.take_turn(ticket, at(0));
        queue.serve(tenant, service);
        tenant.0
    };
    for _ in 0..40 {
        serve(&mut queue);
    }
    for _ in 0..50 {
        queue.push(of_tenant(3, 100), at(0));
    }
    let mut had = [0; 4];
    (0..30).for_each(|_| had[serve(&mut queue) as usize] += 1);
    assert_eq!(
        had[1..],
        [10, 10, 10],
        "the newcomer starts where the others are served, not where the stuck one is"
    );
}

#[test]
fn what_was_not_counted_is_not_corrected() {
    let mut queue = queue();
    assert_eq!(queue.serve(TenantId(1), 100), None, "nobody waits");
    queue.push(of_tenant(1, 100), at(0));
    queue.push(of_tenant(2, 100), at(0));
    let period = queue.serve(TenantId(1), 100).expect("somebody waits");
    queue.correct(TenantId(1), period - 1, 100, 0);
    assert_eq!(queue.heads(at(0)).next().expect("waits").2.tenant, TenantId(2), "of another busy period");
}

#[test]
fn one_absurd_report_does_not_shut_a_tenant_out_and_large_weights_divide() {
    let mut queue = queue();
    queue.set_weight(TenantId(1), 300);
    queue.set_weight(TenantId(2), 600);
    for _ in 0..900 {
        queue.push(Waiter { service: 1, ..of_tenant(1, 1) }, at(0));
        queue.push(Waiter { service: 1, ..of_tenant(2, 1) }, at(0));
    }
    let order = served(&mut queue, at(0));
    let first = order[..900].iter().filter(|(tenant, _)| *tenant == 1).count();
    assert!((299..=301).contains(&first), "{first} of 900");
    queue.push(of_tenant(1, 100), at(0));
    queue.push(of_tenant(2, 100), at(0));
    let period = queue.serve(TenantId(1), 100).expect("somebody waits");
    queue.correct(TenantId(1), period, 100, u64::MAX);
    assert!(queue.tenants.counter(1) < u64::MAX / 2, "bounded");
}

#[test]
fn a_correction_moves_a_tenant_back() {
    let mut queue = queue();
    queue.push(of_tenant(1, 100), at(0));
    queue.push(of_tenant(2, 100), at(0));
    queue.serve(TenantId(1), 500);
    queue.serve(TenantId(2), 100);
    assert_eq!(queue.heads(at(0)).next().expect("waits").2.tenant, TenantId(2));
    queue.correct(TenantId(1), 1, 500, 50);
    assert_eq!(queue.heads(at(0)).next().expect("waits").2.tenant, TenantId(1));
}

#[test]
fn the_more_urgent_go_first_and_those_passed_over_get_a_turn_now_and_then() {
    let mut queue = queue();
    for _ in 0..100 {
        queue.push(urgent(Priority::Low, 0), at(0));
        queue.push(urgent(Priority::High, 10), at(10));
    }
    // Low waits since second 0, behind a class two above it: its turn is due every fifteen seconds.
    assert_eq!(queue.next_promotion(at(10)), Some(at(15)));
    let mut lows = Vec::new();
    for second in 10..60 {
        let (_, ticket, _) = queue.heads(at(second)).next().expect("waits");
        let waiter = queue.take_turn(ticket, at(second)).expect("waits");
        if waiter.priority == Priority::Low {
            lows.push(second);
        }
    }
    assert_eq!(lows, [15, 30, 45], "one turn each time, however long the backlog has waited");
}

#[test]
fn alone_there_is_nobody_to_overtake() {
    let mut queue = queue();
    queue.push(urgent(Priority::Low, 0), at(0));
    assert_eq!(queue.next_promotion(at(100)), None);
}

#[test]
fn the_age_of_calls_does_not_undo_fairness() {
    let mut queue = queue();
    for _ in 0..100 {
        queue.push(Waiter { arrived: at(0), ..of_tenant(1, 100) }, at(0));
    }
    queue.serve(TenantId(1), 100);
    let light = queue.push(Waiter { arrived: at(100), ..of_tenant(2, 100) }, at(0));
    queue.serve(TenantId(1), 100);
    let (_, head, _) = queue.heads(at(100)).next().expect("waits");
    assert_eq!(head, light, "however long the heavy tenant's calls have waited");
}

#[test]
fn a_forecast_counts_what_will_be_served_before() {
    let mut queue = queue();
    for _ in 0..10 {
        queue.push(of_tenant(1, 100), at(0));
    }
    let tokens = |load: Load| load.reserve.input;
    let everything = |_: usize, _: &Waiter| true;
    let ahead =
        |queue: &Queue, priority, tenant| tokens(queue.ahead(priority, TenantId(tenant), everything, at(0)));
    assert_eq!(ahead(&queue, Priority::Normal, 1), 1_000, "its own queue");
    assert_eq!(ahead(&queue, Priority::Normal, 2), 0, "it has had as little as the other");
    assert_eq!(ahead(&queue, Priority::High, 1), 0, "it goes first");
    assert_eq!(ahead(&queue, Priority::Low, 2), 1_000, "it goes last");
    queue.push(of_tenant(2, 300), at(0));
    assert_eq!(ahead(&queue, Priority::Normal, 2), 600, "its own 300, and as much of the other's");
    queue.push(Waiter { priority: Priority::High, ..of_tenant(3, 70) }, at(0));
    assert_eq!(ahead(&queue, Priority::Normal, 1), 1_000 + 300 + 70);
}

#[test]
fn a_flood_of_tenants_is_bounded() {
    let mut queue = queue();
    for tenant in 0..20_000 {
        let ticket = queue.push(of_tenant(tenant, 1), at(0));
        if tenant % 2 == 0 {
            queue.remove(ticket);
        }
    }
    assert!(queue.tenants.accounts() <= 4_096, "{}", queue.tenants.accounts());
}
