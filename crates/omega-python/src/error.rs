//! From the client's error to Python's exceptions, which `_errors.py` defines.

use omega_client::{Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use crate::answer::Attempt;

/// The exception for this error.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    match exception(py, error) {
        Ok(exception) => PyErr::from_value(exception),
        Err(wrong) => wrong,
    }
}

/// As [`raised`], with any result in place of the error.
pub(crate) fn result<T>(py: Python<'_>, result: Result<T, Error>) -> PyResult<T> {
    result.map_err(|error| raised(py, &error))
}

fn exception<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let attempts: Vec<Attempt> = error.attempts().iter().cloned().map(Attempt).collect();
    let facts = PyDict::new(py);
    facts.set_item("provider", error.provider())?;
    facts.set_item("model", error.model())?;
    facts.set_item("retry_after", error.retry_after().map(|wait| wait.as_secs_f64()))?;
    facts.set_item("attempts", attempts)?;
    facts.set_item("status_code", error.status())?;
    facts.set_item("code", error.code().or(error.error_type()).unwrap_or(error.kind().code()))?;
    facts.set_item("error_type", error.error_type())?;
    facts.set_item("param", error.param())?;
    facts.set_item("request_id", error.request_id())?;
    facts.set_item("origin", error.origin().as_str())?;
    let make = MAKE.import(py, "omega_resilience._errors", "_make")?;
    make.call1((class(error.kind()), error.to_string(), facts))
}

/// The name of the class.
fn class(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::CircuitOpen => "CircuitBreakerError",
        ErrorKind::RateLimited => "RateLimitExceededError",
        ErrorKind::QuotaExhausted => "QuotaExceededError",
        ErrorKind::Authentication => "AuthenticationError",
        ErrorKind::InvalidRequest
        | ErrorKind::ContextLength
        | ErrorKind::ContentFilter
        | ErrorKind::Unsupported => "InvalidRequestError",
        ErrorKind::StreamBroken => "StreamBrokenError",
        ErrorKind::Deadline => "DeadlineExceededError",
        ErrorKind::Config => "ConfigurationError",
        ErrorKind::Provider | ErrorKind::Transport => "ProviderError",
        // A kind of a later version.
        _ => "UnifiedLLMClientError",
    }
}
