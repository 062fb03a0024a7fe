//! A streamed answer in Python's hands.

use std::future::Future;
use std::sync::Mutex;

use omega_client::{Attempt as Tried, ChatChunk as Piece, ChatStream, Error, Usage as Spent};
use pyo3::prelude::*;

use crate::answer::{Attempt, ChatChunk, Usage};
use crate::error::raised;
use crate::flow::{Flow, Next, Source};
use crate::queue::{Queue, Ticket, lock};
use crate::runtime::Engine;

impl Source for ChatStream {
    type Item = Piece;
    type Error = Error;

    fn next(&mut self) -> impl Future<Output = Option<Result<Piece, Error>>> + Send {
        ChatStream::next(self)
    }
}

#[pyclass(frozen, module = "omega_resilience._omega")]
pub(crate) struct Stream {
    flow: Flow<ChatStream>,
    provider: String,
    model: String,
    attempts: Vec<Tried>,
    queued: f64,
    usage: Mutex<Option<Spent>>,
}

impl Stream {
    pub(crate) fn begin(engine: &Engine, stream: ChatStream) -> Self {
        let (provider, model) = (stream.provider().to_owned(), stream.model().to_owned());
        let (attempts, queued) = (stream.attempts().to_vec(), stream.queued().as_secs_f64());
        let flow = Flow::begin(engine, stream);
        Self { flow, provider, model, attempts, queued, usage: Mutex::default() }
    }
}

#[pymethods]
impl Stream {
    /// The next chunk; `None`: nothing yet; `False`: it is over. Raises what broke it.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.flow.take() {
            Next::Item(chunk) => {
                if let Some(usage) = &chunk.usage {
                    *lock(&self.usage) = Some(usage.clone());
                }
                Ok(Some(Bound::new(py, ChatChunk::from(chunk))?.into_any()))
            }
            Next::Failed(error) => Err(raised(py, &error)),
            Next::End => Ok(Some(pyo3::types::PyBool::new(py, false).to_owned().into_any())),
            Next::Wait => Ok(None),
        }
    }

    fn wait(&self, queue: &Bound<'_, Queue>, future: Bound<'_, PyAny>) -> Option<Ticket> {
        self.flow.wait(queue, future)
    }

    fn wait_here(&self, py: Python<'_>) -> PyResult<()> {
        self.flow.wait_here(py)
    }

    fn close(&self) {
        self.flow.close();
    }

    #[getter]
    fn provider(&self) -> &str {
        &self.provider
    }

    #[getter]
    fn model(&self) -> &str {
        &self.model
    }

    #[getter]
    fn attempts(&self) -> Vec<Attempt> {
        self.attempts.iter().cloned().map(Attempt).collect()
    }

    #[getter]
    fn queued(&self) -> f64 {
        self.queued
    }

    #[getter]
    fn usage(&self) -> Option<Usage> {
        lock(&self.usage).clone().map(Usage::from)
    }
}
