//! One quota for many processes: what is granted never exceeds it, nothing of it is lost for long, whatever the store,
//! the network and the processes do.

use std::time::Duration;

use omega_policy::*;

use fleet::{Fleet, Link, Provider, limits};

mod account;
mod fleet;
mod model;

const WAIT: Duration = Duration::from_secs(5);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// 6,000 requests a minute and 600,000 tokens, six seconds deep.
fn busy() -> (PipelineConfig, Provider) {
    (limits(Some(60_000), Some(600_000)), Provider::new(600_000.0, 60_000.0))
}

#[test]
fn a_fleet_of_any_size_spends_the_quota_and_not_more() {
    for members in [1, 4, 16, 64] {
        let (config, provider) = busy();
        let mut fleet = Fleet::new(members, &config, provider);
        // 120 calls of 100 tokens a second, where 100 are allowed.
        fleet.load(120.0, 100, WAIT, secs(60));
        let possible = 60_000.0 + 60.0 * 10_000.0;
        let used = fleet.provider.admitted / possible;
        println!(
            "{members}: {:.4} of the quota, {} exchanges, overdrawn {:.1}",
            used,
            fleet.exchanges(),
            fleet.provider.overdrawn
        );
        assert!(fleet.provider.overdrawn < 1.0, "{members}: overdrawn by {}", fleet.provider.overdrawn);
        assert!(used > 0.985, "{members}: only {used} of the quota was used");
    }
}

/// The part of what flowed in that was used since `before`, in `span` seconds.
fn used(fleet: &Fleet, before: f64, span: u64) -> f64 {
    (fleet.provider.admitted - before) / (fleet.provider.per_minute / 60.0 * span as f64)
}

#[test]
fn who_stands_too_far_back_behind_others_hears_of_it_from_the_store() {
    let (config, provider) = busy();
    let mut fleet = Fleet::new(4, &config, provider);
    fleet.load(100.0, 100, WAIT, secs(2));
    // What is left of the burst, and five seconds of the quota at each of four: each knows nothing of the others'.
    for _ in 0..600 {
        (0..4).for_each(|member| fleet.arrive(member, 100, WAIT));
    }
    let told_at_once: u64 = fleet.members.iter().map(|member| member.refused).sum();
    fleet.load(0.1, 100, WAIT, secs(1));
    let waiting: usize = fleet.members.iter().map(|member| member.waiting.len()).sum();
    assert!(waiting <= 420, "{waiting} wait, where four seconds have room for 400");
    let served: u64 = fleet.members.iter().map(|member| member.let_go).sum();
    fleet.load(0.1, 100, WAIT, secs(6));
    let later: u64 = fleet.members.iter().map(|member| member.let_go).sum();
    let kept = (later - served) as f64 / waiting as f64;
    assert!(
        kept > 0.97,
        "of those who still waited {kept} were served ({told_at_once} were refused at once)"
    );
}

#[test]
fn without_the_store_everybody_goes_on_with_its_share() {
    let (config, provider) = busy();
    let mut fleet = Fleet::new(16, &config, provider);
    fleet.load(120.0, 100, WAIT, secs(20));
    fleet.members.iter_mut().for_each(|member| member.link = Link::Cut);
    let before = fleet.provider.admitted;
    fleet.load(120.0, 100, WAIT, secs(60));
    let offline = used(&fleet, before, 60);
    assert!((0.97..1.05).contains(&offline), "{offline} of the quota without the store");
    assert!(fleet.members.iter().all(|member| {
        member.pipeline.stats(fleet.at()).lease.is_some_and(|lease| lease.is_away && lease.members == 16)
    }));
    fleet.members.iter_mut().for_each(|member| member.link = Link::Up);
    let before = fleet.provider.admitted;
    fleet.load(120.0, 100, WAIT, secs(30));
    let back = used(&fleet, before, 30);
    assert!((0.97..1.01).contains(&back), "{back} of the quota once it was back");
    // Shares add up to the whole; what is at stake is how far apart the processes noticed.
    let bound = fleet.provider.per_minute / 60.0;
    assert!(fleet.provider.overdrawn <= bound, "overdrawn by {}", fleet.provider.overdrawn);
    assert!(
        fleet
            .members
            .iter()
            .all(|member| { member.pipeline.stats(fleet.at()).lease.is_some_and(|lease| lease.is_joined) })
    );
}

#[test]
fn shares_follow_use_when_the_store_is_lost() {
    let (config, provider) = busy();
    let mut fleet = Fleet::new(4, &config, provider);
    // Three quarters of the traffic at the first.
    let skewed = |fleet: &mut Fleet, seconds: u64| {
        for tick in 0..seconds * 120 {
            let member = if tick % 4 == 3 { 1 + (tick / 4 % 3) as usize } else { 0 };
            fleet.arrive(member, 100, WAIT);
            for _ in 0..8 {
                fleet.step();
            }
        }
    };
    skewed(&mut fleet, 20);
    let share = |fleet: &Fleet, member: usize| {
        fleet.members[member].pipeline.stats(fleet.at()).lease.expect("it is shared").share
    };
    let shares: Vec<f64> = (0..4).map(|member| share(&fleet, member)).collect();
    assert!(shares[0] > 0.4, "half evenly, half by use: {shares:?}");
    let sum: f64 = shares.iter().sum();
    assert!((0.9..1.05).contains(&sum), "shares add up: {shares:?}");
}

#[test]
fn one_that_is_cut_off_spends_its_share_beside_the_others_and_no_more() {
    let (config, provider) = busy();
    let mut fleet = Fleet::new(4, &config, provider);
    fleet.load(120.0, 100, WAIT, secs(10));
    fleet.members[2].link = Link::Cut;
    fleet.load(160.0, 100, WAIT, secs(20));
    // It had at most a quarter, and the others had everything: that is the bound.
    let share = fleet.provider.per_minute / 60.0 * 20.0 * 0.3;
    assert!(fleet.provider.overdrawn <= share, "overdrawn by {}", fleet.provider.overdrawn);
    fleet.members[2].link = Link::Up;
    fleet.load(160.0, 100, WAIT, secs(2));
    // The provider has let it pass, or refused it: nobody makes it good.
    let before = fleet.provider.admitted;
    fleet.load(160.0, 100, WAIT, secs(20));
    let after = used(&fleet, before, 20);
    assert!((0.98..1.01).contains(&after), "{after} of the quota once it was back");
}

#[test]
fn nobody_is_refused_before_the_store_was_asked_however_little_time_he_has() {
    // A call a second, of which six may go at once. What others have left of them a process that rests cannot know.
    let mut fleet = Fleet::new(8, &limits(Some(60), None), Provider::new(60.0, 6.0));
    for member in 0..8 {
        fleet.arrive(member, 0, Duration::ZERO);
    }
    fleet.run(Duration::from_millis(100));
    assert_eq!(
        (fleet.let_go(), fleet.refusals_of_waiting),
        (6, 2),
        "the others are told that there is no more"
    );
}

#[test]
fn who_waits_for_the_store_alone_is_not_said_to_have_hit_a_limit() {
    for slots in [None, Some(1_000)] {
        let (mut config, provider) = busy();
        config.limiter.max_concurrent = slots;
        let mut fleet = Fleet::new(4, &config, provider);
        for _ in 0..3 {
            fleet.load(40.0, 100, Duration::ZERO, secs(20));
            // Everything goes back meanwhile, and whoever comes next waits for an answer.
            fleet.run(secs(20));
        }
        assert_eq!(fleet.limit_hits, 0, "there was room for all of them, slots: {slots:?}");
        assert_eq!(fleet.let_go(), 3 * 40 * 20, "however little time they had");
        fleet.load(160.0, 100, WAIT, secs(20));
        assert!(fleet.limit_hits >= 4, "each of them waits for quota: {}", fleet.limit_hits);
    }
}

#[test]
fn who_waits_for_a_slot_that_others_have_is_said_to_have_hit_a_limit() {
    let (mut config, provider) = busy();
    config.limiter.max_concurrent = Some(4);
    let mut fleet = Fleet::new(4, &config, provider);
    fleet.load(40.0, 100, WAIT, secs(20));
    assert!(fleet.limit_hits >= 4, "{}", fleet.limit_hits);
}

/// Eight wait in one process, promised one a second; of another, five calls end 2.5 s later: when the last of the eight
/// goes.
fn last_of_eight_goes_at(outcome: fn(u64) -> Outcome) -> f64 {
    let mut fleet = Fleet::new(2, &limits(Some(60), None), Provider::new(60.0, 6.0));
    (fleet.outcome, fleet.hold) = (outcome, 2_500_000_000);
    for _ in 0..5 {
        fleet.arrive(1, 0, secs(1));
        fleet.run(Duration::from_millis(10));
    }
    for _ in 0..8 {
        fleet.arrive(0, 0, secs(60));
    }
    for _ in 0..30_000 {
        fleet.step();
        if fleet.members[0].let_go == 8 {
            break;
        }
    }
    assert_eq!((fleet.members[0].let_go, fleet.members[1].let_go), (8, 5));
    fleet.seconds()
}

#[test]
fn what_a_stranger_spends_puts_off_what_others_were_promised() {
    let soon = last_of_eight_goes_at(|_| Outcome::Success { usage: None });
    let late = last_of_eight_goes_at(|ended| {
        if ended > 3_000_000_000 {
            return Outcome::Success { usage: None };
        }
        let throttled = Failure::new(FailureKind::Throttled);
        Outcome::Failure(Failure { exhausted: Some(Dimension::Requests), ..throttled })
    });
    // Each of the five makes room for one, which is all that a bucket of six may be charged at once.
    assert!((4.9..5.1).contains(&(late - soon)), "{soon} s, {late} s");
}

#[test]
fn answers_that_never_arrive_cost_nothing() {
    let (config, provider) = busy();
    let mut fleet = Fleet::new(4, &config, provider);
    fleet.load(80.0, 100, WAIT, secs(5));
    for _ in 0..20 {
        fleet.members[1].link = Link::Deaf;
        fleet.load(80.0, 100, WAIT, Duration::from_millis(300));
        fleet.members[1].link = Link::Up;
        fleet.load(80.0, 100, WAIT, Duration::from_millis(1_200));
    }
    let refused: u64 = fleet.members.iter().map(|member| member.refused).sum();
    assert_eq!(refused, 0, "there was quota for all of them");
    assert!(fleet.provider.overdrawn < 1.0, "overdrawn by {}", fleet.provider.overdrawn);
}

#[test]
fn an_emptied_store_does_not_believe_its_bucket_full() {
    let (config, provider) = busy();
    let mut fleet = Fleet::new(8, &config, provider);
    fleet.load(120.0, 100, WAIT, secs(20));
    fleet.store = fleet::Store::default();
    let before = fleet.provider.admitted;
    fleet.load(120.0, 100, WAIT, secs(30));
    let after = used(&fleet, before, 30);
    assert!((0.95..1.05).contains(&after), "{after} of the quota after the loss");
    // The first to ask an empty store could be new to it: at most its first chunk.
    assert!(fleet.provider.overdrawn < 2_500.0, "overdrawn by {}", fleet.provider.overdrawn);
}

#[test]
fn a_store_that_went_back_in_time_is_noticed() {
    let (config, provider) = busy();
    let mut fleet = Fleet::new(8, &config, provider);
    fleet.load(10.0, 100, WAIT, secs(10));
    let (ledger, holders) = (fleet.store.ledger.clone(), fleet.store.holders.clone());
    fleet.load(400.0, 100, WAIT, secs(10));
    fleet.store.ledger = ledger;
    fleet.store.holders = holders;
    fleet.load(400.0, 100, WAIT, secs(20));
    assert!(fleet.provider.overdrawn < 2_500.0, "overdrawn by {}", fleet.provider.overdrawn);
}

#[test]
fn processes_that_are_killed_leave_everything_to_the_others() {
    let (config, provider) = busy();
    let mut fleet = Fleet::new(12, &config, provider);
    fleet.load(180.0, 100, WAIT, secs(10));
    fleet.members.iter_mut().step_by(3).for_each(|member| member.alive = false);
    fleet.load(180.0, 100, WAIT, secs(2));
    let before = fleet.provider.admitted;
    fleet.load(180.0, 100, WAIT, secs(20));
    let after = used(&fleet, before, 20);
    assert!((0.98..1.01).contains(&after), "{after} of the quota for the rest");
    assert_eq!(fleet.store.ledger.members, 8);
    assert!(fleet.provider.overdrawn < 1.0, "overdrawn by {}", fleet.provider.overdrawn);
}

#[test]
fn a_quota_too_small_to_share_is_reserved_call_by_call() {
    // Ten requests a minute among eight processes.
    let config = limits(Some(10), None);
    let mut fleet = Fleet::new(8, &config, Provider::new(10.0, 1.0));
    fleet.load(1.0, 1, secs(30), secs(120));
    let possible = 1.0 + 20.0;
    assert!(fleet.provider.overdrawn < 0.01, "overdrawn by {}", fleet.provider.overdrawn);
    assert!(fleet.provider.admitted >= 0.85 * possible, "{} of {possible}", fleet.provider.admitted);
}

#[test]
fn a_call_deeper_than_the_bucket_goes_when_it_is_full() {
    let config = limits(None, Some(60_000));
    let mut fleet = Fleet::new(4, &config, Provider::new(60_000.0, 6_000.0));
    fleet.load(1.0, 100, WAIT, secs(10));
    // The last of them may just have asked.
    fleet.run(Duration::from_millis(100));
    fleet.arrive(2, 20_000, secs(60));
    fleet.run(secs(2));
    assert!(fleet.members.iter().map(|member| member.let_go).sum::<u64>() >= 11, "it went");
    // Those behind it pay: the debt of 14,000 tokens takes 14 seconds.
    let before = fleet.let_go();
    fleet.load(4.0, 1_000, WAIT, secs(8));
    assert!(fleet.let_go() - before < 12, "{}", fleet.let_go() - before);
}

#[test]
fn calls_in_flight_are_shared_and_those_of_the_dead_come_back() {
    let mut config = limits(None, None);
    config.limiter.max_concurrent = Some(6);
    for members in [2, 6, 12] {
        let mut fleet = Fleet::new(members, &config, Provider::new(f64::MAX, f64::MAX));
        fleet.hold = 300 * fleet::STEP;
        fleet.load(40.0, 1, secs(30), secs(20));
        assert!(fleet.most_in_flight <= 6, "{members}: {} in flight", fleet.most_in_flight);
        // Six slots of 0.3 s let 20 calls a second through.
        let went = fleet.let_go();
        assert!(went as f64 > 0.7 * 400.0, "{members}: {went} of 400");
        let least = fleet.members.iter().map(|member| member.let_go).min().unwrap_or(0);
        assert!(least as f64 > 0.2 * 400.0 / members as f64, "{members}: one had only {least}");
        let half = members / 2;
        fleet.members.iter_mut().take(half).for_each(|member| member.alive = false);
        fleet.load(40.0, 1, secs(30), secs(3));
        let before = fleet.let_go();
        fleet.load(40.0, 1, secs(30), secs(10));
        assert!((fleet.let_go() - before) as f64 > 0.7 * 200.0, "{members}: {}", fleet.let_go() - before);
    }
}

fn failing(_: u64) -> Outcome {
    Outcome::Failure(Failure::new(FailureKind::Server))
}

fn states(fleet: &Fleet) -> Vec<BreakerState> {
    fleet.members.iter().map(|member| member.pipeline.stats(fleet.at()).breaker.state).collect()
}

#[test]
fn a_trip_is_known_to_everybody_within_a_second_and_so_is_the_recovery() {
    let mut config = limits(Some(60_000), None);
    config.breaker.timeout = secs(10);
    let mut fleet = Fleet::new(8, &config, Provider::new(f64::MAX, f64::MAX));
    fleet.load(80.0, 1, WAIT, secs(2));
    // Only the first one's calls fail.
    fleet.outcome = failing;
    for _ in 0..5 {
        fleet.arrive(0, 1, WAIT);
    }
    fleet.run(Duration::from_millis(300));
    fleet.outcome = |_| Outcome::Success { usage: None };
    fleet.run(Duration::from_millis(700));
    assert!(states(&fleet).iter().all(|state| *state == BreakerState::Open), "{:?}", states(&fleet));
    let before = fleet.let_go();
    fleet.load(80.0, 1, WAIT, secs(8));
    assert_eq!(fleet.let_go(), before, "nobody asks a provider that one of them knows to be down");
    fleet.load(80.0, 1, WAIT, secs(4));
    assert!(states(&fleet).iter().all(|state| *state == BreakerState::Closed), "{:?}", states(&fleet));
}

#[test]
fn the_fleet_probes_no_more_than_one_process_would() {
    let mut config = limits(Some(60_000), None);
    config.breaker.timeout = secs(5);
    config.retry.max_attempts = 1;
    let mut fleet = Fleet::new(16, &config, Provider::new(f64::MAX, f64::MAX));
    fleet.outcome = failing;
    fleet.load(160.0, 1, WAIT, secs(3));
    assert!(states(&fleet).iter().all(|state| *state == BreakerState::Open), "{:?}", states(&fleet));
    fleet.hold = 1_000 * fleet::STEP;
    let before = fleet.let_go();
    fleet.load(160.0, 1, WAIT, secs(4));
    let probes = fleet.let_go() - before;
    assert!((1..=3).contains(&probes), "{probes} probes in one half-open period");
    assert!(states(&fleet).iter().all(|state| *state == BreakerState::Open), "{:?}", states(&fleet));
}

#[test]
fn a_pause_holds_everybody_back() {
    let mut fleet = Fleet::new(4, &limits(Some(60_000), None), Provider::new(f64::MAX, f64::MAX));
    fleet.load(40.0, 1, WAIT, secs(2));
    fleet.outcome = |_| {
        let throttled = Failure::new(FailureKind::Throttled).with_retry_after(Duration::from_secs(5));
        Outcome::Failure(throttled)
    };
    fleet.arrive(1, 1, WAIT);
    fleet.run(Duration::from_millis(210));
    fleet.outcome = |_| Outcome::Success { usage: None };
    fleet.run(Duration::from_millis(600));
    let before = fleet.let_go();
    fleet.load(40.0, 1, secs(1), secs(3));
    assert_eq!(fleet.let_go(), before, "one of them was told to wait");
    fleet.load(40.0, 1, secs(1), secs(5));
    assert!(fleet.let_go() > before + 100, "{}", fleet.let_go() - before);
}

#[test]
fn the_fixed_part_of_the_retry_budget_is_divided() {
    let config = limits(Some(60_000), None);
    let mut fleet = Fleet::new(5, &config, Provider::new(f64::MAX, f64::MAX));
    fleet.load(20.0, 1, WAIT, secs(3));
    let reserve = |member: &fleet::Member| {
        let retry = member.pipeline.stats(fleet.at()).retry;
        retry.budget_available.saturating_sub(retry.attempts)
    };
    let reserves: Vec<u64> = fleet.members.iter().map(reserve).collect();
    assert!(reserves.iter().sum::<u64>() <= 10, "ten for the fleet, as for one process: {reserves:?}");
}

#[test]
fn one_that_has_nothing_to_do_gives_everything_back_and_says_nothing() {
    let (config, provider) = busy();
    let mut fleet = Fleet::new(3, &config, provider);
    fleet.load(30.0, 100, WAIT, secs(3));
    fleet.run(secs(8));
    assert_eq!(fleet.store.ledger.members, 3, "they rest");
    assert!(fleet.store.ledger.buckets.values().all(|bucket| bucket.held.abs() < 1e-6));
    let before = fleet.exchanges();
    fleet.run(secs(60));
    assert_eq!(fleet.exchanges() - before, 6, "every half minute, so as not to be forgotten");
    let let_go = fleet.let_go();
    fleet.arrive(0, 100, WAIT);
    fleet.run(Duration::from_millis(10));
    assert_eq!(fleet.let_go(), let_go + 1, "the first call waits for one answer of the store");
}

#[test]
fn a_process_that_never_reached_the_store_takes_a_careful_share() {
    let (config, provider) = busy();
    let mut fleet = Fleet::new(1, &config, provider);
    fleet.members[0].link = Link::Cut;
    fleet.load(120.0, 100, WAIT, secs(20));
    let part = used(&fleet, 0.0, 20);
    assert!((0.09..0.14).contains(&part), "a tenth by default: {part}");
}
