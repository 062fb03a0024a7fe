//! The policies by themselves, for code that calls no language model.

use futures_util::FutureExt as _;
use omega_client::{BreakerSettings, Chance, CircuitPass as Trial, GateLimits, Jitter, Pass, TokenUsage};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::sync::Mutex;

use crate::client::{duration, priority};
use crate::dictionary::plain;
use crate::error::{raised, result};
use crate::notes;
use crate::queue::{Finish, Queue, Ticket, lock, submit};
use crate::runtime::engine;

/// A circuit breaker.
#[pyclass(frozen, module = "omega_resilience._omega")]
pub(crate) struct Circuit(omega_client::Circuit);

/// The right to try once.
#[pyclass(frozen, module = "omega_resilience._omega")]
pub(crate) struct CircuitPass(Mutex<Option<Trial>>);

#[pymethods]
impl Circuit {
    #[new]
    #[pyo3(signature = (name, failure_threshold, success_threshold, timeout_seconds, half_open_max_calls, listener))]
    fn new(
        name: &str,
        failure_threshold: u32,
        success_threshold: u32,
        timeout_seconds: f64,
        half_open_max_calls: u32,
        listener: Option<u64>,
    ) -> PyResult<Self> {
        let counts = [
            ("failure_threshold", failure_threshold),
            ("success_threshold", success_threshold),
            ("half_open_max_calls", half_open_max_calls),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(PyValueError::new_err(format!("{name} is at least 1")));
        }
        let settings = BreakerSettings {
            failure_threshold,
            success_threshold,
            timeout: duration("timeout_seconds", timeout_seconds)?,
            half_open_max_calls,
            ..BreakerSettings::default()
        };
        let circuit = omega_client::Circuit::new(name, settings);
        if let Some(listener) = listener {
            notes::pass_on(engine()?.as_ref(), circuit.subscribe(), listener);
        }
        Ok(Self(circuit))
    }

    fn enter(&self, py: Python<'_>) -> PyResult<CircuitPass> {
        let pass = self.0.enter();
        notes::tell(py)?;
        Ok(CircuitPass(Mutex::new(Some(result(py, pass)?))))
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(py, &self.0.stats())
    }

    #[getter]
    fn state(&self) -> &'static str {
        self.0.stats().state.name()
    }

    fn reset(&self, py: Python<'_>) -> PyResult<()> {
        self.0.reset();
        notes::tell(py)
    }
}

#[pymethods]
impl CircuitPass {
    fn succeed(&self, py: Python<'_>) -> PyResult<()> {
        self.settle(py, Trial::succeed)
    }

    fn fail(&self, py: Python<'_>) -> PyResult<()> {
        self.settle(py, Trial::fail)
    }

    /// Says nothing about what is protected.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        self.settle(py, drop)
    }
}

impl CircuitPass {
    fn settle(&self, py: Python<'_>, verdict: impl FnOnce(Trial)) -> PyResult<()> {
        let pass = lock(&self.0).take();
        pass.map(verdict);
        notes::tell(py)
    }
}

/// A rate limiter.
#[pyclass(frozen, module = "omega_resilience._omega")]
pub(crate) struct Gate(omega_client::Gate);

/// The right to one call.
#[pyclass(frozen, module = "omega_resilience._omega")]
pub(crate) struct GatePass(Mutex<Option<Pass>>);

impl GatePass {
    fn object(py: Python<'_>, pass: Pass) -> PyResult<Py<PyAny>> {
        Ok(Bound::new(py, Self(Mutex::new(Some(pass))))?.into_any().unbind())
    }
}

#[pymethods]
impl Gate {
    #[new]
    fn new(
        name: &str,
        requests_per_minute: Option<u64>,
        tokens_per_minute: Option<u64>,
        max_concurrent: Option<u32>,
        listener: Option<u64>,
    ) -> PyResult<Self> {
        if requests_per_minute == Some(0) || tokens_per_minute == Some(0) || max_concurrent == Some(0) {
            return Err(PyValueError::new_err("a limit is at least 1; None means none"));
        }
        let limits = GateLimits { requests_per_minute, tokens_per_minute, max_concurrent };
        let gate = omega_client::Gate::alone(name, &limits);
        if let Some(listener) = listener {
            notes::pass_on(engine()?.as_ref(), gate.subscribe(), listener);
        }
        Ok(Self(gate))
    }

    /// A pass, if there is room; else a place in the queue.
    fn enter(
        &self,
        py: Python<'_>,
        tokens: u64,
        max_wait: f64,
        urgency: Option<&str>,
    ) -> PyResult<Py<PyAny>> {
        let mut entering = self.entering(tokens, max_wait, urgency)?;
        // Most get in at once, and need no thread but their own.
        let at_once = engine()?.inside(|| (&mut entering).now_or_never());
        notes::tell(py)?;
        match at_once {
            Some(pass) => GatePass::object(py, result(py, pass)?),
            None => Ok(Bound::new(py, GatePlace(Mutex::new(Some(entering))))?.into_any().unbind()),
        }
    }

    /// Waits for its turn on this thread.
    fn enter_here(
        &self,
        py: Python<'_>,
        tokens: u64,
        max_wait: f64,
        urgency: Option<&str>,
    ) -> PyResult<Py<PyAny>> {
        let mut entering = self.entering(tokens, max_wait, urgency)?;
        let engine = engine()?;
        let pass = match engine.inside(|| (&mut entering).now_or_never()) {
            Some(pass) => pass,
            None => engine.run(py, entering)?,
        };
        notes::tell(py)?;
        GatePass::object(py, result(py, pass)?)
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(py, &self.0.stats())
    }
}

/// A place in a gate's queue.
#[pyclass(frozen, module = "omega_resilience._omega")]
pub(crate) struct GatePlace(Mutex<Option<Entering>>);

#[pymethods]
impl GatePlace {
    /// Finishes the future with a pass when its turn comes. Once.
    fn wait(&self, queue: &Bound<'_, Queue>, future: Bound<'_, PyAny>) -> PyResult<Ticket> {
        let entering = lock(&self.0).take();
        let entering = entering.ok_or_else(|| PyRuntimeError::new_err("it is waited for already"))?;
        submit(queue, future, async move {
            let finish: Finish = match entering.await {
                Ok(pass) => Box::new(|py| GatePass::object(py, pass)),
                Err(error) => Box::new(move |py| Err(raised(py, &error))),
            };
            finish
        })
    }
}

type Entering = std::pin::Pin<Box<dyn Future<Output = Result<Pass, omega_client::Error>> + Send>>;

impl Gate {
    fn entering(&self, tokens: u64, max_wait: f64, urgency: Option<&str>) -> PyResult<Entering> {
        let (gate, priority) = (self.0.clone(), priority(urgency)?);
        let max_wait = duration("max_wait", max_wait)?;
        Ok(Box::pin(async move { gate.enter(tokens, Some(0), priority, max_wait).await }))
    }
}

#[pymethods]
impl GatePass {
    /// The call ended; `tokens` is what it really used, if that is known.
    #[pyo3(signature = (tokens=None))]
    fn release(&self, py: Python<'_>, tokens: Option<u64>) -> PyResult<bool> {
        let pass = lock(&self.0).take();
        let is_held = pass.is_some();
        if let Some(pass) = pass {
            pass.settle(tokens.map(|tokens| TokenUsage { input_tokens: tokens, ..TokenUsage::default() }));
        }
        notes::tell(py)?;
        Ok(is_held)
    }
}

/// Delays between retries.
#[pyclass(frozen, module = "omega_resilience._omega")]
pub(crate) struct Backoff(omega_client::Backoff);

#[pymethods]
impl Backoff {
    #[new]
    fn new(base_delay: f64, max_delay: f64, exponential_base: f64, jitter: &str) -> PyResult<Self> {
        let jitter = match jitter {
            "proportional" => Jitter::Proportional,
            "none" => Jitter::None,
            "full" => Jitter::Full,
            "equal" => Jitter::Equal,
            "decorrelated" => Jitter::Decorrelated,
            other => {
                return Err(PyValueError::new_err(format!(
                    "jitter is True, False, 'proportional', 'full', 'equal', 'decorrelated' or 'none'; '{other}' is not"
                )));
            }
        };
        if !(1.0..=10.0).contains(&exponential_base) {
            return Err(PyValueError::new_err("exponential_base is 1.0 to 10.0"));
        }
        let base_delay = duration("base_delay", base_delay)?;
        let max_delay = duration("max_delay", max_delay)?;
        Ok(Self(omega_client::Backoff { base_delay, max_delay, exponential_base, jitter }))
    }

    fn __repr__(&self) -> String {
        let omega_client::Backoff { base_delay, max_delay, exponential_base, jitter } = &self.0;
        let (base, max) = (base_delay.as_secs_f64(), max_delay.as_secs_f64());
        let jitter = format!("{jitter:?}").to_lowercase();
        format!(
            "Backoff(base_delay={base}, max_delay={max}, exponential_base={exponential_base}, jitter='{jitter}')"
        )
    }

    /// Seconds before a retry, counted from 0.
    fn delay(&self, attempt: u32, previous: f64) -> PyResult<f64> {
        let chance = Chance::from_bits(fastrand::u64(..));
        Ok(self.0.delay(attempt, duration("previous", previous)?, chance).as_secs_f64())
    }
}
