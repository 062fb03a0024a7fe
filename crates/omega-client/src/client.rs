//! [`UnifiedLLMClient`]: the calls a user makes. No loops here; each call becomes a plan for the driver.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use omega_config::{Loaded, OnStreamBreak};
use omega_policy::{TenantId, Timestamp};
use omega_protocol::{ChatResponse, EmbeddingsResponse, ResponsesResponse, Streaming, TokenCounter};
use omega_transport::{HttpTransport, PoolStats, Transport};
use tokio::sync::broadcast;

use crate::answer::Answer;
use crate::asked::Asked as _;
use crate::builder::Builder;
use crate::call::{Call, ChatCall, EmbeddingsCall, Options, ResponsesCall};
use crate::clock::{Clock, Dice};
use crate::driver::{Driver, Plan, Served};
use crate::error::{Error, ErrorKind};
use crate::events::{ClientEvent, Events};
use crate::exchange::{Embeddings, Exchange, StreamedChat, StreamedResponses, WholeChat, WholeResponses};
use crate::hedge_budget::HedgeBudget;
use crate::registry::{Registry, Target};
use crate::relay::{
    Answered, Core, Counted, Relay, RelayEmbeddings, RelayRequest, RelayStream, Relayed, RelayedAnswer,
    Terms, Vectors,
};
use crate::stats::{self, ResilienceStats};
use crate::store::{FleetReport, Sharing, StoreError};
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
    pub(crate) inner: Arc<Inner>,
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
    /// Where limits are shared with other processes.
    pub(crate) sharing: Option<Sharing>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) hedges: Arc<HedgeBudget>,
    pub(crate) tenants: Arc<Tenants>,
    /// Weights given in code, beside those of the configuration's keys.
    pub(crate) tenant_weights: Arc<[(String, u32)]>,
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

    /// Passes on a request of somebody who speaks one of the protocols, and gives back the answer in that protocol.
    ///
    /// Fallbacks that the request itself names hold unless the call names others. Where `streaming.on_stream_break` says so,
    /// a stream that breaks is gone on with by another target.
    ///
    /// # Errors
    /// As [`UnifiedLLMClient::chat`]; [`ErrorKind::Unsupported`] with [`Error::param`] where no target's protocol can
    /// express the request.
    pub async fn relay(&self, call: impl Into<Call<RelayRequest>>) -> Result<Relayed, Error> {
        let (request, mut options) = call.into().split();
        let core = Arc::new(request.into_core());
        if options.fallbacks.is_none() {
            options.fallbacks.clone_from(&core.envelope.fallbacks);
        }
        options.wish = self.inner.loaded.config.gateway.sticky.then_some(core.envelope.beginning);
        options.own_key = core.credential.is_some().then_some(core.protocol);
        self.inner.relay(core, options).await
    }

    /// Passes on a request for embeddings. Fallbacks hold only if the request or the call names them: vectors of different
    /// models cannot be compared.
    ///
    /// # Errors
    /// As [`UnifiedLLMClient::embeddings`].
    pub async fn relay_embeddings(
        &self,
        call: impl Into<Call<RelayEmbeddings>>,
    ) -> Result<RelayedAnswer, Error> {
        let (request, mut options) = call.into().split();
        let named = request.fallbacks().cloned();
        options.fallbacks.get_or_insert_with(|| named.unwrap_or_default());
        let answer = self.inner.whole(request, options).await?;
        let Answer { response: Vectors { body, usage, request_id }, provider, model, attempts, queued } =
            answer;
        Ok(RelayedAnswer { body, provider, model, attempts, queued, usage, request_id })
    }

    /// How many tokens a request has: asked of its provider if that speaks the caller's protocol, outside every limit;
    /// else estimated.
    ///
    /// # Errors
    /// Nobody serves the model; the provider refused or could not be reached.
    pub async fn count_tokens(&self, request: RelayRequest) -> Result<Counted, Error> {
        self.inner.count_tokens(request).await
    }

    /// The name of the provider that would be asked for a model or an alias first, if any is known.
    pub fn provider_of(&self, model: &str) -> Option<String> {
        let first = self.inner.loaded.config.meant_by(model).next()?;
        self.inner.registry.target(first).ok().map(|target| target.member.name.to_string())
    }

    /// How every provider is doing. Serialises to the specification's dictionary.
    pub fn resilience_stats(&self) -> ResilienceStats {
        stats::collect(&self.inner)
    }

    /// Everybody who shares each provider's limits, as the store has it: who is there, who holds what, what is left. Empty
    /// where nothing is shared, and without providers that nobody has called for a while.
    ///
    /// # Errors
    /// The store did not answer.
    pub async fn fleet(&self) -> Result<BTreeMap<String, FleetReport>, StoreError> {
        let mut reports = BTreeMap::new();
        for member in self.inner.registry.members() {
            let Some(keeper) = member.scope.keeper() else { continue };
            if let Some(report) = keeper.report().await? {
                reports.insert(member.name.to_string(), report);
            }
        }
        Ok(reports)
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

    async fn relay(self: &Arc<Self>, core: Arc<Core>, options: Options) -> Result<Relayed, Error> {
        let on_break = self.loaded.config.on_stream_break;
        let tracks = core.streaming == Streaming::Stream && on_break != OnStreamBreak::Error;
        let _running = Running::new(&self.calls);
        let plan = self.counted(self.plan(&core.envelope.model, options, true))?;
        let recovery = tracks.then(|| {
            let Plan { started, deadline, max_attempts, priority, tenant, .. } = plan;
            let terms = Terms { started, deadline, max_attempts, priority, tenant };
            (plan.targets.clone(), terms, on_break == OnStreamBreak::Continue)
        });
        let relay = Relay::new(Arc::clone(&core), tracks, plan.targets.first());
        let served = Driver::new(self, relay, plan).run().await;
        let served = self.counted(served)?;
        self.calls.answered.fetch_add(1, Ordering::Relaxed);
        let Served { answer, target, attempts, max_attempts, queued, open } = served;
        Ok(match answer {
            Answered::Whole { body, usage, request_id } => {
                let (provider, model) = (target.member.name.to_string(), target.model);
                Relayed::Whole(RelayedAnswer { body, provider, model, attempts, queued, usage, request_id })
            }
            Answered::Stream { begun, passes } => {
                let served = Served { answer: *begun, target, attempts, max_attempts, queued, open };
                Relayed::Stream(RelayStream::new(Arc::clone(self), core, served, passes, recovery))
            }
        })
    }

    /// Counts a call that failed.
    fn counted<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if result.is_err() {
            self.calls.failed.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn run<E: Exchange>(&self, exchange: E, options: Options) -> Result<Served<E::Answer>, Error> {
        let _running = Running::new(&self.calls);
        let plan = self.counted(self.plan(exchange.asked().model(), options, E::GENERATES))?;
        let served = self.counted(Driver::new(self, exchange, plan).run().await)?;
        self.calls.answered.fetch_add(1, Ordering::Relaxed);
        Ok(served)
    }

    /// The model asked for and its fallbacks, each with its provider and those beside it, each once.
    ///
    /// - `generates`: whether any of an alias's models will do. Vectors of two models cannot be compared, so for them an
    ///   alias is its first model and no other.
    fn plan(&self, model: &str, options: Options, generates: bool) -> Result<Plan, Error> {
        let config = &self.loaded.config;
        let model = if model.trim().is_empty() { &config.model } else { model };
        let fallbacks = options.fallbacks.as_ref().unwrap_or(&config.fallbacks);
        let wish = || options.wish.unwrap_or_else(|| self.dice.word());
        let named = std::iter::once(model).chain(fallbacks.iter().map(String::as_str));
        let each = if generates { usize::MAX } else { 1 };
        let (mut targets, mut mates) = (Vec::<Target>::with_capacity(1 + fallbacks.len()), 0);
        for (at, model) in named.flat_map(|name| config.meant_by(name).take(each)).enumerate() {
            let target = self.registry.target(model)?;
            // A key of the caller's own is for the provider it means, and nobody beside that would get it.
            let is_own = |protocol| at == 0 && target.member.takes_own_key(protocol);
            let pool = match options.own_key.is_some_and(is_own) {
                true => vec![target],
                false => self.registry.pool(target, &wish),
            };
            for target in pool {
                if !targets.iter().any(|known| known.is(&target)) {
                    targets.push(target);
                }
            }
            if at == 0 {
                mates = targets.len();
            }
        }
        let started = self.clock.now();
        let attempts = options.max_attempts.unwrap_or(config.max_retries).clamp(1, config.max_retries.max(1));
        Ok(Plan {
            targets,
            mates,
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
