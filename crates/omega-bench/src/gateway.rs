//! Measures a gateway as its callers and its operator feel it: beside the upstream itself, a plain reverse proxy and a
//! peer, in one run, on one machine, in rounds that take turns.
//!
//! What a machine does besides shows in every subject alike, so what counts are differences from asking the upstream
//! directly, ratios, and the processor time of the subject's own processes, which no neighbour changes much.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock itself")]

pub mod load;
pub mod process;
pub mod report;
pub mod soak;
pub mod subject;
pub mod upstream;
