//! Keeps a scope's leases: one task that asks the store when the pipeline says so, and brings back the answers.
//!
//! It is the only one that ever waits for the store. Calls wait for their turn as they do without one; what they wait
//! for is then a grant, or the news that there is none, and never more than one timeout away.

use std::process;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use omega_policy::{LeaseConfig, LeaseGrant, LeaseRequest, ModelId, Timestamp};
use tokio::sync::Notify;

use super::Scope;
use super::state::State;
use crate::registry::Models;
use crate::store::{FleetReport, SharedStore, StoreError, WireGrant, WireRequest};
use crate::telemetry;

/// How the models without a number of their own are called in the store.
const OTHERS: &str = "*";
/// A moment that has come nearer by less than this is not worth waking the task for.
const NEARER: u64 = 1_000_000;

/// A scope's link to the store.
pub(crate) struct Keeper {
    store: Arc<dyn SharedStore>,
    /// Whose quota it is, in the store.
    key: String,
    /// This process there, without its life.
    process: String,
    label: String,
    timeout: Duration,
    wake: Notify,
    /// Is the task there? And of which process: after a fork it is its parent's.
    is_running: AtomicBool,
    pid: AtomicU32,
    /// Until when the task sleeps by itself, in nanoseconds of the clock.
    sleeps_until: AtomicU64,
    /// The last request, once the scope is gone.
    farewell: Mutex<Option<(String, WireRequest)>>,
}

/// What the task does next.
enum Step {
    Ask(Box<LeaseRequest>, String, Box<WireRequest>),
    Sleep(Option<Timestamp>),
}

impl Keeper {
    pub(crate) fn new(store: Arc<dyn SharedStore>, key: String, timeout: Duration) -> Arc<Self> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = match host.trim() {
            "" => "localhost",
            host => host,
        };
        Arc::new(Self {
            store,
            key,
            process: format!("{:016x}", fastrand::u64(..)),
            label: host.chars().take(64).collect(),
            timeout,
            wake: Notify::new(),
            is_running: AtomicBool::new(false),
            pid: AtomicU32::new(0),
            sleeps_until: AtomicU64::new(0),
            farewell: Mutex::new(None),
        })
    }

    /// The account of its quota.
    pub(crate) async fn report(&self) -> Result<Option<FleetReport>, StoreError> {
        self.store.report(&self.key).await
    }

    /// This process's name in the store, in this life of it: another after a fork.
    fn name(&self, life: u32) -> String {
        format!("{}-{}-{life}", self.process, process::id())
    }

    fn wired(&self, request: LeaseRequest, models: &Models) -> (String, WireRequest) {
        let name = self.name(request.life);
        let mut wire = request.named(|model| match model {
            None => String::new(),
            Some(ModelId::OTHER) => OTHERS.to_owned(),
            Some(model) => models.name(model).to_owned(),
        });
        wire.label = format!("{}:{}", self.label, process::id());
        (name, wire)
    }

    /// Something may have become due: sees to it that the task looks.
    fn nudge(self: &Arc<Self>, scope: &Arc<Scope>) {
        let pid = process::id();
        let is_ours = self.pid.swap(pid, Ordering::Relaxed) == pid;
        if is_ours && self.is_running.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
            return;
        }
        self.is_running.store(true, Ordering::Release);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let (keeper, scope) = (Arc::clone(self), Arc::downgrade(scope));
                // Not awaited by anybody: it ends with its scope, or with its runtime, and owes nothing but a farewell.
                drop(runtime.spawn(keep(keeper, scope)));
            }
            // Whoever decides inside a runtime next starts it.
            Err(_) => self.is_running.store(false, Ordering::Release),
        }
    }
}

/// Marks the end of the task, however it comes.
struct Running(Arc<Keeper>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_running.store(false, Ordering::Release);
    }
}

async fn keep(keeper: Arc<Keeper>, scope: Weak<Scope>) {
    let keeper = &Running(keeper).0;
    loop {
        let Some(here) = scope.upgrade() else { break };
        match here.lease_step(keeper) {
            Step::Ask(request, name, wire) => {
                drop(here);
                let exchange = keeper.store.exchange(&keeper.key, &name, &wire);
                let answer = match tokio::time::timeout(keeper.timeout, exchange).await {
                    Ok(answer) => answer,
                    Err(_) => Err(StoreError(format!("no answer within {} ms", keeper.timeout.as_millis()))),
                };
                let Some(here) = scope.upgrade() else { break };
                here.lease_answered(&request, answer);
            }
            Step::Sleep(until) => {
                let until_nanos = until.map_or(u64::MAX, Timestamp::as_nanos);
                keeper.sleeps_until.store(until_nanos, Ordering::Release);
                let sleep = until.map(|until| tokio::time::sleep_until(here.clock.instant(until)));
                drop(here);
                match sleep {
                    Some(sleep) => tokio::select! {
                        () = sleep => {}
                        () = keeper.wake.notified() => {}
                    },
                    None => keeper.wake.notified().await,
                }
                keeper.sleeps_until.store(0, Ordering::Release);
            }
        }
    }
    let farewell = keeper.farewell.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((name, request)) = farewell {
        let _ =
            tokio::time::timeout(keeper.timeout, keeper.store.exchange(&keeper.key, &name, &request)).await;
    }
}

impl Scope {
    /// Shares its limits, pauses and circuits through a store from now on. Once; later ones change nothing.
    pub(crate) fn share(&self, keeper: Arc<Keeper>, config: LeaseConfig) {
        if self.keeper.set(keeper).is_ok() {
            let now = self.clock.now();
            self.lock().pipeline.share(config, now);
        }
    }

    /// Its link to the store, if it shares anything.
    pub(crate) fn keeper(&self) -> Option<&Arc<Keeper>> {
        self.keeper.get()
    }

    /// After a decision: is the store to be asked?
    pub(super) fn lease_due(&self, state: &State, now: Timestamp) -> bool {
        let Some(keeper) = self.keeper.get() else { return false };
        let Some(at) = state.pipeline.next_lease(now) else { return false };
        at.as_nanos().saturating_add(NEARER) < keeper.sleeps_until.load(Ordering::Acquire)
            || !keeper.is_running.load(Ordering::Acquire)
            || keeper.pid.load(Ordering::Relaxed) != process::id()
    }

    pub(super) fn nudge_keeper(self: &Arc<Self>) {
        if let Some(keeper) = self.keeper.get() {
            keeper.nudge(self);
        }
    }

    fn lease_step(&self, keeper: &Keeper) -> Step {
        let now = self.clock.now();
        self.decide_quietly(now, |state| match state.pipeline.poll_lease(now) {
            Some(request) => {
                let (name, wire) = keeper.wired(request.clone(), &state.models);
                Step::Ask(Box::new(request), name, Box::new(wire))
            }
            None => Step::Sleep(state.pipeline.next_lease(now)),
        })
    }

    fn lease_answered(&self, request: &LeaseRequest, answer: Result<WireGrant, StoreError>) {
        let now = self.clock.now();
        let (was_away, lease) = self.decide_quietly(now, |state| {
            let was_away = state.pipeline.lease_stats().is_some_and(|lease| lease.is_away);
            match &answer {
                Ok(grant) => {
                    let models = &mut state.models;
                    let grant: LeaseGrant = grant.clone().named(|model: String| match model.as_str() {
                        "" => None,
                        OTHERS => Some(ModelId::OTHER),
                        model => Some(models.intern(model)),
                    });
                    state.pipeline.handle_lease(request, &grant, now);
                }
                Err(_) => state.pipeline.lose_lease(request, now),
            }
            (was_away, state.pipeline.lease_stats())
        });
        match (was_away, lease, answer) {
            (false, Some(lease), answer) if lease.is_away => {
                let why = match answer {
                    Err(error) => error.to_string(),
                    Ok(_) => String::from("the store does not know what was spent"),
                };
                telemetry::store_lost(&self.name, lease.share, &why);
            }
            (true, Some(lease), _) if lease.is_joined => telemetry::store_joined(&self.name, lease.members),
            _ => {}
        }
    }

    /// The last request of a scope that ends: everything goes back.
    pub(super) fn say_farewell(&mut self) {
        let now = self.clock.now();
        let Some(keeper) = self.keeper.get().map(Arc::clone) else { return };
        let state = match self.state.get_mut() {
            Ok(state) => state,
            Err(poisoned) => poisoned.into_inner(),
        };
        if let Some(request) = state.pipeline.farewell(now) {
            let farewell = keeper.wired(request, &state.models);
            *keeper.farewell.lock().unwrap_or_else(PoisonError::into_inner) = Some(farewell);
        }
        keeper.wake.notify_one();
    }
}
