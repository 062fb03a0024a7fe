//! The gateway over real HTTP, in front of the emulator.

mod bad_input;
mod door;
mod failover;
mod faults;
mod house;
mod operations;
mod outage;
mod pools;
mod protocols;
mod streams;
#[cfg(feature = "otel")]
mod traces;
