//! Items on their way from a task to whoever reads them in Python: everything that is ready goes over in one step, and a
//! reader who is slow holds the task up.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use pyo3::prelude::*;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::queue::{Inbox, Queue, Ticket, lock};
use crate::runtime::Engine;

/// Items read ahead of the reader.
const AHEAD: usize = 64;

/// How long a thread waits before it looks whether Ctrl-C was pressed.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// Where items come from: a stream that is read by a method, and ends with an error or without.
pub(crate) trait Source: Send + 'static {
    type Item: Send + 'static;
    type Error: Send + 'static;
    fn next(&mut self) -> impl Future<Output = Option<Result<Self::Item, Self::Error>>> + Send;
}

/// The reader's end. Dropping it drops the source.
pub(crate) struct Flow<S: Source> {
    shared: Arc<Shared<S>>,
    task: AbortHandle,
}

struct Shared<S: Source> {
    state: Mutex<State<S>>,
    news: Condvar,
    room: Notify,
}

struct State<S: Source> {
    items: VecDeque<S::Item>,
    /// The source has ended; an error waits to be told.
    end: Option<Option<S::Error>>,
    /// Futures to finish when there is news: one for each task that reads, which is rarely more than one.
    waiters: Vec<(u64, Arc<Inbox>)>,
}

/// What there is for a reader now.
pub(crate) enum Next<S: Source> {
    Item(S::Item),
    Failed(S::Error),
    End,
    /// Nothing yet.
    Wait,
}

impl<S: Source> Flow<S> {
    /// Reads a source from now on.
    pub(crate) fn begin(engine: &Engine, source: S) -> Self {
        let state = State { items: VecDeque::new(), end: None, waiters: Vec::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state), news: Condvar::new(), room: Notify::new() });
        let task = engine.spawn(pump(Arc::clone(&shared), source));
        Self { shared, task }
    }

    /// The next item, if it is there.
    pub(crate) fn take(&self) -> Next<S> {
        let mut state = lock(&self.shared.state);
        match state.items.pop_front() {
            Some(item) => {
                if state.items.len() == AHEAD / 2 {
                    self.shared.room.notify_one();
                }
                Next::Item(item)
            }
            None => match &mut state.end {
                None => Next::Wait,
                Some(end) => end.take().map_or(Next::End, Next::Failed),
            },
        }
    }

    /// Finishes the future when there is something to take. `None`: there is already.
    pub(crate) fn wait(&self, queue: &Bound<'_, Queue>, future: Bound<'_, PyAny>) -> Option<Ticket> {
        let mut state = lock(&self.shared.state);
        if !state.items.is_empty() || state.end.is_some() {
            return None;
        }
        let waiter = queue.get().expect(future);
        let ticket = Ticket::new(queue, waiter.0, None);
        state.waiters.push(waiter);
        Some(ticket)
    }

    /// Waits on this thread, detached from the interpreter, until there is something to take.
    pub(crate) fn wait_here(&self, py: Python<'_>) -> PyResult<()> {
        let is_idle = |state: &mut State<S>| state.items.is_empty() && state.end.is_none();
        loop {
            let came = py.detach(|| {
                let state = lock(&self.shared.state);
                let waited = self.shared.news.wait_timeout_while(state, SIGNAL_CHECK, is_idle);
                !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
            });
            if came {
                return Ok(());
            }
            py.check_signals()?;
        }
    }

    /// Ends it: the source is dropped, and nothing more comes.
    pub(crate) fn close(&self) {
        self.task.abort();
        let mut state = lock(&self.shared.state);
        state.items.clear();
        state.end.get_or_insert(None);
        wake(&self.shared, &mut state);
    }
}

impl<S: Source> Drop for Flow<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn wake<S: Source>(shared: &Shared<S>, state: &mut State<S>) {
    for (future, inbox) in state.waiters.drain(..) {
        inbox.push(future, Box::new(|py| Ok(py.None())));
    }
    shared.news.notify_all();
}

async fn pump<S: Source>(shared: Arc<Shared<S>>, mut source: S) {
    let mut batch = Vec::new();
    loop {
        let mut next = source.next().await;
        // What has come already goes along.
        let end = loop {
            match next {
                Some(Ok(item)) => batch.push(item),
                Some(Err(error)) => break Some(Some(error)),
                None => break Some(None),
            }
            if batch.len() >= AHEAD {
                break None;
            }
            match source.next().now_or_never() {
                Some(more) => next = more,
                None => break None,
            }
        };
        let (is_full, is_over) = {
            let mut state = lock(&shared.state);
            state.items.extend(batch.drain(..));
            let is_over = end.is_some();
            if is_over {
                state.end = end;
            }
            wake(&shared, &mut state);
            (state.items.len() > AHEAD / 2, is_over)
        };
        if is_over {
            return;
        }
        if is_full {
            shared.room.notified().await;
        }
    }
}
