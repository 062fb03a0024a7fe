//! The gateway over real HTTP, in front of the emulator.

mod bad_input;
mod door;
mod failover;
mod faults;
mod house;
mod http2;
mod in_process;
mod operations;
mod outage;
mod pools;
mod protocols;
mod streams;
#[cfg(feature = "otel")]
mod traces;
