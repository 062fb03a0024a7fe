//! Replays a trace of requests against a modelled provider, in virtual time.
//!
//! The question it answers: of these requests, how many would have been answered in time, and at what cost in
//! rejected and wasted calls? The product's side is the very [`Pipeline`](omega_policy::Pipeline) the client runs; the
//! provider is a model ([`Provider`]) written apart from it; the yardstick is a clairvoyant. Nothing here opens a
//! socket, awaits, or reads a clock, and the same inputs give the same report, byte for byte.
//!
//! ```
//! use omega_sim::{Policy, Quota, Scenario, Trace};
//!
//! let rows = "arrival_s,input_tokens,output_tokens\n0.0,1200,100\n0.5,900,80\n";
//! let trace = Trace::parse(rows.as_bytes()).expect("it is well-formed");
//! let scenario = Scenario { quota: Quota::Load(0.5), policy: Policy::Omega, ..Scenario::default() };
//! let report = scenario.run(&trace, &mut |_| {}).expect("it does not contradict itself");
//! assert_eq!((report.requests, report.good), (2, 2));
//! ```

mod engine;
mod fault;
mod fleet;
mod leases;
mod measure;
mod oracle;
mod page;
mod plot;
mod policies;
mod product;
mod report;
mod service;
mod simulation;
mod suggest;
mod trace;
mod upstream;

pub use fault::{Fault, FaultKind, Window};
pub use fleet::{Fleet, Skew, Store};
pub use page::html;
pub use plot::PlotError;
pub use report::{Report, TenantReport, comparison};
pub use service::{Draw, draw};
pub use simulation::{Limits, Policy, Progress, Quota, Scenario, ScenarioError};
pub use suggest::{Suggestion, suggest};
pub use trace::{Request, Trace, TraceError};
pub use upstream::{Charge, Provider};
