//! Which worker serves a connection.
//!
//! A thread that wakes for an event finds its caches cold, so a few streams cost less on one thread than spread over many
//! (docs/numbers.md). Connections therefore fill one worker after the other while none has much to do, and go to whoever has
//! fewest as soon as one has. Callers keep their connections for long, so what was right when they came may be wrong now: a
//! worker that has too much to do lets connections go, with the `connection: close` of HTTP/1.1, until no other has fewer.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::RuntimeMetrics;
use tokio::time::Instant;

use crate::clock::timer_now;

/// Connections of one worker before the next gets any. With a stream on each, of fifty events a second, a thread is busy
/// for a tenth of its time.
const FILL: usize = 128;
/// Busy for so many thousandths of the time, a worker has much to do.
const BUSY: u32 = 500;
/// And too much.
const TOO_BUSY: u32 = 750;
/// Over how long it is measured, at least.
const WINDOW: Duration = Duration::from_millis(100);

/// All workers of a gateway.
#[derive(Debug)]
pub(crate) struct Workers {
    all: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    connections: AtomicUsize,
    /// Those of them that were told to go elsewhere.
    leaving: AtomicUsize,
    /// Thousandths of the last window.
    busy: AtomicU32,
    window: Mutex<Window>,
    /// How long it has worked in all.
    meter: Option<RuntimeMetrics>,
}

#[derive(Debug)]
struct Window {
    begun: Instant,
    /// What the meter said then.
    worked: Duration,
}

impl Workers {
    /// One for each of these meters.
    pub(crate) fn new(meters: impl IntoIterator<Item = RuntimeMetrics>) -> Self {
        Self { all: meters.into_iter().map(|meter| Worker::new(Some(meter))).collect() }
    }

    /// A place for a new connection.
    pub(crate) fn seat(self: &Arc<Self>) -> Seat {
        self.all.iter().for_each(Worker::look);
        let at = self.choose();
        self.all[at].connections.fetch_add(1, Ordering::Relaxed);
        Seat { workers: Arc::clone(self), at, is_leaving: AtomicBool::new(false) }
    }

    fn choose(&self) -> usize {
        let is_quiet = self.all.iter().all(|worker| worker.busy() < BUSY);
        let with_room = || self.all.iter().position(|worker| worker.staying() < FILL);
        let fewest = || (0..self.all.len()).min_by_key(|at| self.all[*at].staying()).unwrap_or(0);
        is_quiet.then(with_room).flatten().unwrap_or_else(fewest)
    }
}

impl Worker {
    fn new(meter: Option<RuntimeMetrics>) -> Self {
        let window = Window { begun: timer_now(), worked: Duration::ZERO };
        let (connections, leaving, busy) = Default::default();
        Self { connections, leaving, busy, window: Mutex::new(window), meter }
    }

    fn busy(&self) -> u32 {
        self.busy.load(Ordering::Relaxed)
    }

    fn staying(&self) -> usize {
        let leaving = self.leaving.load(Ordering::Relaxed);
        self.connections.load(Ordering::Relaxed).saturating_sub(leaving)
    }

    /// Measures, if it is time to.
    fn look(&self) {
        if let Some(meter) = &self.meter {
            self.note(timer_now(), || meter.worker_total_busy_duration(0));
        }
    }

    fn note(&self, now: Instant, worked: impl FnOnce() -> Duration) {
        // Whoever else looks at this moment sees the same.
        let Ok(mut window) = self.window.try_lock() else { return };
        let span = now.saturating_duration_since(window.begun);
        if span < WINDOW {
            return;
        }
        let worked = worked();
        let share = worked.saturating_sub(window.worked).as_secs_f64() / span.as_secs_f64();
        self.busy.store((share * 1_000.0) as u32, Ordering::Relaxed);
        *window = Window { begun: now, worked };
    }
}

/// A connection's place at a worker, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    workers: Arc<Workers>,
    at: usize,
    is_leaving: AtomicBool,
}

impl Seat {
    /// Which worker's.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Whether the caller is to connect anew, because another worker has less to do. Once it is, the place counts as left.
    pub(crate) fn is_to_leave(&self) -> bool {
        let all = &self.workers.all;
        let own = &all[self.at];
        if all.len() == 1 {
            return false;
        }
        own.look();
        if own.busy() < TOO_BUSY {
            return false;
        }
        if !self.is_leaving.load(Ordering::Relaxed) {
            let others = all.iter().enumerate().filter(|(at, _)| *at != self.at);
            let fewest = others.map(|(_, worker)| worker.staying()).min().unwrap_or(usize::MAX);
            // They will all come back, to somebody.
            let coming: usize = all.iter().map(|worker| worker.leaving.load(Ordering::Relaxed)).sum();
            if own.staying() <= fewest.saturating_add(coming).saturating_add(1) {
                return false;
            }
            // Only its own connection's task asks.
            self.is_leaving.store(true, Ordering::Relaxed);
            own.leaving.fetch_add(1, Ordering::Relaxed);
        }
        true
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let own = &self.workers.all[self.at];
        own.connections.fetch_sub(1, Ordering::Relaxed);
        if *self.is_leaving.get_mut() {
            own.leaving.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
impl Workers {
    /// So many without a meter, which nothing changes but this.
    pub(crate) fn unmeasured(count: usize) -> Arc<Self> {
        Arc::new(Self { all: (0..count).map(|_| Worker::new(None)).collect() })
    }

    pub(crate) fn set_busy(&self, at: usize, thousandths: u32) {
        self.all[at].busy.store(thousandths, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(count: usize) -> Arc<Workers> {
        Workers::unmeasured(count)
    }

    fn connections(workers: &Workers) -> Vec<usize> {
        workers.all.iter().map(|worker| worker.connections.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn while_little_is_to_be_done_one_worker_is_filled_after_the_other() {
        let workers = workers(3);
        let mut seats: Vec<_> = (0..FILL).map(|_| workers.seat()).collect();
        assert_eq!(connections(&workers), [FILL, 0, 0]);
        seats.push(workers.seat());
        assert_eq!(connections(&workers), [FILL, 1, 0]);
        seats.remove(0);
        seats.push(workers.seat());
        assert_eq!(connections(&workers), [FILL, 1, 0], "a place that is free is taken again");
        seats.extend((0..2 * FILL).map(|_| workers.seat()));
        assert_eq!(connections(&workers), [FILL + 1, FILL, FILL], "beyond that they are spread");
        drop(seats);
        assert_eq!(connections(&workers), [0, 0, 0]);
    }

    #[test]
    fn as_soon_as_one_has_much_to_do_they_are_spread() {
        let workers = workers(3);
        let _first: Vec<_> = (0..10).map(|_| workers.seat()).collect();
        workers.set_busy(0, BUSY);
        let _spread: Vec<_> = (0..8).map(|_| workers.seat()).collect();
        assert_eq!(connections(&workers), [10, 4, 4]);
    }

    #[test]
    fn whoever_has_too_much_to_do_lets_go_until_nobody_has_fewer() {
        let workers = workers(4);
        let mut seats: Vec<_> = (0..64).map(|_| workers.seat()).collect();
        assert!(seats.iter().all(|seat| !seat.is_to_leave()), "nobody is busy");
        workers.set_busy(0, TOO_BUSY);
        // All are asked before the first has gone.
        let told = seats.iter().filter(|seat| seat.is_to_leave()).count();
        assert!((30..=32).contains(&told), "{told}: half of them, as if all came to one");
        let mut rounds = 0;
        while let Some(at) = seats.iter().position(|seat| seat.at() == 0 && seat.is_to_leave()) {
            drop(seats.swap_remove(at));
            seats.push(workers.seat());
            rounds += 1;
            assert!(rounds < 100, "{:?}", connections(&workers));
        }
        let spread = connections(&workers);
        assert!(spread.iter().all(|count| (15..=18).contains(count)), "{spread:?}");
    }

    #[test]
    fn a_worker_without_another_keeps_everybody() {
        let workers = workers(1);
        let seats: Vec<_> = (0..2 * FILL).map(|_| workers.seat()).collect();
        workers.set_busy(0, 1_000);
        assert!(seats.iter().all(|seat| !seat.is_to_leave()));
    }

    #[test]
    fn how_busy_one_is_is_measured_over_a_window() {
        let worker = Worker::new(None);
        let begun = worker.window.try_lock().expect("nobody looks").begun;
        worker.note(begun + WINDOW / 2, || unreachable!("too early"));
        worker.note(begun + WINDOW, || WINDOW / 4);
        assert_eq!(worker.busy(), 250);
        worker.note(begun + 3 * WINDOW, || WINDOW / 4 + WINDOW);
        assert_eq!(worker.busy(), 500, "what was before the window does not count");
        // A clock that stands still, or a meter that was begun anew.
        worker.note(begun + 3 * WINDOW, || unreachable!("too early"));
        worker.note(begun + 5 * WINDOW, || Duration::ZERO);
        assert_eq!(worker.busy(), 0);
    }
}
