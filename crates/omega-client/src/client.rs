//! [`UnifiedLLMClient`]: the calls a user makes. No loops here; each call becomes a plan for the driver.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use omega_config::Loaded;
use omega_policy::{TenantId, Timestamp};
use omega_protocol::{ChatResponse, EmbeddingsResponse, ResponsesResponse, TokenCounter};
use omega_transport::{HttpTransport, PoolStats, Transport};
use tokio::sync::broadcast;

use crate::answer::Answer;
use crate::asked::Asked as _;
use crate::builder::Builder;
use crate::call::{ChatCall, EmbeddingsCall, Options, ResponsesCall};
use crate::clock::{Clock, Dice};
use crate::driver::{Driver, Plan, Served};
use crate::error::{Error, ErrorKind};
use crate::events::{ClientEvent, Events};
use crate::exchange::{Embeddings, Exchange, StreamedChat, StreamedResponses, WholeChat, WholeResponses};
use crate::hedge_budget::HedgeBudget;
use crate::registry::{Registry, Target};
use crate::stats::{self, ResilienceStats};
use crate::streams::{ChatStream, ResponsesStream};
use crate::tenants::Tenants;

/// Calls language models of several providers, inside their quotas and through their failures.
///
/// One client holds one set of limits and breakers; clone it freely (a clone is a pointer), and use it from any number
/// of tasks and runtimes. Every future may be dropped at any moment: what it held goes back.
///
/// Calls run on a tokio runtime with its time driver enabled.
///
/// ```no_run
/// # async fn example() -> Result<(), omega_client::Error> {
/// use omega_client::UnifiedLLMClient;
///
/// let client = UnifiedLLMClient::builder().preferred_model("gpt-5.2").openai_api_key("your-key").build()?;
/// let answer = client.chat("Hello!").await?;
/// println!("{} (from {})", answer.text(), answer.provider);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct UnifiedLLMClient {
    inner: Arc<Inner>,
}

/// Everything the clones of one client share.
pub(crate) struct Inner {
    pub(crate) loaded: Loaded,
    pub(crate) registry: Registry,
    pub(crate) transport: Arc<dyn Transport>,
    /// The transport again, where it is our own and can tell of its pool.
    pub(crate) pool: Option<Arc<HttpTransport>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dice: Dice,
    pub(crate) failover_wait: Duration,
    /// Estimates what a request makes its model read.
    pub(crate) counter: TokenCounter,
    pub(crate) subscribers: broadcast::Sender<ClientEvent>,
    pub(crate) calls: Calls,
    pub(crate) hedges: HedgeBudget,
    pub(crate) tenants: Tenants,
}

/// Counts of calls since the client was built.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) started: AtomicU64,
    pub(crate) answered: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) hedged: AtomicU64,
    pub(crate) hedges_won: AtomicU64,
}

impl UnifiedLLMClient {
    /// Starts a client: environment, `config/resilience.yaml` and defaults apply unless the builder is told otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn from_inner(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Asks for an answer and waits for the whole of it.
    ///
    /// Takes a [`ChatRequest`](omega_protocol::ChatRequest), a list of messages, a prompt, or a [`ChatCall`] with
    /// settings of its own. A request without a model gets the preferred one.
    ///
    /// # Errors
    /// After everything the configuration allows was tried; [`Error::kind`] says what can be done, and
    /// [`Error::attempts`] what was.
    pub async fn chat(&self, call: impl Into<ChatCall>) -> Result<Answer<ChatResponse>, Error> {
        let (request, options) = call.into().split();
        self.inner.whole(WholeChat { request }, options).await
    }

    /// Asks for an answer and reads it as it is written. Returns when its content begins: until then every failure is
    /// retried or failed over unseen.
    ///
    /// # Errors
    /// As [`UnifiedLLMClient::chat`]. A stream that breaks later yields an error as its last item.
    pub async fn chat_stream(&self, call: impl Into<ChatCall>) -> Result<ChatStream, Error> {
        let (request, options) = call.into().split();
        let served = self.inner.run(StreamedChat { request }, options).await?;
        Ok(ChatStream::new(Arc::clone(&self.inner), served))
    }

    /// Asks for embeddings.
    ///
    /// # Errors
    /// As [`UnifiedLLMClient::chat`]; [`ErrorKind::Unsupported`] where no target offers them.
    pub async fn embeddings(
        &self,
        call: impl Into<EmbeddingsCall>,
    ) -> Result<Answer<EmbeddingsResponse>, Error> {
        let (request, mut options) = call.into().split();
        // Vectors of different models cannot be compared: only a fallback named for this very call is taken.
        options.fallbacks.get_or_insert_default();
        self.inner.whole(Embeddings { request }, options).await
    }

    /// Asks OpenAI's Responses API (xAI offers it too) and waits for the whole response.
    ///
    /// # Errors
    /// As [`UnifiedLLMClient::chat`]; [`ErrorKind::Unsupported`] where no target offers it.
    pub async fn responses(
        &self,
        call: impl Into<ResponsesCall>,
    ) -> Result<Answer<ResponsesResponse>, Error> {
        let (request, options) = call.into().split();
        self.inner.whole(WholeResponses { request }, options).await
    }

    /// Asks OpenAI's Responses API and reads the response as it is written. See [`UnifiedLLMClient::chat_stream`].
    ///
    /// # Errors
    /// As [`UnifiedLLMClient::responses`].
    pub async fn responses_stream(&self, call: impl Into<ResponsesCall>) -> Result<ResponsesStream, Error> {
        let (request, options) = call.into().split();
        let served = self.inner.run(StreamedResponses { request }, options).await?;
        Ok(ResponsesStream::new(Arc::clone(&self.inner), served))
    }

    /// How every provider is doing. Serialises to the specification's dictionary.
    pub fn resilience_stats(&self) -> ResilienceStats {
        stats::collect(&self.inner)
    }

    /// Closes a provider's circuit by hand and forgets its failures.
    ///
    /// # Errors
    /// No provider has that name.
    pub fn reset_circuit(&self, provider: &str) -> Result<(), Error> {
        match self.inner.registry.member(provider) {
            Some(member) => {
                member.scope.reset_circuit();
                Ok(())
            }
            None => {
                let members = self.inner.registry.members().iter();
                let known: Vec<&str> = members.map(|member| &*member.name).collect();
                let message = format!("no provider is called `{provider}`; known are {}", known.join(", "));
                Err(Error::new(ErrorKind::Config, message))
            }
        }
    }

    /// The configuration in force and where each value comes from.
    pub fn configuration(&self) -> &Loaded {
        &self.inner.loaded
    }

    /// The connections, unless a transport of one's own was given.
    pub fn pool_stats(&self) -> Option<PoolStats> {
        self.inner.pool.as_ref().map(|pool| pool.stats())
    }

    /// Time on the client's clock since it was built: what the times of [`ClientEvent`]s count.
    pub fn uptime(&self) -> Duration {
        self.inner.clock.now().saturating_since(Timestamp::ZERO)
    }

    /// Listens to what happens from now on: transitions of circuits, limits, pauses, retries, hedges,
    /// failovers.
    pub fn subscribe(&self) -> Events {
        Events(self.inner.subscribers.subscribe())
    }
}

impl fmt::Debug for UnifiedLLMClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnifiedLLMClient")
            .field("model", &self.inner.loaded.config.model)
            .field("providers", &self.inner.registry.members().len())
            .finish_non_exhaustive()
    }
}

impl Inner {
    async fn whole<E: Exchange>(&self, exchange: E, options: Options) -> Result<Answer<E::Answer>, Error> {
        let Served { answer: response, target, attempts, queued, .. } = self.run(exchange, options).await?;
        let provider = target.member.name.to_string();
        Ok(Answer { response, provider, model: target.model, attempts, queued })
    }

    async fn run<E: Exchange>(&self, exchange: E, options: Options) -> Result<Served<E::Answer>, Error> {
        let _running = Running::new(&self.calls);
        let plan = match self.plan(exchange.asked().model(), options) {
            Ok(plan) => plan,
            Err(error) => {
                self.calls.failed.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
        };
        let served = Driver::new(self, exchange, plan).run().await;
        let counter = if served.is_ok() { &self.calls.answered } else { &self.calls.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        served
    }

    /// The model asked for and its fallbacks, each with its provider, each once.
    fn plan(&self, model: &str, options: Options) -> Result<Plan, Error> {
        let config = &self.loaded.config;
        let model = if model.trim().is_empty() { &config.model } else { model };
        let fallbacks = options.fallbacks.as_ref().unwrap_or(&config.fallbacks);
        let mut targets: Vec<Target> = Vec::with_capacity(1 + fallbacks.len());
        for model in std::iter::once(model).chain(fallbacks.iter().map(String::as_str)) {
            let target = self.registry.target(model)?;
            let is_new =
                |known: &Target| known.model != target.model || !Arc::ptr_eq(&known.member, &target.member);
            if targets.iter().all(is_new) {
                targets.push(target);
            }
        }
        let started = self.clock.now();
        let attempts = options.max_attempts.unwrap_or(config.max_retries).clamp(1, config.max_retries.max(1));
        Ok(Plan {
            targets,
            started,
            deadline: started + options.timeout.unwrap_or(config.timeout),
            max_wait: options.max_wait,
            max_attempts: attempts,
            priority: options.priority,
            tenant: options.tenant.map_or(TenantId::NONE, |name| self.tenants.intern(&name)),
        })
    }
}

/// Counts a call while it runs, also when it is dropped.
struct Running<'a>(&'a Calls);

impl<'a> Running<'a> {
    fn new(calls: &'a Calls) -> Self {
        calls.started.fetch_add(1, Ordering::Relaxed);
        calls.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(calls)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
