//! Tasks, time and what must hold while they run: everything around the scope under check.
//!
//! Every task is a thread of the scheduler with an executor of its own, so that this file knows at each moment who could
//! still run. When nobody can, all that the present moment allows must have happened already: that is where a wake-up
//! that was lost shows, long before its victim's deadline would hide it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use omega_policy::{ModelId, Pipeline, PipelineConfig, Ticket, Timestamp};
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Condvar, Mutex, MutexGuard};
use shuttle::thread;
use tokio::sync::broadcast;

use crate::clock::{Clock, SimulatedClock, Timer};
use crate::registry::Models;
use crate::scope::state::{BACKSTOP, WORTH_WAKING};
use crate::scope::{Counters, Scope};

/// What the limits allow; [`World::check_grants`] compares.
pub(super) struct Bounds {
    /// Calls in flight at most.
    pub(super) in_flight: u64,
    /// Requests that may be sent at once.
    pub(super) burst: u64,
    /// And for each second after that.
    pub(super) per_minute: u64,
}

pub(super) struct World {
    pub(super) scope: Arc<Scope>,
    pub(super) clock: SimulatedClock,
    bounds: Bounds,
    tasks: Mutex<Tasks>,
    nobody_runs: Condvar,
    in_flight: AtomicU64,
    /// Permits that were spent: those that came back unsent are not among them.
    spent: AtomicU64,
    grants: Mutex<Grants>,
}

#[derive(Default)]
struct Tasks {
    running: usize,
    alive: usize,
    each: Vec<Task>,
    /// Somebody has a place and does not look at it.
    frozen: Option<Ticket>,
}

struct Task {
    woken: Arc<Condvar>,
    is_woken: bool,
    wakers_total: u64,
    state: TaskState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TaskState {
    Running,
    Parked,
    Ended,
}

/// `spent - rate * now` at its smallest, in billionths of a sixtieth: a later one may lie above it by the burst.
#[derive(Default)]
struct Grants {
    lowest: i128,
}

impl World {
    pub(super) fn new(config: PipelineConfig, bounds: Bounds, models: u32) -> Arc<Self> {
        let clock = SimulatedClock::default();
        let pipeline = Pipeline::new(config, clock.now());
        let mut names = Models::default();
        for model in 1..=models {
            assert_eq!(names.intern(&format!("model-{model}")), ModelId(model));
        }
        let (subscribers, _) = broadcast::channel(16);
        let scope = Scope::new("provider", pipeline, names, Arc::new(clock.clone()), subscribers);
        Arc::new(Self {
            scope,
            clock,
            bounds,
            tasks: Mutex::default(),
            nobody_runs: Condvar::new(),
            in_flight: AtomicU64::new(0),
            spent: AtomicU64::new(0),
            grants: Mutex::default(),
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Starts a task.
    pub(super) fn spawn(self: &Arc<Self>, body: impl FnOnce(&Me) + Send + 'static) -> thread::JoinHandle<()> {
        let number = {
            let mut tasks = self.tasks();
            let woken = Arc::new(Condvar::new());
            tasks.each.push(Task { woken, is_woken: false, wakers_total: 0, state: TaskState::Running });
            tasks.running += 1;
            tasks.alive += 1;
            tasks.each.len() - 1
        };
        let me = Me { world: Arc::clone(self), number };
        thread::spawn(move || {
            body(&me);
            let mut tasks = me.world.tasks();
            tasks.each[me.number].state = TaskState::Ended;
            tasks.alive -= 1;
            me.world.stops(&mut tasks);
        })
    }

    /// Lets time pass until every task has ended: mostly to the next moment for which somebody waits, and only when
    /// nobody can run any more; sometimes a little while tasks still run, so that their readings of the clock are late.
    pub(super) fn run(&self) {
        let mut hurried_left = 40;
        loop {
            if hurried_left > 0 && thread_rng().gen_bool(0.3) {
                hurried_left -= 1;
                self.clock.advance_to(self.now() + Duration::from_micros(thread_rng().gen_range(1..20_000)));
                thread::yield_now();
                continue;
            }
            let mut tasks = self.tasks();
            while tasks.running > 0 {
                tasks = self.nobody_runs.wait(tasks).unwrap_or_else(PoisonError::into_inner);
            }
            let (alive, frozen) = (tasks.alive, tasks.frozen);
            drop(tasks);
            self.check_moment(frozen);
            if alive == 0 {
                return;
            }
            let next = self.clock.next_timer();
            let next = next.unwrap_or_else(|| panic!("{alive} tasks wait, and nothing will ever wake them"));
            let late = if thread_rng().gen_bool(0.2) { thread_rng().gen_range(0..30_000) } else { 0 };
            self.clock.advance_to(next + Duration::from_micros(late));
        }
    }

    /// Nobody can run: has everybody got what this moment allows?
    fn check_moment(&self, frozen: Option<Ticket>) {
        let now = self.now();
        let state = self.scope.lock();
        let unclaimed = state.served.len();
        assert!(
            unclaimed <= usize::from(frozen.is_some()),
            "{unclaimed} were served at {now:?} and not woken: {:?}",
            state.served
        );
        // The head looks when it is time, and is not told of what is hardly earlier; the backstop looks later.
        let grace = if frozen.is_some() { BACKSTOP + WORTH_WAKING } else { WORTH_WAKING } + WORTH_WAKING;
        let somebody_looks = state.waiting.keys().any(|ticket| Some(*ticket) != frozen);
        if somebody_looks && let Some(next) = state.pipeline.next_timeout() {
            assert!(
                next + grace > now,
                "nobody looked at the clock at {next:?}, it is {now:?} (frozen: {frozen:?}): {:?} of {:?}",
                state.head,
                state.waiting
            );
        }
        let stats = state.pipeline.stats(now);
        let permits = state.served.values().filter(|result| result.is_ok()).count() as u64;
        let held = self.in_flight.load(Ordering::SeqCst);
        assert_eq!(stats.limiter.concurrent_requests, held + permits, "calls in flight at {now:?}");
        assert!(held + permits <= self.bounds.in_flight, "{held} + {permits} in flight at {now:?}");
        assert_eq!(stats.limiter.queued, state.waiting.len() as u64, "waiters at {now:?}");
        drop(state);
        assert_eq!(self.scope.outstanding().0, held, "permits at {now:?}");
        self.check_grants(permits, now);
    }

    /// Between any two moments no more requests were let go than the burst and what had flowed in.
    fn check_grants(&self, unclaimed: u64, now: Timestamp) {
        const MINUTE: i128 = 60_000_000_000;
        let flowed = i128::from(self.bounds.per_minute) * i128::from(now.as_nanos());
        let above = i128::from(self.spent.load(Ordering::SeqCst) + unclaimed) * MINUTE - flowed;
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        let most = grants.lowest + i128::from(self.bounds.burst) * MINUTE;
        assert!(above <= most, "more was granted than burst and rate allow by {now:?}: {above} > {most}");
        grants.lowest = grants.lowest.min(above);
    }

    /// Everything was given back. Adds what happened on the way to `seen`.
    pub(super) fn check_end(&self, seen: &Counters) {
        for (sum, count) in happenings(seen).into_iter().zip(happenings(&self.scope.counters)) {
            sum.fetch_add(count.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        assert_eq!(self.scope.outstanding(), (0, 0));
        let state = self.scope.lock();
        assert!(state.waiting.is_empty() && state.served.is_empty());
        assert!(state.events.is_empty() && !state.telling, "events were left untold");
        let stats = state.pipeline.stats(self.now());
        assert_eq!((stats.limiter.concurrent_requests, stats.limiter.queued), (0, 0));
    }

    /// May a task leave its place unwatched now? One at a time: the backstop stands in for one.
    pub(super) fn freeze(&self, ticket: Ticket) -> bool {
        let mut tasks = self.tasks();
        let may = tasks.frozen.is_none();
        tasks.frozen.get_or_insert(ticket);
        may
    }

    pub(super) fn thaw(&self) {
        self.tasks().frozen = None;
    }

    /// A permit came into a task's hands.
    pub(super) fn took(&self) {
        self.spent.fetch_add(1, Ordering::SeqCst);
        let before = self.in_flight.fetch_add(1, Ordering::SeqCst);
        assert!(before < self.bounds.in_flight, "{before} were in flight already at {:?}", self.now());
    }

    /// It goes back now.
    pub(super) fn gives_back(&self, sent: bool) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        if !sent {
            self.spent.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn stops(&self, tasks: &mut Tasks) {
        tasks.running -= 1;
        if tasks.running == 0 {
            self.nobody_runs.notify_one();
        }
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a check must have seen to have checked anything.
pub(super) fn happenings(of: &Counters) -> [&AtomicU64; 5] {
    [&of.sent, &of.queued, &of.cancelled, &of.limit_refused, &of.circuit_refused]
}

/// A task, as it sees itself.
#[derive(Clone)]
pub(super) struct Me {
    pub(super) world: Arc<World>,
    number: usize,
}

impl Me {
    /// A new waker of this task. The earlier ones wake nobody from here on, as when a future moves to another task.
    pub(super) fn waker(&self) -> Waker {
        let number = {
            let task = &mut self.world.tasks().each[self.number];
            task.wakers_total += 1;
            task.wakers_total
        };
        Arc::new(Ring { task: self.clone(), number }).into()
    }

    /// Suspends the task until it is woken.
    pub(super) fn park(&self) {
        let mut tasks = self.world.tasks();
        if !tasks.each[self.number].is_woken {
            tasks.each[self.number].state = TaskState::Parked;
            self.world.stops(&mut tasks);
            let woken = Arc::clone(&tasks.each[self.number].woken);
            while !tasks.each[self.number].is_woken {
                tasks = woken.wait(tasks).unwrap_or_else(PoisonError::into_inner);
            }
        }
        tasks.each[self.number].is_woken = false;
    }

    pub(super) fn sleep_until(&self, at: Timestamp) {
        let (mut timer, waker) = (Timer::default(), self.waker());
        while timer.poll_at(at, &self.world.clock, &mut Context::from_waker(&waker)) == Poll::Pending {
            self.park();
        }
    }

    pub(super) fn sleep(&self, time: Duration) {
        self.sleep_until(self.world.now() + time);
    }
}

struct Ring {
    task: Me,
    number: u64,
}

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        let Me { world, number } = &self.task;
        let mut tasks = world.tasks();
        let task = &mut tasks.each[*number];
        if task.wakers_total != self.number {
            return;
        }
        task.is_woken = true;
        if task.state == TaskState::Parked {
            task.state = TaskState::Running;
            task.woken.notify_one();
            tasks.running += 1;
        }
    }
}
