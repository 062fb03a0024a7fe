//! Log lines and events on their way to Python: kept until a thread that may run Python fetches them.
//!
//! The runtime writes them down and goes on. An event loop tells them before it hands over results, so that the line
//! about a failed call is logged before its exception is raised; a thread of the package tells those that come while
//! nothing is handed over.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex};

use arc_swap::ArcSwap;
use omega_client::{ClientEvent, Events, EventsError, LOG_TARGET};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::queue::lock;
use crate::runtime::Engine;

/// Notes kept while nobody fetches them: an outage of minutes. After that the oldest are lost, and counted.
const KEPT: usize = 10_000;

static NOTES: LazyLock<ArcSwap<Notes>> = LazyLock::new(ArcSwap::default);

#[derive(Default)]
struct Notes {
    list: Mutex<List>,
    news: Condvar,
    /// How many have not been told to the end: asked without the lock, for every result that is handed over.
    untold: AtomicUsize,
}

#[derive(Default)]
struct List {
    notes: VecDeque<Note>,
    lost: u64,
    closed: bool,
}

enum Note {
    Line { level: u8, text: String },
    Event { listener: u64, json: String },
}

fn add(note: Note) {
    let notes = NOTES.load();
    let mut list = lock(&notes.list);
    if list.notes.len() >= KEPT {
        list.notes.pop_front();
        list.lost += 1;
    } else {
        notes.untold.fetch_add(1, Ordering::Release);
    }
    list.notes.push_back(note);
    drop(list);
    notes.news.notify_one();
}

/// Starts to listen to the client's log lines. Once for each process.
pub(crate) fn listen() {
    let subscriber = tracing_subscriber::registry().with(Lines);
    // Only this library sees it; it is there already when the module is imported a second time.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct Lines;

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target() == LOG_TARGET
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        // The levels of Python's `logging`.
        let level = match *event.metadata().level() {
            Level::ERROR => 40,
            Level::WARN => 30,
            Level::INFO => 20,
            Level::DEBUG | Level::TRACE => 10,
        };
        add(Note::Line { level, text: text.0 });
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// Fetches everything: `(level, text, None)` of a log line, `(listener, None, json)` of an event, and how many were
/// lost before them.
#[pyfunction]
#[expect(clippy::type_complexity, reason = "it is a list of plain triples for Python")]
pub(crate) fn take_notes() -> (Vec<(u64, Option<String>, Option<String>)>, u64) {
    let notes = NOTES.load();
    let mut list = lock(&notes.list);
    let lost = std::mem::take(&mut list.lost);
    let all = list.notes.drain(..).map(|note| match note {
        Note::Line { level, text } => (u64::from(level), Some(text), None),
        Note::Event { listener, json } => (listener, None, Some(json)),
    });
    (all.collect(), lost)
}

/// So many of those that were fetched have been told.
#[pyfunction]
pub(crate) fn told(count: usize) {
    // A fork in the middle of telling begins again at none.
    let less = |untold: usize| Some(untold.saturating_sub(count));
    let _ = NOTES.load().untold.fetch_update(Ordering::Release, Ordering::Relaxed, less);
}

/// Waits until there is something. `False`: there will be nothing more.
#[pyfunction]
pub(crate) fn wait_for_notes(py: Python<'_>) -> bool {
    let notes = NOTES.load_full();
    py.detach(|| {
        let list = lock(&notes.list);
        let idle = |list: &mut List| list.notes.is_empty() && !list.closed;
        let list = notes.news.wait_while(list, idle).unwrap_or_else(std::sync::PoisonError::into_inner);
        !list.closed
    })
}

/// Has Python tell what there is to tell, and waits for a thread that is telling it.
pub(crate) fn tell(py: Python<'_>) -> PyResult<()> {
    static FLUSH: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if NOTES.load().untold.load(Ordering::Acquire) > 0 {
        FLUSH.import(py, "omega_resilience._notes", "flush")?.call0()?;
    }
    Ok(())
}

/// Wakes whoever waits: there will be nothing more.
pub(crate) fn close() {
    let notes = NOTES.load();
    lock(&notes.list).closed = true;
    notes.news.notify_all();
}

/// In a fork: the parent's lock may be held by a thread that is not here.
pub(crate) fn begin_anew() {
    std::mem::forget(NOTES.swap(Arc::default()));
}

/// Passes on what is heard, for as long as the one who tells it lives.
///
/// - `listener`: who gets it.
pub(crate) fn pass_on(engine: &Engine, mut events: Events, listener: u64) {
    engine.spawn(async move {
        loop {
            let json = match events.next().await {
                Ok(event) => described(&event),
                Err(EventsError::Missed(missed)) => json!({"type": "missed", "count": missed}),
                Err(EventsError::Closed) => return,
            };
            add(Note::Event { listener, json: json.to_string() });
        }
    });
}

/// An event as a dictionary. Times are seconds since its client was made.
fn described(event: &ClientEvent) -> Value {
    let seconds = |time: &std::time::Duration| json!(time.as_secs_f64());
    let of = |kind: &str, fields: &[(&str, Value)]| {
        let mut map = Map::from_iter([(String::from("type"), json!(kind))]);
        map.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Value::Object(map)
    };
    match event {
        ClientEvent::Transition(change) => of(
            "transition",
            &[
                ("provider", json!(change.provider)),
                ("model", json!(change.model)),
                ("from", json!(change.from.name())),
                ("to", json!(change.to.name())),
                ("at", seconds(&change.at)),
            ],
        ),
        ClientEvent::LimitHit { provider, dimension, at } => of(
            "limit_hit",
            &[("provider", json!(provider)), ("dimension", json!(dimension.name())), ("at", seconds(at))],
        ),
        ClientEvent::LimitCleared { provider, at } => {
            of("limit_cleared", &[("provider", json!(provider)), ("at", seconds(at))])
        }
        ClientEvent::Paused { provider, until, at } => {
            of("paused", &[("provider", json!(provider)), ("until", seconds(until)), ("at", seconds(at))])
        }
        ClientEvent::Retrying { provider, model, attempt, delay, at } => of(
            "retrying",
            &[
                ("provider", json!(provider)),
                ("model", json!(model)),
                ("attempt", json!(attempt)),
                ("delay", seconds(delay)),
                ("at", seconds(at)),
            ],
        ),
        ClientEvent::Hedged { from, to, waited, at } => of(
            "hedged",
            &[("from", json!(from)), ("to", json!(to)), ("waited", seconds(waited)), ("at", seconds(at))],
        ),
        ClientEvent::HedgeWon { from, to, at } => {
            of("hedge_won", &[("from", json!(from)), ("to", json!(to)), ("at", seconds(at))])
        }
        ClientEvent::FailedOver { from, to, at } => {
            of("failed_over", &[("from", json!(from)), ("to", json!(to)), ("at", seconds(at))])
        }
        // A kind of a later version: its name says more than nothing.
        other => of("other", &[("text", json!(format!("{other:?}")))]),
    }
}
