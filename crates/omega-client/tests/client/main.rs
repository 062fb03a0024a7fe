//! The client on paused time, with a scripted upstream in the place of the network. One binary, a module for each
//! thing it must get right.
#![allow(clippy::disallowed_methods, reason = "tests read the paused clock and spawn what they await")]
#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it as the test itself may")]

mod aliases;
mod alone;
mod breaker;
mod calls;
mod cancellation;
mod endpoints;
mod errors;
mod estimates;
mod failover;
mod hedging;
mod limits;
mod logs;
mod own_keys;
mod pools;
mod relay;
mod reload;
mod runtimes;
mod secrets;
mod streaming;
mod support;
mod wire;
