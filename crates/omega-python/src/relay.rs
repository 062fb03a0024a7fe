//! Requests in the providers' own protocols, answered in them: what stands behind the transports for HTTPX.

use std::future::Future;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use omega_client::UnifiedLLMClient;
use omega_gateway::{BrokenOff, InProcess, InProcessAnswer};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::flow::{Flow, Next, Source};
use crate::notes;
use crate::queue::{Finish, Queue, Ticket, submit};
use crate::runtime::engine;

#[pyclass(frozen, module = "omega_resilience._omega")]
pub(crate) struct Relay(InProcess);

impl Relay {
    pub(crate) fn new(client: UnifiedLLMClient) -> Self {
        Self(InProcess::new(client))
    }
}

impl Source for InProcessAnswer {
    type Item = Bytes;
    type Error = BrokenOff;

    fn next(&mut self) -> impl Future<Output = Option<Result<Bytes, BrokenOff>>> + Send {
        InProcessAnswer::next(self)
    }
}

#[pyclass(frozen, module = "omega_resilience._omega")]
pub(crate) struct RelayAnswer {
    flow: Flow<InProcessAnswer>,
    #[pyo3(get)]
    status: u16,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
}

impl RelayAnswer {
    fn begin(mut answer: InProcessAnswer) -> PyResult<Self> {
        let status = answer.status.as_u16();
        let headers = std::mem::take(&mut answer.headers);
        let headers = headers.iter().map(|(name, value)| (name.as_str().into(), value.as_bytes().into()));
        let headers = headers.collect();
        Ok(Self { flow: Flow::begin(engine()?.as_ref(), answer), status, headers })
    }
}

#[pymethods]
impl Relay {
    /// Finishes the future with a `RelayAnswer` when the answer begins.
    fn call(
        &self,
        queue: &Bound<'_, Queue>,
        future: Bound<'_, PyAny>,
        method: &str,
        target: &str,
        headers: Vec<(Vec<u8>, Vec<u8>)>,
        body: Vec<u8>,
    ) -> PyResult<Ticket> {
        let (request, relay) = (request(method, target, headers, body)?, self.0.clone());
        submit(queue, future, async move {
            let answer = relay.call(request).await;
            let finish: Finish =
                Box::new(move |py| Ok(Bound::new(py, RelayAnswer::begin(answer)?)?.into_any().unbind()));
            finish
        })
    }

    /// The same on this thread.
    fn call_here(
        &self,
        py: Python<'_>,
        method: &str,
        target: &str,
        headers: Vec<(Vec<u8>, Vec<u8>)>,
        body: Vec<u8>,
    ) -> PyResult<RelayAnswer> {
        let (request, relay) = (request(method, target, headers, body)?, self.0.clone());
        let answer = engine()?.run(py, async move { relay.call(request).await })?;
        notes::tell(py)?;
        RelayAnswer::begin(answer)
    }
}

fn request(
    method: &str,
    target: &str,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
) -> PyResult<Request<Bytes>> {
    let wrong = |what: &str| PyValueError::new_err(format!("not a request: its {what} cannot be read"));
    let mut request = Request::new(Bytes::from(body));
    *request.method_mut() = method.parse::<Method>().map_err(|_| wrong("method"))?;
    *request.uri_mut() = target.parse::<Uri>().map_err(|_| wrong("path"))?;
    for (name, value) in headers {
        let name = HeaderName::from_bytes(&name).map_err(|_| wrong("header names"))?;
        let value = HeaderValue::from_bytes(&value).map_err(|_| wrong("header values"))?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

#[pymethods]
impl RelayAnswer {
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        self.headers.iter().map(|(name, value)| (PyBytes::new(py, name), PyBytes::new(py, value))).collect()
    }

    /// The next bytes; `None`: nothing yet; `False`: it is over. Raises `EOFError` if it broke off.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.flow.take() {
            Next::Item(bytes) => Ok(Some(PyBytes::new(py, &bytes).into_any())),
            Next::Failed(broken) => Err(pyo3::exceptions::PyEOFError::new_err(broken.to_string())),
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
}
