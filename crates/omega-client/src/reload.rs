//! Another configuration for a client that runs: checked as a whole, then put in force.

use std::sync::Arc;

use omega_config::Loaded;
use omega_transport::{HttpTransport, TransportConfig};

use crate::builder::{connecting, counter, every_model_is_served, refused, weigh_tenants};
use crate::client::{Inner, UnifiedLLMClient};
use crate::error::{Error, ErrorKind};
use crate::registry::Registry;

impl UnifiedLLMClient {
    /// A client under another configuration that goes on where this one is: what is counted, spent, owed, paused and
    /// learned stays, circuits stay as they are, whoever waits keeps its place.
    ///
    /// This client shares the layers of the providers that both have, so that calls under way end properly; new calls
    /// belong on the new one. Connections are kept unless the certificates to trust have changed.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): the configuration cannot be used, and nothing has changed.
    pub fn reconfigured(&self, loaded: Loaded) -> Result<Self, Error> {
        let before = &*self.inner;
        let config = &loaded.config;
        if config.state != before.loaded.config.state {
            let message =
                "`state` cannot change while it is in use: what is spent and held would be lost; restart";
            return Err(Error::new(ErrorKind::Config, message));
        }
        let (clock, subscribers) = (&before.clock, &before.subscribers);
        let sharing = before.sharing.as_ref();
        let registry = Registry::beside(Some(&before.registry), config, clock, subscribers, sharing)?;
        every_model_is_served(config, &registry)?;
        let counter = counter(&config.estimates)?;
        let trusts_the_same = config.tls == before.loaded.config.tls;
        let (transport, pool) = match &before.pool {
            Some(_) if !trusts_the_same => {
                let pool = connecting(config, TransportConfig::default()).and_then(HttpTransport::new);
                let pool = Arc::new(pool.map_err(refused)?);
                (Arc::clone(&pool) as _, Some(pool))
            }
            _ => (Arc::clone(&before.transport), before.pool.clone()),
        };
        // From here on nothing can fail.
        registry.reconfigure(config, before.clock.now());
        for gone in &before.loaded.config.keys {
            let tenant = before.tenants.intern(gone.tenant());
            registry.members().iter().for_each(|member| member.scope.weigh_tenant(tenant, 1));
        }
        weigh_tenants(config, &before.tenant_weights, &before.tenants, &registry);
        Ok(Self::from_inner(Inner {
            failover_wait: config.failover_wait,
            counter,
            registry,
            transport,
            pool,
            clock: Arc::clone(&before.clock),
            dice: crate::clock::Dice::new(Some(before.dice.word())),
            subscribers: before.subscribers.clone(),
            sharing: before.sharing.clone(),
            calls: Arc::clone(&before.calls),
            hedges: Arc::clone(&before.hedges),
            tenants: Arc::clone(&before.tenants),
            tenant_weights: Arc::clone(&before.tenant_weights),
            loaded,
        }))
    }
}
