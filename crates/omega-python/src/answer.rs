//! What a call gives back: the answer, the pieces of a stream, what they cost and what was tried.

use std::time::Duration;

use omega_client::{Answer, AttemptOutcome, ChatResponse, FinishReason};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use serde::Serialize;

use crate::dictionary::{Dictionary, dictionary, plain};

/// Characters of an answer that its `repr` shows.
const SHOWN: usize = 60;

/// A whole answer. Behaves like the dictionary of OpenAI's chat completion, whichever provider gave it.
///
/// ``result.text``, ``result["choices"][0]["message"]["content"]``, ``result.usage.total_tokens``, ``result.provider``.
/// Any key of the dictionary is an attribute too. ``str(result)`` is the text.
#[pyclass(frozen, module = "omega_resilience")]
pub(crate) struct ChatResult {
    answer: Answer<ChatResponse>,
    dictionary: Dictionary,
}

impl From<Answer<ChatResponse>> for ChatResult {
    fn from(answer: Answer<ChatResponse>) -> Self {
        Self { answer, dictionary: Dictionary::default() }
    }
}

impl ChatResult {
    fn data(&self) -> &ChatResponse {
        &self.answer.response
    }

    fn dictionary<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyDict>> {
        self.dictionary.of(py, self.data())
    }
}

dictionary!(ChatResult);

/// A result for pickle: the answer in JSON, who gave it, the model asked for, seconds in the queue.
type Written = (String, String, String, f64);

#[pymethods]
impl ChatResult {
    /// The text of the first choice; empty if it has none.
    #[getter]
    fn text(&self) -> &str {
        self.answer.text()
    }

    /// The provider that really served it.
    #[getter]
    fn provider(&self) -> &str {
        &self.answer.provider
    }

    /// The model that answered, as the provider names it.
    #[getter]
    fn model(&self) -> &str {
        let said = &self.answer.response.model;
        if said.is_empty() { &self.answer.model } else { said }
    }

    /// The provider's id of the answer.
    #[getter]
    fn id(&self) -> &str {
        &self.answer.response.id
    }

    /// When it was made, in Unix seconds; 0 where the provider does not say.
    #[getter]
    fn created(&self) -> u64 {
        self.answer.response.created
    }

    /// Why the first choice ended: ``stop``, ``length``, ``tool_calls``, ``content_filter``, …
    #[getter]
    fn finish_reason(&self) -> Option<String> {
        self.answer.finish_reason().as_ref().map(word)
    }

    /// What the first choice wants called, as dictionaries; empty if nothing.
    #[getter]
    fn tool_calls<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        listed(py, self.answer.tool_calls())
    }

    /// What it cost; ``None`` where the provider did not say.
    #[getter]
    fn usage(&self) -> Option<Usage> {
        self.answer.response.usage.clone().map(Usage::from)
    }

    /// Everything that was tried, in order; the last one is the answer.
    #[getter]
    fn attempts(&self) -> Vec<Attempt> {
        self.answer.attempts.iter().cloned().map(Attempt).collect()
    }

    /// Seconds that the call waited for quota, over all attempts.
    #[getter]
    fn queued(&self) -> f64 {
        self.answer.queued.as_secs_f64()
    }

    /// For pickle: what `__reduce__` wrote down.
    #[staticmethod]
    fn _load(answer: &str, provider: String, model: String, queued: f64) -> PyResult<Self> {
        let wrong = |text: String| pyo3::exceptions::PyValueError::new_err(text);
        let response = serde_json::from_str(answer).map_err(|error| wrong(error.to_string()))?;
        let queued = Duration::try_from_secs_f64(queued).map_err(|error| wrong(error.to_string()))?;
        Ok(Self::from(Answer { response, provider, model, attempts: Vec::new(), queued }))
    }

    /// For other processes and caches. The attempts stay behind.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Written)> {
        let this = slf.get();
        let Answer { provider, model, queued, .. } = &this.answer;
        let written = (this.to_json(), provider.clone(), model.clone(), queued.as_secs_f64());
        Ok((slf.get_type().getattr("_load")?, written))
    }

    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// Nothing in it can be changed.
    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }

    fn __str__(&self) -> &str {
        self.answer.text()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let text = shown(py, self.answer.text())?;
        let (provider, model) = (&self.answer.provider, self.model());
        let usage = self.usage().map_or_else(|| String::from("None"), |usage| usage.__repr__());
        let attempts = self.answer.attempts.len();
        Ok(format!(
            "ChatResult(text={text}, provider='{provider}', model='{model}', usage={usage}, attempts={attempts})"
        ))
    }

    /// For notebooks: the text, and who wrote it.
    fn _repr_markdown_(&self) -> String {
        let spent = self.usage().map_or_else(String::new, |usage| format!(", {} tokens", usage.total()));
        format!("{}\n\n*{}/{}{spent}*", self.answer.text(), self.answer.provider, self.model())
    }
}

/// A piece of a streamed answer. Behaves like the dictionary of OpenAI's chunk. ``str(chunk)`` is its text.
#[pyclass(frozen, module = "omega_resilience")]
pub(crate) struct ChatChunk {
    chunk: omega_client::ChatChunk,
    dictionary: Dictionary,
}

impl From<omega_client::ChatChunk> for ChatChunk {
    fn from(chunk: omega_client::ChatChunk) -> Self {
        Self { chunk, dictionary: Dictionary::default() }
    }
}

impl ChatChunk {
    fn data(&self) -> &omega_client::ChatChunk {
        &self.chunk
    }

    fn dictionary<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyDict>> {
        self.dictionary.of(py, self.data())
    }
}

dictionary!(ChatChunk);

#[pymethods]
impl ChatChunk {
    /// What is new of the first choice; empty if nothing.
    #[getter]
    fn text(&self) -> &str {
        self.chunk.text()
    }

    /// The model that answers.
    #[getter]
    fn model(&self) -> &str {
        &self.chunk.model
    }

    /// The provider's id of the answer.
    #[getter]
    fn id(&self) -> &str {
        &self.chunk.id
    }

    /// Why the first choice ended, on its last chunk.
    #[getter]
    fn finish_reason(&self) -> Option<String> {
        self.chunk.choices.first()?.finish_reason.as_ref().map(word)
    }

    /// What is new of tool calls, as dictionaries.
    #[getter]
    fn tool_calls<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        listed(py, self.chunk.choices.first().map_or(&[][..], |choice| &choice.delta.tool_calls))
    }

    /// What the call cost; on the last chunks only.
    #[getter]
    fn usage(&self) -> Option<Usage> {
        self.chunk.usage.clone().map(Usage::from)
    }

    fn __str__(&self) -> &str {
        self.chunk.text()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let text = shown(py, self.chunk.text())?;
        let end = self.finish_reason().map_or_else(String::new, |why| format!(", finish_reason='{why}'"));
        Ok(format!("ChatChunk(text={text}{end})"))
    }
}

/// Tokens used, with one meaning for every provider. Behaves like OpenAI's dictionary.
#[pyclass(frozen, module = "omega_resilience")]
pub(crate) struct Usage {
    usage: omega_client::Usage,
    dictionary: Dictionary,
}

impl From<omega_client::Usage> for Usage {
    fn from(usage: omega_client::Usage) -> Self {
        Self { usage, dictionary: Dictionary::default() }
    }
}

impl Usage {
    fn data(&self) -> &omega_client::Usage {
        &self.usage
    }

    fn dictionary<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyDict>> {
        self.dictionary.of(py, self.data())
    }

    fn total(&self) -> u64 {
        self.usage.total_tokens
    }
}

dictionary!(Usage);

#[pymethods]
impl Usage {
    /// Everything the model read, cached input included.
    #[getter]
    fn prompt_tokens(&self) -> u64 {
        self.usage.prompt_tokens
    }

    /// Everything the model wrote, reasoning included.
    #[getter]
    fn completion_tokens(&self) -> u64 {
        self.usage.completion_tokens
    }

    /// The sum.
    #[getter]
    fn total_tokens(&self) -> u64 {
        self.usage.total_tokens
    }

    /// The part of the prompt that came from the provider's cache.
    #[getter]
    fn cached_tokens(&self) -> u64 {
        self.usage.cached_tokens()
    }

    /// The part of the answer that was reasoning.
    #[getter]
    fn reasoning_tokens(&self) -> u64 {
        self.usage.reasoning_tokens()
    }

    fn __repr__(&self) -> String {
        let omega_client::Usage { prompt_tokens, completion_tokens, total_tokens, .. } = &self.usage;
        format!(
            "Usage(prompt_tokens={prompt_tokens}, completion_tokens={completion_tokens}, total_tokens={total_tokens})"
        )
    }
}

/// One thing that was tried.
#[pyclass(frozen, module = "omega_resilience")]
pub(crate) struct Attempt(pub(crate) omega_client::Attempt);

#[pymethods]
impl Attempt {
    /// The provider.
    #[getter]
    fn provider(&self) -> &str {
        &self.0.provider
    }

    /// The model asked for there.
    #[getter]
    fn model(&self) -> &str {
        &self.0.model
    }

    /// ``answered``, ``failed``, ``refused`` (OMEGA did not send it), ``cancelled`` or ``skipped``.
    #[getter]
    fn outcome(&self) -> &'static str {
        self.0.outcome.name()
    }

    /// Why it was not answered, in words; ``None`` if it was.
    #[getter]
    fn message(&self) -> Option<&str> {
        self.0.outcome.message()
    }

    /// The provider's HTTP status, where it failed with one.
    #[getter]
    fn status_code(&self) -> Option<u16> {
        match &self.0.outcome {
            AttemptOutcome::Failed { status, .. } => *status,
            _ => None,
        }
    }

    /// The provider's error code, where it failed; OMEGA's own word where it refused.
    #[getter]
    fn code(&self) -> Option<&str> {
        match &self.0.outcome {
            AttemptOutcome::Failed { code, .. } => code.as_deref(),
            AttemptOutcome::Refused { kind, .. } => Some(kind.code()),
            _ => None,
        }
    }

    /// Seconds after the call began.
    #[getter]
    fn started(&self) -> f64 {
        self.0.started.as_secs_f64()
    }

    /// Seconds it took, waiting for quota included.
    #[getter]
    fn elapsed(&self) -> f64 {
        self.0.elapsed.as_secs_f64()
    }

    /// Seconds of these that were waiting for quota.
    #[getter]
    fn queued(&self) -> f64 {
        self.0.queued.as_secs_f64()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let omega_client::Attempt { provider, model, elapsed, outcome, .. } = &self.0;
        let why = match outcome.message() {
            Some(message) => format!(", message={}", shown(py, message)?),
            None => String::new(),
        };
        let (outcome, elapsed) = (outcome.name(), elapsed.as_secs_f64());
        Ok(format!(
            "Attempt(provider='{provider}', model='{model}', outcome='{outcome}', elapsed={elapsed:.3}{why})"
        ))
    }
}

fn word(reason: &FinishReason) -> String {
    reason.as_str().to_owned()
}

fn listed<'py>(py: Python<'py>, items: &[impl Serialize]) -> PyResult<Bound<'py, PyAny>> {
    if items.is_empty() { Ok(PyList::empty(py).into_any()) } else { plain(py, &items) }
}

/// The beginning of a text, as Python writes it.
fn shown(py: Python<'_>, text: &str) -> PyResult<String> {
    let mut beginning: String = text.chars().take(SHOWN).collect();
    if beginning.len() < text.len() {
        beginning.push('…');
    }
    PyString::new(py, &beginning).repr()?.extract()
}
