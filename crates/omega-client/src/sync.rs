//! The lock and the numbers that tasks share in [`scope`](crate::scope): the standard library's, except where a slow
//! check runs the same code under a scheduler of its own (CONTRIBUTING.md).
//!
//! Only what the hand-over of permits rests on comes from here. Counters for people stay the standard library's: they
//! order nothing, and each of their steps would multiply the schedules to try.

#[cfg(all(test, omega_loom))]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic::AtomicU64};
#[cfg(all(test, omega_shuttle))]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic::AtomicU64};
#[cfg(not(all(test, any(omega_loom, omega_shuttle))))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic::AtomicU64};
