//! The way back to an event loop: results gather here, and one byte through a socket has the loop fetch all of them.
//!
//! The runtime's thread never attaches to the interpreter: it leaves a closure that makes the Python object, and the
//! loop's thread runs it. A future whose task was cancelled is forgotten here and its work dropped there.

use std::collections::HashMap;
use std::future::Future;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use tokio::task::AbortHandle;

use crate::notes;
use crate::runtime::engine;

/// What makes the Python object that a future gets, or the exception.
pub(crate) type Finish = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// The runtime's side.
pub(crate) struct Inbox {
    done: Mutex<Vec<(u64, Finish)>>,
    bell: UnixStream,
    /// The other end of the bell, kept here so that it outlives whoever rings.
    ear: UnixStream,
}

impl Inbox {
    /// Leaves a result, and rings unless somebody has rung for those before it.
    pub(crate) fn push(&self, future: u64, finish: Finish) {
        let was_empty = {
            let mut done = lock(&self.done);
            done.push((future, finish));
            done.len() == 1
        };
        if was_empty {
            // It fails only when nobody has listened for thousands of times, and then it has rung.
            let _ = (&self.bell).write(&[1]);
        }
    }
}

/// The queue of one event loop.
#[pyclass(frozen, module = "omega_resilience._omega")]
pub(crate) struct Queue {
    inbox: Arc<Inbox>,
    waiting: Mutex<HashMap<u64, Py<PyAny>>>,
    next: AtomicU64,
}

/// A piece of work whose future is still open.
#[pyclass(frozen, module = "omega_resilience._omega")]
pub(crate) struct Ticket {
    queue: Py<Queue>,
    number: u64,
    work: Option<AbortHandle>,
}

#[pymethods]
impl Queue {
    #[new]
    fn new() -> PyResult<Self> {
        let (ear, bell) = UnixStream::pair()?;
        // Neither may ever hold its thread up.
        ear.set_nonblocking(true)?;
        bell.set_nonblocking(true)?;
        let inbox = Arc::new(Inbox { done: Mutex::default(), bell, ear });
        Ok(Self { inbox, waiting: Mutex::default(), next: AtomicU64::new(0) })
    }

    /// What the loop watches.
    fn fileno(&self) -> i32 {
        self.inbox.ear.as_raw_fd()
    }

    /// Hands every result to its future. The loop calls it when there is something to read.
    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        match (&self.inbox.ear).read(&mut [0; 64]) {
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Err(error.into());
            }
            _ => {}
        }
        // In this order: what led to these results has been written down before them.
        let done = std::mem::take(&mut *lock(&self.inbox.done));
        // Nothing that goes wrong with one of them may keep the others from their futures.
        let mut outcome = notes::tell(py);
        for (number, finish) in done {
            let waiting = lock(&self.waiting).remove(&number);
            if let Some(future) = waiting {
                outcome = outcome.and(hand_over(future.bind(py), finish));
            }
        }
        outcome
    }

    /// Futures that are still open.
    fn __len__(&self) -> usize {
        lock(&self.waiting).len()
    }
}

fn hand_over(future: &Bound<'_, PyAny>, finish: Finish) -> PyResult<()> {
    let py = future.py();
    if future.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(());
    }
    match finish(py) {
        Ok(result) => future.call_method1(intern!(py, "set_result"), (result,))?,
        Err(error) => future.call_method1(intern!(py, "set_exception"), (error,))?,
    };
    Ok(())
}

impl Queue {
    /// Notes a future, and what the runtime needs to finish it.
    pub(crate) fn expect(&self, future: Bound<'_, PyAny>) -> (u64, Arc<Inbox>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.waiting).insert(number, future.unbind());
        (number, Arc::clone(&self.inbox))
    }
}

/// Runs it on the runtime and finishes the future with what it makes.
pub(crate) fn submit(
    queue: &Bound<'_, Queue>,
    future: Bound<'_, PyAny>,
    work: impl Future<Output = Finish> + Send + 'static,
) -> PyResult<Ticket> {
    let engine = engine()?;
    let (number, inbox) = queue.get().expect(future);
    let work = engine.spawn(async move { inbox.push(number, work.await) });
    Ok(Ticket::new(queue, number, Some(work)))
}

impl Ticket {
    pub(crate) fn new(queue: &Bound<'_, Queue>, number: u64, work: Option<AbortHandle>) -> Self {
        Self { queue: queue.clone().unbind(), number, work }
    }
}

#[pymethods]
impl Ticket {
    /// Drops the work, and with it every permit it holds, and forgets the future.
    fn cancel(&self) {
        if let Some(work) = &self.work {
            work.abort();
        }
        let forgotten = lock(&self.queue.get().waiting).remove(&self.number);
        drop(forgotten);
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
