//! Whole runs: hand-computed cases, and what must hold for every policy.

use std::path::Path;
use std::time::Duration;

use omega_sim::{Charge, Fleet, Limits, Policy, Quota, Report, Request, Scenario, Skew, Store, Trace, html};

const POLICIES: [Policy; 6] =
    [Policy::Omega, Policy::None, Policy::Sdk, Policy::Tenacity, Policy::Windows, Policy::Oracle];
const CHARGES: [Charge; 3] = [Charge::Estimate, Charge::Refund, Charge::Actual];

fn at(seconds: f64, input_tokens: u32, output_tokens: u32) -> Request {
    Request { arrival: (seconds * 1e9) as u64, input_tokens, output_tokens, model: 0, tenant: 0 }
}

/// `count` equal requests, one every `gap` seconds.
fn steady(count: u32, gap: f64) -> Trace {
    Trace::from_requests((0..count).map(|number| at(f64::from(number) * gap, 100, 70)).collect())
}

fn demo() -> Trace {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../traces/azure2023_demo.csv.gz");
    Trace::read(&path).expect("it is part of the repository")
}

fn per_minute(requests: u64, tokens: u64) -> Quota {
    Quota::PerMinute { requests, tokens }
}

fn run(scenario: &Scenario, trace: &Trace) -> Report {
    scenario.run(trace, &mut |_| {}).expect("the scenario does not contradict itself")
}

fn run_with(scenario: &Scenario, policy: Policy, trace: &Trace) -> Report {
    run(&Scenario { policy, ..scenario.clone() }, trace)
}

fn near(value: f64, expected: f64, by: f64) {
    assert!((value - expected).abs() <= by, "{value} is not within {by} of {expected}");
}

// Hand-computed.

#[test]
fn two_requests_for_one_token_bucket_wait_as_long_as_it_takes_to_refill() {
    // 600 tokens, ten a second; each call takes 100 + 256. After the first, 244 are left: the second waits 11.2 s.
    let trace = Trace::from_requests(vec![at(0.0, 100, 70), at(0.0, 100, 70)]);
    let scenario = Scenario { quota: per_minute(1_000, 600), ..Scenario::default() };
    let oracle = run_with(&scenario, Policy::Oracle, &trace);
    assert_eq!((oracle.good, oracle.oracle_good, oracle.max_tokens), (2, 2, 256));
    near(oracle.wait_p99_s, 11.2, 0.06);

    let none = run_with(&scenario, Policy::None, &trace);
    assert_eq!((none.good, none.failed, none.rate_limited_per_1000), (1, 1, 500.0));
    assert_eq!(none.upstream_calls_per_request, 1.0);

    // The rejected call hears of it after the way there, 80 ms and the way back, then waits the 12 s it was told.
    let sdk = run_with(&scenario, Policy::Sdk, &trace);
    assert_eq!((sdk.good, sdk.upstream_calls), (2, 3));
    near(sdk.wait_p99_s, 12.13, 0.06);

    // The product's bucket is half a second of quota (5 tokens) less deep.
    let omega = run_with(&scenario, Policy::Omega, &trace);
    assert_eq!((omega.good, omega.rate_limited_per_1000, omega.upstream_calls), (2, 0.0, 2));
    near(omega.wait_p99_s, 11.7, 0.1);
}

#[test]
fn a_refund_lets_the_next_one_go_when_the_first_has_ended() {
    let trace = Trace::from_requests(vec![at(0.0, 100, 70), at(0.0, 100, 70)]);
    let scenario = Scenario { quota: per_minute(1_000, 600), charge: Charge::Refund, ..Scenario::default() };
    let oracle = run_with(&scenario, Policy::Oracle, &trace);
    assert_eq!(oracle.good, 2);
    assert!(oracle.wait_p99_s > 0.5 && oracle.wait_p99_s < 4.0, "{}", oracle.wait_p99_s);
}

#[test]
fn real_output_is_charged_at_the_end_and_may_leave_a_debt() {
    // 200 tokens, 3.33 a second. Inputs of 100 and 100 fit at once; both outputs (70 each) are debts when the third
    // comes, after ten seconds of refill: 33.3 - 140 + 100 needed = 206.7 short, 62 s. Beyond the deadline.
    let trace = Trace::from_requests(vec![at(0.0, 100, 70), at(0.0, 100, 70), at(10.0, 100, 70)]);
    let scenario = Scenario { quota: per_minute(1_000, 200), charge: Charge::Actual, ..Scenario::default() };
    assert_eq!(run_with(&scenario, Policy::Oracle, &trace).good, 2);
    let patient = Scenario { deadline: Duration::from_secs(63), ..scenario };
    let oracle = run_with(&patient, Policy::Oracle, &trace);
    assert_eq!(oracle.good, 3);
    near(oracle.wait_p99_s, 62.0, 0.06);
}

#[test]
fn requests_bind_when_they_are_fewer() {
    // One request a second, one at a time: ten at once take nine seconds.
    let trace = Trace::from_requests((0..10).map(|_| at(0.0, 1, 1)).collect());
    let scenario = Scenario { quota: per_minute(60, 1_000_000), burst_seconds: 1.0, ..Scenario::default() };
    let oracle = run_with(&scenario, Policy::Oracle, &trace);
    assert_eq!(oracle.good, 10);
    near(oracle.wait_p99_s, 9.0, 0.06);
    let none = run_with(&scenario, Policy::None, &trace);
    assert_eq!((none.good, none.failed), (1, 9));
}

#[test]
fn a_load_sets_the_quota_from_the_trace() {
    // 101 requests over 100 s, 356 tokens each: 60.6 requests and 21,573.6 tokens a minute at load 1.
    let report = run(&Scenario { quota: Quota::Load(0.5), ..Scenario::default() }, &steady(101, 1.0));
    assert_eq!((report.requests_per_minute, report.tokens_per_minute), (152, 43_147));
}

// Faults.

fn broken(fault: &str, policy: Policy, trace: &Trace) -> Report {
    let faults = vec![fault.parse().expect("it is well-formed")];
    run(&Scenario { policy, faults, quota: Quota::Load(0.5), ..Scenario::default() }, trace)
}

#[test]
fn a_provider_that_is_down_fails_what_reaches_it_and_nothing_else() {
    // Arrivals at 0, 1, ... 99; those sent at 10 to 19 fail. (At 9.98 a call would arrive in the window.)
    let report = broken("down@10+10", Policy::None, &steady(100, 1.0));
    assert_eq!((report.wasted_calls, report.failed, report.good), (10, 10, 90));
    assert_eq!(report.recovery_first_s, Some(0.0), "the request of second 20 is answered");
    assert_eq!(report.oracle_good, 100, "the oracle waits for the end");
}

#[test]
fn the_breaker_stops_asking_a_provider_that_is_down() {
    let without = broken("down@10+60", Policy::Sdk, &steady(100, 1.0));
    let with = broken("down@10+60", Policy::Omega, &steady(100, 1.0));
    assert!(without.wasted_calls > 100, "{}", without.wasted_calls);
    assert!(with.wasted_calls <= 20, "{}", with.wasted_calls);
    assert!(with.recovery_first_s.is_some_and(|after| after <= 61.0), "{:?}", with.recovery_first_s);
}

#[test]
fn a_hanging_provider_costs_the_first_byte_clock_and_no_longer() {
    let report = broken("hang@10+5", Policy::Omega, &steady(100, 1.0));
    assert!(report.wasted_calls >= 5, "{}", report.wasted_calls);
    assert_eq!(report.requests, report.answered + report.failed + report.refused);
}

#[test]
fn an_overload_takes_requests_and_a_brown_out_takes_tokens() {
    // Room for one call's tokens only. An overloaded provider charges none, so the call after the fault fits.
    let trace = Trace::from_requests(vec![at(0.0, 100, 70), at(2.0, 100, 70)]);
    let after = |fault: &str| {
        let faults = vec![fault.parse().expect("it is well-formed")];
        let quota = per_minute(1_000, 360);
        run(&Scenario { policy: Policy::None, faults, quota, ..Scenario::default() }, &trace)
    };
    let overload = after("overload:1@0+1");
    assert_eq!((overload.good, overload.wasted_calls, overload.rate_limited_per_1000), (1, 1, 0.0));
    let brown = after("brown:1@0+1");
    assert_eq!((brown.good, brown.wasted_calls, brown.rate_limited_per_1000), (0, 1, 500.0));
}

#[test]
fn a_share_of_failures_is_that_share() {
    let report = broken("brown:0.3@0+3000", Policy::None, &steady(3_000, 1.0));
    near(report.failed as f64 / 3_000.0, 0.3, 0.03);
    assert_eq!(report.oracle_good, 3_000, "the oracle never draws the bad lot");
}

#[test]
fn nonsense_faults_are_refused_with_an_example() {
    for text in
        ["down", "down@5", "down@5+0", "brown@1+2", "brown:2@1+2", "melted@1+2", "down@-1+5", "down@nan+5"]
    {
        let problem = text.parse::<omega_sim::Fault>().expect_err("it is wrong");
        assert!(!problem.is_empty());
    }
    assert!("brown:0.3@600+1200".parse::<omega_sim::Fault>().is_ok());
}

// What must hold for every policy.

#[test]
fn every_arrival_ends_exactly_once() {
    let trace = demo();
    for policy in POLICIES {
        for charge in CHARGES {
            let faults = vec![
                "down@50+20".parse().expect("well-formed"),
                "hang@100+20".parse().expect("well-formed"),
                "brown:0.5@150+50".parse().expect("well-formed"),
                "overload:0.5@220+50".parse().expect("well-formed"),
            ];
            let report = run(
                &Scenario { policy, charge, faults, quota: Quota::Load(1.3), ..Scenario::default() },
                &trace,
            );
            assert_eq!(report.requests, trace.requests().len() as u64);
            assert_eq!(
                report.requests,
                report.answered + report.failed + report.refused,
                "{policy:?} {charge:?}"
            );
            assert!(report.good <= report.answered);
            let tenants: u64 = report.tenants.iter().map(|tenant| tenant.requests).sum();
            let good: u64 = report.tenants.iter().map(|tenant| tenant.good).sum();
            assert_eq!((tenants, good), (report.requests, report.good));
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_does_not() {
    let trace = demo();
    for policy in POLICIES {
        let scenario = Scenario {
            policy,
            quota: Quota::Load(1.2),
            faults: vec!["brown:0.3@100+100".parse().expect("well-formed")],
            ..Scenario::default()
        };
        let page = |report: Report| html("twice", &[(String::from("run"), report)]).expect("it can be drawn");
        let (first, second) = (run(&scenario, &trace), run(&scenario, &trace));
        assert_eq!(first.to_json(), second.to_json());
        assert_eq!(first.to_table(), second.to_table());
        assert_eq!(page(first), page(second));
        let other = run(&Scenario { seed: 2, ..scenario.clone() }, &trace);
        assert_ne!(run(&scenario, &trace).to_json(), other.to_json(), "{policy:?}");
    }
}

/// Among equal requests first-in-first-out is the best there is, so nobody may be better than the oracle.
#[test]
fn nobody_beats_the_oracle_over_equal_requests() {
    // Arrivals in clumps, so that there is something to get wrong.
    let requests = (0..1_500_u32).map(|number| at(f64::from(number / 25) * 5.0, 700, 100)).collect();
    let trace = Trace::from_requests(requests);
    for charge in CHARGES {
        for load in [0.8, 1.0, 1.5, 3.0] {
            for burst_seconds in [60.0, 10.0] {
                let scenario =
                    Scenario { charge, burst_seconds, quota: Quota::Load(load), ..Scenario::default() };
                for policy in POLICIES {
                    let report = run_with(&scenario, policy, &trace);
                    assert!(
                        report.goodput_of_oracle <= 1.003,
                        "{policy:?} {charge:?} {load} {burst_seconds}: {}",
                        report.goodput_of_oracle
                    );
                }
            }
        }
    }
}

#[test]
fn the_oracle_is_its_own_measure_and_is_never_rejected() {
    let trace = demo();
    for charge in CHARGES {
        for load in [0.5, 1.0, 2.0] {
            let scenario =
                Scenario { charge, quota: Quota::Load(load), policy: Policy::Oracle, ..Scenario::default() };
            let report = run(&scenario, &trace);
            assert_eq!((report.goodput_of_oracle, report.rate_limited_per_1000), (1.0, 0.0));
            assert!(report.wait_p99_s <= 60.0);
        }
    }
}

#[test]
fn less_quota_never_helps_the_oracle() {
    let trace = demo();
    let good = [0.5, 0.8, 1.0, 1.5, 3.0].map(|load| {
        run(&Scenario { quota: Quota::Load(load), policy: Policy::Oracle, ..Scenario::default() }, &trace)
            .good
    });
    assert!(good.is_sorted_by(|more, less| more >= less), "{good:?}");
}

#[test]
fn the_policies_stand_in_the_order_the_study_found_at_overload() {
    let trace = demo();
    let scenario = Scenario { quota: Quota::Load(1.2), ..Scenario::default() };
    let of_oracle = |policy| run_with(&scenario, policy, &trace).goodput_of_oracle;
    let [omega, none, sdk, tenacity] =
        [Policy::Omega, Policy::None, Policy::Sdk, Policy::Tenacity].map(of_oracle);
    assert!(omega > 0.97, "{omega}");
    assert!(omega > none && none > sdk && sdk > tenacity, "{omega} {none} {sdk} {tenacity}");
}

// Fleets.

#[test]
fn a_fleet_that_shares_nothing_storms_the_provider_and_one_that_shares_does_not() {
    let trace = demo();
    let run = |store, skew| {
        let fleet = Fleet { clients: 16, store, skew, ..Fleet::default() };
        run(&Scenario { fleet, quota: Quota::Load(1.2), ..Scenario::default() }, &trace)
    };
    let shared = run(Store::Shared, Skew::Even);
    let apart = run(Store::None, Skew::Even);
    let fixed = run(Store::Static, Skew::Even);
    let skewed = run(Store::Static, Skew::Zipf(1.0));
    assert!(shared.goodput_of_oracle > 0.97, "{}", shared.goodput_of_oracle);
    assert!(apart.rate_limited_per_1000 > 500.0, "{}", apart.rate_limited_per_1000);
    assert!(apart.goodput_of_oracle < shared.goodput_of_oracle);
    assert!(skewed.goodput_of_oracle < fixed.goodput_of_oracle);
    assert!(fixed.goodput_of_oracle < shared.goodput_of_oracle);
}

#[test]
fn a_fleet_without_its_store_goes_on_with_its_last_shares() {
    let trace = demo();
    let store_down = Some("120+100".parse().expect("well-formed"));
    let fleet = Fleet { clients: 8, store_down, ..Fleet::default() };
    let report = run(&Scenario { fleet, quota: Quota::Load(1.2), ..Scenario::default() }, &trace);
    assert_eq!(report.requests, report.answered + report.failed + report.refused);
    assert!(report.rate_limited_per_1000 < 20.0, "{}", report.rate_limited_per_1000);
    assert!(report.goodput_of_oracle > 0.75, "{}", report.goodput_of_oracle);
}

// Configured limits.

#[test]
fn a_client_that_is_configured_too_high_learns_the_limit_from_the_headers() {
    let trace = demo();
    let mut config = omega_config::Config::default();
    let limits = &mut config.provider_mut("openai").expect("it is built in").limits;
    limits.requests_per_minute = Some(100_000);
    limits.tokens = omega_policy::TokenLimits::Total(Some(50_000_000));
    limits.max_concurrent = None;
    let scenario = Scenario {
        config,
        provider: String::from("openai"),
        limits: Limits::Configured,
        quota: Quota::Load(1.2),
        ..Scenario::default()
    };
    let seeing = run(&scenario, &trace);
    let blind = run(&Scenario { blind: true, ..scenario }, &trace);
    assert!(blind.rate_limited_per_1000 > 50.0, "{}", blind.rate_limited_per_1000);
    assert!(
        seeing.rate_limited_per_1000 < blind.rate_limited_per_1000 / 2.0,
        "{} against {}",
        seeing.rate_limited_per_1000,
        blind.rate_limited_per_1000
    );
}

#[test]
fn a_client_that_is_configured_lower_than_the_provider_keeps_to_its_own_limits() {
    let trace = demo();
    let mut config = omega_config::Config::default();
    let limits = &mut config.provider_mut("openai").expect("it is built in").limits;
    limits.requests_per_minute = Some(60);
    limits.tokens = omega_policy::TokenLimits::Total(None);
    limits.max_concurrent = None;
    let scenario = Scenario {
        config,
        provider: String::from("openai"),
        limits: Limits::Configured,
        quota: Quota::Load(0.1),
        ..Scenario::default()
    };
    let report = run(&scenario, &trace);
    let most = 60 + trace.span() / 1_000_000_000 + 61;
    assert!(report.upstream_calls <= most, "{} against {most}", report.upstream_calls);
}

// What is refused.

#[test]
fn scenarios_that_contradict_themselves_are_refused() {
    let trace = steady(3, 1.0);
    let wrong =
        |scenario: Scenario| scenario.run(&trace, &mut |_| {}).expect_err("it is refused").to_string();
    let base = Scenario::default;
    assert!(wrong(Scenario { quota: Quota::Load(0.0), ..base() }).contains("load"));
    assert!(wrong(Scenario { quota: Quota::Load(f64::NAN), ..base() }).contains("load"));
    assert!(wrong(Scenario { burst_seconds: 0.0, ..base() }).contains("burst"));
    assert!(wrong(Scenario { deadline: Duration::ZERO, ..base() }).contains("deadline"));
    assert!(wrong(Scenario { max_tokens: Some(0), ..base() }).contains("max_tokens"));
    let fleet = Fleet { clients: 0, ..Fleet::default() };
    assert!(wrong(Scenario { fleet, ..base() }).contains("at least one client"));
    let fleet = Fleet { clients: 2, ..Fleet::default() };
    assert!(wrong(Scenario { fleet, policy: Policy::Windows, ..base() }).contains("fleet"));
    let store_down = Some("1+1".parse().expect("well-formed"));
    let fleet = Fleet { clients: 2, store: Store::Static, store_down, ..Fleet::default() };
    assert!(wrong(Scenario { fleet, ..base() }).contains("shared store"));
}

// The report.

#[test]
fn the_json_has_the_documented_names() {
    let report = run(&Scenario::default(), &demo());
    let value: serde_json::Value = serde_json::from_str(&report.to_json()).expect("it is JSON");
    for name in [
        "requests",
        "good",
        "goodput_of_oracle",
        "rate_limited_per_1000",
        "upstream_calls_per_request",
        "wasted_calls",
        "recovery_first_s",
        "wait_p50_s",
        "wait_p99_s",
        "refused_share",
        "tenants",
    ] {
        assert!(value.get(name).is_some(), "{name} is missing");
    }
    assert_eq!(value["tenants"].as_array().map(Vec::len), Some(2));
}

#[test]
fn the_page_needs_nothing_but_itself_and_escapes_names() {
    let mut requests: Vec<Request> = (0..40).map(|number| at(f64::from(number), 10, 10)).collect();
    requests.iter_mut().skip(20).for_each(|request| request.tenant = 1);
    let report = run(&Scenario::default(), &Trace::from_requests(requests));
    let page = html("a <b> & c", &[(String::from("<script>"), report)]).expect("it can be drawn");
    assert!(page.contains("a &lt;b&gt; &amp; c") && page.contains("&lt;script&gt;"));
    assert!(!page.contains("<script"));
    for outside in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert_eq!(page.matches("<figure>").count(), 4, "arrivals, waits, troubles and tenants");
}

#[test]
fn progress_is_told_for_the_oracle_and_the_policy() {
    let mut heard = Vec::new();
    Scenario::default().run(&steady(5, 1.0), &mut |progress| heard.push(progress)).expect("it runs");
    assert_eq!(heard.last(), Some(&omega_sim::Progress::Policy(5)));
    assert!(heard.contains(&omega_sim::Progress::Oracle(5)));
}

// Suggestions.

#[test]
fn the_suggested_limits_reach_the_goal_and_a_tenth_less_does_not() {
    let trace = demo();
    let scenario = Scenario::default();
    let found = omega_sim::suggest(&scenario, &trace, 0.99).expect("it runs").expect("there is enough quota");
    assert!(found.report.good as f64 >= 0.99 * found.report.requests as f64);
    let tokens = found.tokens_per_minute * 9 / 10;
    let less = Scenario { quota: per_minute(found.requests_per_minute, tokens), ..scenario };
    let less = run(&less, &trace);
    assert!((less.good as f64) < 0.99 * less.requests as f64, "{} of {}", less.good, less.requests);
}

#[test]
fn no_quota_is_suggested_where_quota_is_not_the_trouble() {
    let faults = vec!["down@0+100000".parse().expect("well-formed")];
    let scenario = Scenario { faults, ..Scenario::default() };
    assert_eq!(omega_sim::suggest(&scenario, &steady(20, 1.0), 0.99).expect("it runs"), None);
    assert!(omega_sim::suggest(&scenario, &steady(20, 1.0), 1.5).is_err());
}
