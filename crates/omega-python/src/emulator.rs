//! The emulator inside a test's own process.

use std::sync::Mutex;

use omega_emulator::{EmulatorConfig, Scenario};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::dictionary::plain;
use crate::queue::lock;
use crate::runtime::engine;

/// Four pretended providers.
#[pyclass(frozen, module = "omega_resilience._omega")]
pub(crate) struct Emulator(Mutex<Option<omega_emulator::Emulator>>);

/// The fault catalogue: names and what they do.
#[pyfunction]
pub(crate) fn faults() -> Vec<(String, &'static str)> {
    omega_emulator::Emulator::faults().iter().map(|fault| (fault.usage(), fault.description())).collect()
}

#[pymethods]
impl Emulator {
    /// - `config`: as `omega emulate --config` takes it, in YAML or JSON.
    #[new]
    fn new(py: Python<'_>, config: &str) -> PyResult<Self> {
        let wrong = |error: omega_emulator::EmulatorError| PyValueError::new_err(error.to_string());
        let config = EmulatorConfig::from_yaml(config).map_err(wrong)?;
        let started = engine()?.run(py, omega_emulator::Emulator::start(config))?;
        let emulator = started.map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(Self(Mutex::new(Some(emulator))))
    }

    #[getter]
    fn url(&self) -> PyResult<String> {
        self.with(|emulator| emulator.url())
    }

    fn base_url(&self, provider: &str) -> PyResult<String> {
        self.with(|emulator| emulator.base_url(provider))
    }

    fn requests<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(py, &self.with(omega_emulator::Emulator::requests)?)
    }

    fn clear_requests(&self) -> PyResult<()> {
        self.with(omega_emulator::Emulator::clear_requests)
    }

    /// - `scenario`: as in `omega emulate`'s configuration, in YAML or JSON.
    fn set_scenario(&self, scenario: &str) -> PyResult<()> {
        let scenario = Scenario::parse(scenario).map_err(|error| PyValueError::new_err(error.to_string()))?;
        self.with(|emulator| emulator.set_scenario(scenario))
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let emulator = lock(&self.0).take();
        match emulator {
            Some(emulator) => engine()?.run(py, emulator.shutdown()),
            None => Ok(()),
        }
    }
}

impl Emulator {
    fn with<T>(&self, act: impl FnOnce(&omega_emulator::Emulator) -> T) -> PyResult<T> {
        match &*lock(&self.0) {
            Some(emulator) => Ok(act(emulator)),
            None => Err(PyRuntimeError::new_err("the emulator has been stopped")),
        }
    }
}
