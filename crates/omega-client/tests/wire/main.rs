//! The client over real HTTP against the emulated providers: what each vendor must carry, what each failure must
//! become, and what must hold while hundreds of streams run or are dropped.
#![allow(clippy::disallowed_methods, reason = "tests read the real clock and spawn what they await")]
#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it as the test itself may")]

mod cancellation;
mod chat;
mod concurrency;
mod endpoints;
mod failures;
mod hedging;
mod recovery;
mod secrecy;
mod support;
