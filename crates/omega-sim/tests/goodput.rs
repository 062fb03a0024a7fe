//! The numbers that protection has to reach (docs/simulator.md), on two of the four traces: the bursty one and the one
//! with the longest answers. `--example goodput` prints all of them.

use std::path::PathBuf;

use omega_config::{Config, Preset};
use omega_sim::{Fleet, Policy, Quota, Report, Scenario, Store, Trace};

fn trace(name: &str) -> Trace {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../traces/{name}.csv.gz"));
    Trace::read(&path).expect("the repository has it")
}

fn run(scenario: &Scenario, trace: &Trace) -> Report {
    scenario.run(trace, &mut |_| {}).expect("the scenario is sound")
}

fn adaptive() -> Config {
    let mut config = Config::default();
    config.apply(Preset::Adaptive);
    config
}

fn at(load: f64) -> Scenario {
    Scenario { quota: Quota::Load(load), ..Scenario::default() }
}

const TRACES: [&str; 2] = ["azure2023_code", "servegen_r1_am"];

#[test]
fn nearly_everything_the_quota_allows_is_answered_in_time_without_a_429() {
    for name in TRACES {
        let trace = trace(name);
        for (load, share, limited) in [(0.9, 0.99, 1.0), (1.2, 0.99, 1.0), (2.0, 0.98, 2.0)] {
            let report = run(&at(load), &trace);
            assert!(report.goodput_of_oracle >= share, "{name} at {load}: {}", report.goodput_of_oracle);
            assert!(
                report.rate_limited_per_1000 <= limited,
                "{name} at {load}: {}",
                report.rate_limited_per_1000
            );
        }
    }
}

#[test]
fn a_burst_that_nobody_knows_is_learned() {
    for name in TRACES {
        let trace = trace(name);
        for burst_seconds in [10.0, 1.0] {
            let report = run(&Scenario { blind: true, burst_seconds, ..at(1.0) }, &trace);
            assert!(
                report.goodput_of_oracle >= 0.97,
                "{name}, {burst_seconds} s: {}",
                report.goodput_of_oracle
            );
            assert!(report.rate_limited_per_1000 <= 10.0, "{name}: {}", report.rate_limited_per_1000);
        }
    }
}

#[test]
fn an_outage_wastes_few_calls_and_its_end_is_found_within_sixteen_seconds() {
    let trace = trace("servegen_r1_am");
    for (fault, wasted) in [("down@600+300", 60), ("hang@600+300", 100)] {
        let faults = vec![fault.parse().expect("well-formed")];
        let report = run(&Scenario { config: adaptive(), faults, ..at(0.5) }, &trace);
        assert!(report.wasted_calls <= wasted, "{fault}: {}", report.wasted_calls);
        assert!(
            report.recovery_first_s.is_some_and(|after| after <= 16.0),
            "{fault}: {:?}",
            report.recovery_first_s
        );
        assert!(report.goodput_of_oracle >= 0.99, "{fault}: {}", report.goodput_of_oracle);
    }
}

#[test]
fn a_brown_out_is_retried_through_and_overload_is_met_at_least_as_well_as_by_the_sdk() {
    for name in TRACES {
        let trace = trace(name);
        let brown = vec!["brown:0.3@600+1200".parse().expect("well-formed")];
        let report = run(&Scenario { config: adaptive(), faults: brown, ..at(0.5) }, &trace);
        assert!(report.goodput_of_oracle >= 0.99, "{name}: {}", report.goodput_of_oracle);
        let overload = Scenario {
            config: adaptive(),
            faults: vec!["overload:0.7@600+300".parse().expect("well-formed")],
            ..at(0.5)
        };
        let ours = run(&overload, &trace).goodput_of_oracle;
        let sdk = run(&Scenario { policy: Policy::Sdk, ..overload }, &trace).goodput_of_oracle;
        assert!(ours >= sdk, "{name}: {ours} against {sdk}");
    }
}

#[test]
fn sixty_four_clients_spend_one_quota_with_their_store_and_without_it() {
    let trace = trace("servegen_r1_am");
    let fleet = Fleet { clients: 64, store: Store::Shared, ..Fleet::default() };
    let shared = run(&Scenario { fleet, ..at(1.2) }, &trace);
    assert!(shared.goodput_of_oracle >= 0.99, "{}", shared.goodput_of_oracle);
    let store_down = Some("600+300".parse().expect("well-formed"));
    let down = run(&Scenario { fleet: Fleet { store_down, ..fleet }, ..at(1.2) }, &trace);
    assert!(down.goodput_of_oracle >= 0.97, "{}", down.goodput_of_oracle);
    assert!(down.rate_limited_per_1000 <= 10.0, "{}", down.rate_limited_per_1000);
}

#[test]
fn a_tenant_that_asks_for_little_does_not_wait_behind_one_that_asks_for_everything() {
    // The demo's two services: the code service's burst beside the chat service.
    let trace = trace("azure2023_demo");
    let first_come = run(&at(1.2), &trace);
    let fair = run(&Scenario { fair: true, ..at(1.2) }, &trace);
    let chat = |report: &Report| report.tenants[0].success;
    assert!(chat(&fair) > 0.99, "{}", chat(&fair));
    assert!(chat(&fair) > chat(&first_come) || chat(&first_come) > 0.99);
    assert!(fair.tenants[0].wait_p99_s < first_come.tenants[0].wait_p99_s);
}
