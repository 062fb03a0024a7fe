//! The client: arguments in, futures out.

use std::path::PathBuf;
use std::time::Duration;

use omega_client::{Builder, ChatCall, ChatRequest, Priority, UnifiedLLMClient};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::answer::ChatResult;
use crate::dictionary::plain;
use crate::error::{raised, result};
use crate::notes;
use crate::queue::{Finish, Queue, Ticket, submit};
use crate::relay::Relay;
use crate::runtime::engine;
use crate::stream::Stream;

#[pyclass(frozen, module = "omega_resilience._omega")]
pub(crate) struct Client(UnifiedLLMClient);

/// What a client is built from; the package checks types and names.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Arguments {
    preferred_model: Option<String>,
    api_keys: Vec<(String, String)>,
    enable_circuit_breaker: Option<bool>,
    enable_rate_limiting: Option<bool>,
    max_retries: Option<u32>,
    fallbacks: Option<Vec<String>>,
    timeout: Option<f64>,
    base_urls: Vec<(String, String)>,
    config_file: Option<PathBuf>,
    config_text: Option<String>,
    /// Parts of a file, in JSON, each under a name for messages.
    parts: Vec<(String, String)>,
    settings: Vec<(String, String)>,
    tenant_weights: Vec<(String, u32)>,
}

impl Arguments {
    fn builder(self) -> PyResult<Builder> {
        let mut builder = UnifiedLLMClient::builder();
        if let Some(model) = self.preferred_model {
            builder = builder.preferred_model(model);
        }
        for (provider, key) in self.api_keys {
            builder = builder.api_key(provider, key);
        }
        if let Some(on) = self.enable_circuit_breaker {
            builder = builder.enable_circuit_breaker(on);
        }
        if let Some(on) = self.enable_rate_limiting {
            builder = builder.enable_rate_limiting(on);
        }
        if let Some(attempts) = self.max_retries {
            builder = builder.max_retries(attempts);
        }
        if let Some(models) = self.fallbacks {
            builder = builder.fallbacks(models);
        }
        if let Some(timeout) = self.timeout {
            builder = builder.timeout(duration("timeout", timeout)?);
        }
        for (provider, url) in self.base_urls {
            builder = builder.base_url(provider, url);
        }
        if let Some(path) = self.config_file {
            builder = builder.config_file(path);
        }
        if let Some(text) = self.config_text {
            builder = builder.config_text("config", text);
        }
        for (name, text) in self.parts {
            builder = builder.config_part(name, text);
        }
        for (path, value) in self.settings {
            builder = builder.setting(path, value);
        }
        for (tenant, weight) in self.tenant_weights {
            builder = builder.tenant_weight(tenant, weight);
        }
        Ok(builder)
    }
}

/// What holds for one call: `fallbacks`, `timeout`, `max_wait`, `max_attempts`, `priority` and `tenant`. `None`: nothing.
type Options =
    Option<(Option<Vec<String>>, Option<f64>, Option<f64>, Option<u32>, Option<String>, Option<String>)>;

/// The call, but for its request, which is read where the call runs.
fn call_with(options: Options) -> PyResult<ChatCall> {
    let mut call = ChatCall::new(ChatRequest::default());
    let Some((fallbacks, timeout, max_wait, max_attempts, urgency, tenant)) = options else {
        return Ok(call);
    };
    call.fallbacks = fallbacks;
    call.timeout = timeout.map(|timeout| duration("timeout", timeout)).transpose()?;
    call.max_wait = max_wait.map(|wait| duration("max_wait", wait)).transpose()?;
    call.max_attempts = max_attempts.map(|attempts| attempts.max(1));
    call.priority = priority(urgency.as_deref())?;
    call.tenant = tenant;
    Ok(call)
}

/// In place of a time without end: further off than anything that runs.
const WITHOUT_END: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Seconds, as Python counts them. Infinity is a time without end.
pub(crate) fn duration(name: &str, seconds: f64) -> PyResult<Duration> {
    if seconds == f64::INFINITY {
        return Ok(WITHOUT_END);
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        PyValueError::new_err(format!("{name} is a number of seconds, 0 or more; {seconds} is not"))
    })
}

pub(crate) fn priority(name: Option<&str>) -> PyResult<Priority> {
    match name {
        None | Some("normal") => Ok(Priority::Normal),
        Some("low") => Ok(Priority::Low),
        Some("high") => Ok(Priority::High),
        Some(other) => {
            Err(PyValueError::new_err(format!("priority is 'low', 'normal' or 'high'; '{other}' is not")))
        }
    }
}

#[pymethods]
impl Client {
    #[new]
    fn new(py: Python<'_>, arguments: Arguments, listener: Option<u64>) -> PyResult<Self> {
        let builder = arguments.builder()?;
        let engine = engine()?;
        let client = py.detach(|| engine.inside(|| builder.build()));
        let client = result(py, client)?;
        if let Some(listener) = listener {
            notes::pass_on(&engine, client.subscribe(), listener);
        }
        notes::tell(py)?;
        Ok(Self(client))
    }

    /// Finishes the future with a `ChatResult`, or, if `stream`, with a `Stream` whose content has begun.
    fn chat(
        &self,
        queue: &Bound<'_, Queue>,
        future: Bound<'_, PyAny>,
        request: String,
        options: Options,
        stream: bool,
    ) -> PyResult<Ticket> {
        let (call, client) = (call_with(options)?, self.0.clone());
        match stream {
            false => submit(queue, future, async move { whole(client, call, request).await }),
            true => submit(queue, future, async move { streamed(client, call, request).await }),
        }
    }

    /// The same on this thread.
    fn chat_here(
        &self,
        py: Python<'_>,
        request: String,
        options: Options,
        stream: bool,
    ) -> PyResult<Py<PyAny>> {
        let (call, client, engine) = (call_with(options)?, self.0.clone(), engine()?);
        let finish = match stream {
            false => engine.run(py, async move { whole(client, call, request).await })?,
            true => engine.run(py, async move { streamed(client, call, request).await })?,
        };
        notes::tell(py)?;
        finish(py)
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(py, &self.0.resilience_stats())
    }

    fn reset_circuit(&self, py: Python<'_>, provider: &str) -> PyResult<()> {
        let reset = self.0.reset_circuit(provider);
        notes::tell(py)?;
        reset.map_err(|error| PyValueError::new_err(error.to_string()))
    }

    #[getter]
    fn preferred_model(&self) -> &str {
        &self.0.configuration().config.model
    }

    /// The same client behind the paths of its providers.
    fn relay(&self) -> Relay {
        Relay::new(self.0.clone())
    }
}

/// The request, or the exception that says what is wrong with it.
fn read(mut call: ChatCall, request: &str) -> Result<ChatCall, Finish> {
    match ChatRequest::read(request.as_bytes()) {
        Ok(request) => {
            call.request = request;
            Ok(call)
        }
        Err(wrong) => Err(Box::new(move |_| Err(PyValueError::new_err(wrong.message)))),
    }
}

async fn whole(client: UnifiedLLMClient, call: ChatCall, request: String) -> Finish {
    let call = match read(call, &request) {
        Ok(call) => call,
        Err(wrong) => return wrong,
    };
    match client.chat(call).await {
        Ok(answer) => Box::new(move |py| Ok(Bound::new(py, ChatResult::from(answer))?.into_any().unbind())),
        Err(error) => Box::new(move |py| Err(raised(py, &error))),
    }
}

async fn streamed(client: UnifiedLLMClient, call: ChatCall, request: String) -> Finish {
    let call = match read(call, &request) {
        Ok(call) => call,
        Err(wrong) => return wrong,
    };
    match client.chat_stream(call).await {
        Ok(stream) => Box::new(move |py| {
            let stream = Stream::begin(engine()?.as_ref(), stream);
            Ok(Bound::new(py, stream)?.into_any().unbind())
        }),
        Err(error) => Box::new(move |py| Err(raised(py, &error))),
    }
}
