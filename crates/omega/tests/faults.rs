//! The whole table: every fault of the catalogue, as chat and as stream, with a fallback and without.

use omega_emulator::{Fault, Provider};
use omega_program::faults::{self, Call, Ending, Report, Settings};

async fn table(provider: Provider, faults: Vec<Fault>) -> Report {
    let settings = Settings { provider, faults, ..Settings::default() };
    faults::run(&settings, &|_, _| {}).await.expect("it runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_the_catalogue_ends_as_it_must() {
    let report = table(Provider::OpenAi, Fault::ALL.to_vec()).await;
    assert_eq!(report.cells.len(), Fault::ALL.len() * 4);
    assert_eq!(report.checks.len(), 6);
    assert!(report.held(), "{}", faults::render(&report));
    let json = report.json();
    assert_eq!(json["held"], true);
    assert_eq!(json["cells"].as_array().map(Vec::len), Some(report.cells.len()));
    for fault in Fault::ALL {
        let shown = report.cells.iter().filter(|cell| cell.fault.fault == *fault).count();
        assert_eq!(shown, 4, "{fault}");
    }
}

/// The few rows that differ most between vendors; the whole table for each is `omega demo --faults --provider NAME`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_providers_fail_as_well_as_the_first() {
    let faults =
        vec![Fault::RateLimited, Fault::Overloaded, Fault::Hang, Fault::InvalidRequest, Fault::CutAfter];
    for provider in [Provider::Anthropic, Provider::Google, Provider::Grok] {
        let report = table(provider, faults.clone()).await;
        assert!(report.held(), "{}", faults::render(&report));
        for cell in &report.cells {
            let is_answered = matches!(&cell.ending, Ending::Answered { by, .. } if by == cell.other.name());
            let can_be_cured = cell.has_fallback
                && cell.fault.fault != Fault::InvalidRequest
                && !(cell.fault.fault == Fault::CutAfter && cell.call == Call::Stream);
            assert_eq!(is_answered, can_be_cured, "{provider}: {cell:?}");
        }
    }
}
