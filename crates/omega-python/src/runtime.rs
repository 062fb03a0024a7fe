//! The one thread on which every call runs, and what a fork leaves of it.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::notes;

/// How long a thread that waits without an event loop goes on before it looks whether Ctrl-C was pressed.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// How long the end of the interpreter may be held up by calls that are being dropped.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Taken only by a thread that is attached to the interpreter and stays so while it holds it: a fork then never happens
/// inside.
static ENGINE: Mutex<State> = Mutex::new(State::None);

enum State {
    None,
    Running(Arc<Engine>),
    /// The interpreter ends.
    Ended,
}

/// A runtime on a thread of its own.
pub(crate) struct Engine {
    handle: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The runtime of this process; started when it is first needed.
pub(crate) fn engine() -> PyResult<Arc<Engine>> {
    let mut state = ENGINE.lock().unwrap_or_else(PoisonError::into_inner);
    match &*state {
        State::Running(engine) => Ok(Arc::clone(engine)),
        State::Ended => Err(PyRuntimeError::new_err("OMEGA has ended: the interpreter is shutting down")),
        State::None => {
            let engine = Arc::new(Engine::start()?);
            *state = State::Running(Arc::clone(&engine));
            Ok(engine)
        }
    }
}

impl Engine {
    fn start() -> PyResult<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let until = stop.clone();
        let thread = std::thread::Builder::new().name(String::from("omega")).spawn(move || {
            runtime.block_on(until.cancelled());
            runtime.shutdown_timeout(LAST_MOMENT);
        })?;
        Ok(Self { handle, tasks: TaskTracker::new(), stop, thread: Mutex::new(Some(thread)) })
    }

    /// Runs it there.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tasks.spawn_on(work, &self.handle).abort_handle()
    }

    /// Does something on the caller's thread that may set a timer of the runtime's.
    pub(crate) fn inside<T>(&self, act: impl FnOnce() -> T) -> T {
        let _inside = self.handle.enter();
        act()
    }

    /// Runs it there and waits for it here, detached from the interpreter. Ctrl-C ends the wait and drops the work.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> PyResult<T> {
        let (sender, mut receiver) = mpsc::sync_channel(1);
        let task = self.spawn(async move {
            // Nobody listens any more if the wait was interrupted.
            let _ = sender.send(work.await);
        });
        loop {
            let results = &mut receiver;
            match py.detach(move || results.recv_timeout(SIGNAL_CHECK)) {
                Ok(done) => return Ok(done),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if let Err(interrupt) = py.check_signals() {
                        task.abort();
                        return Err(interrupt);
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(PyRuntimeError::new_err("the call was dropped: OMEGA is shutting down"));
                }
            }
        }
    }
}

/// Ends every call. Called by the package when the interpreter exits.
#[pyfunction]
pub(crate) fn shutdown(py: Python<'_>) {
    let before = std::mem::replace(&mut *ENGINE.lock().unwrap_or_else(PoisonError::into_inner), State::Ended);
    notes::close();
    let State::Running(engine) = before else { return };
    engine.stop.cancel();
    let thread = engine.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(thread) = thread {
        // A thread that panicked has said so.
        py.detach(|| drop(thread.join()));
    }
}

/// Forgets, in a child, what only the parent has. Called by the package after a fork.
#[pyfunction]
pub(crate) fn after_fork() {
    notes::begin_anew();
    let mut state = ENGINE.lock().unwrap_or_else(PoisonError::into_inner);
    // Its thread is not here: nothing may wait for it, nor take a lock that it may have held.
    std::mem::forget(std::mem::replace(&mut *state, State::None));
}
