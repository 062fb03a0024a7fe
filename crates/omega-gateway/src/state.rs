//! What all workers share: the configuration in force, what is counted, and whether it is time to stop.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use omega_client::{Config, Sources, UnifiedLLMClient};
use omega_config::GatewaySettings;

use crate::clock::Moment;
use crate::error::GatewayError;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::server::GatewayOptions;
use crate::signal::Signal;

/// See the module.
pub(crate) struct Shared {
    current: ArcSwap<Current>,
    /// Held by whoever exchanges it: two reloads at once would lose one of them.
    reloading: Mutex<()>,
    sources: Option<Sources>,
    pub(crate) metrics: Metrics,
    pub(crate) address: SocketAddr,
    pub(crate) allow_anyone: bool,
    pub(crate) started: Moment,
    #[cfg(feature = "otel")]
    pub(crate) traces: Option<crate::Traces>,
    in_flight: Arc<AtomicU64>,
    /// No more requests are taken.
    pub(crate) stopping: Signal,
    /// Those that run are ended now.
    pub(crate) abort: Signal,
}

/// Whether a gateway may listen there: to programs of this machine, to callers with keys, or to anybody if it was told so.
pub(crate) fn protected(
    address: SocketAddr,
    config: &Config,
    allow_anyone: bool,
) -> Result<(), GatewayError> {
    match address.ip().is_loopback() || allow_anyone || !config.keys.is_empty() {
        true => Ok(()),
        false => Err(GatewayError::Unprotected { address }),
    }
}

/// A configuration in force. A request keeps the one it began with.
pub(crate) struct Current {
    pub(crate) client: UnifiedLLMClient,
    pub(crate) keys: Keys,
    pub(crate) settings: GatewaySettings,
}

impl Current {
    fn new(client: UnifiedLLMClient, before: Option<&Keys>) -> Self {
        let config = &client.configuration().config;
        let keys = Keys::new(&config.keys, &client, before);
        Self { settings: config.gateway.clone(), keys, client }
    }
}

impl Shared {
    pub(crate) fn new(client: UnifiedLLMClient, options: &GatewayOptions, address: SocketAddr) -> Self {
        Self {
            current: ArcSwap::from_pointee(Current::new(client, None)),
            reloading: Mutex::default(),
            sources: options.sources.clone(),
            metrics: Metrics::new(),
            address,
            allow_anyone: options.allow_anyone,
            started: Moment::now(),
            #[cfg(feature = "otel")]
            traces: options.traces.clone(),
            in_flight: Arc::default(),
            stopping: Signal::default(),
            abort: Signal::default(),
        }
    }

    /// Without an address, and open to whoever can call it.
    pub(crate) fn in_process(client: UnifiedLLMClient) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let this = Self::new(client.clone(), &GatewayOptions::default(), address);
        let settings = client.configuration().config.gateway.clone();
        this.current.store(Arc::new(Current { client, keys: Keys::default(), settings }));
        this
    }

    /// The configuration in force.
    pub(crate) fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// Reads the configuration again and goes on with it. What is counted stays counted.
    pub(crate) fn reload(&self) -> Result<(), GatewayError> {
        let sources = self.sources.as_ref().ok_or(GatewayError::NoSources)?;
        let loaded = Config::load(sources)?;
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current();
        protected(self.address, &loaded.config, self.allow_anyone)?;
        let client = before.client.reconfigured(loaded)?;
        let current = Arc::new(Current::new(client, Some(&before.keys)));
        if current.settings.listen != before.settings.listen {
            tracing::warn!(
                "gateway.listen is now {}, but this gateway goes on listening on {} until it is started again",
                current.settings.listen,
                self.address
            );
        }
        self.current.store(current);
        self.metrics.reloaded(true);
        Ok(())
    }

    /// Whether only programs of this machine can reach it.
    pub(crate) fn is_closed_to_others(&self) -> bool {
        self.address.ip().is_loopback()
    }

    /// Counts a request in, if there is room for it.
    pub(crate) fn enter(&self, most: u64) -> Option<Inside> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let inside = Inside(Arc::clone(&self.in_flight));
        (before < most).then_some(inside)
    }

    /// Requests being served.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// A request that is being served; counted out when dropped.
#[derive(Debug)]
pub(crate) struct Inside(Arc<AtomicU64>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
