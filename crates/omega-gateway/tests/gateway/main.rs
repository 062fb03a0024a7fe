//! The gateway over real HTTP, in front of the emulator.

mod bad_input;
mod door;
mod faults;
mod house;
mod operations;
mod outage;
mod pools;
mod protocols;
mod streams;
