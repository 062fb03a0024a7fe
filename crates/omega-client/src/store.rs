//! Where processes that share a quota meet: a store that carries out exchanges one after the other.
//!
//! What an exchange does is [`Ledger::exchange`] in `omega-policy`; a store keeps the account, gives the time and lets
//! nobody in between. [`sqlite`] does so for the processes of one machine, [`redis`] for a fleet.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use futures_util::future::BoxFuture;
use omega_config::{Config, State, StoreAddress};
use omega_policy::{Holder, LeaseConfig, LeaseGrant, LeaseRequest, Ledger};
use serde::{Deserialize, Serialize};

use crate::scope::{Keeper, Scope};
use crate::{Error, ErrorKind};

mod redis;
#[cfg(target_family = "unix")]
mod sqlite;

/// A request as it travels: models by name, the provider itself by the empty one.
pub type WireRequest = LeaseRequest<String>;
/// An answer as it travels.
pub type WireGrant = LeaseGrant<String>;

/// What carries out exchanges. Implement it to share limits through a store of your own; see [`Builder::store`](crate::Builder::store).
pub trait SharedStore: fmt::Debug + Send + Sync {
    /// Carries out one exchange, at once and alone.
    ///
    /// - `scope`: whose quota, a name that is the same in every process.
    /// - `process`: who asks, a name that nobody else has.
    ///
    /// It may take as long as it likes: the caller gives up after `state.timeout_seconds`, and a late exchange harms
    /// nobody.
    fn exchange<'a>(
        &'a self,
        scope: &'a str,
        process: &'a str,
        request: &'a WireRequest,
    ) -> BoxFuture<'a, Result<WireGrant, StoreError>>;

    /// The account of one quota, for people. `None`: there is none yet.
    fn report<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<Option<FleetReport>, StoreError>>;
}

/// Why a store did not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// The account of one quota and everybody who takes part in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FleetReport {
    /// When this was so, in seconds on the store's clock.
    pub now: f64,
    /// The account. Moments in it are seconds on the store's clock.
    pub ledger: Ledger,
    /// The processes, by their names in the store.
    pub holders: BTreeMap<String, Holder>,
}

/// A store, and how this process uses it. Cheap to copy.
#[derive(Clone, Debug)]
pub(crate) struct Sharing {
    store: Arc<dyn SharedStore>,
    timeout: Duration,
    lease: LeaseConfig,
}

impl Sharing {
    /// What `state` says; `None` for this process's memory.
    ///
    /// # Errors
    /// See [`open`].
    pub(crate) fn of(config: &Config, given: Option<Arc<dyn SharedStore>>) -> Result<Option<Self>, Error> {
        let state = &config.state;
        let store = match given {
            Some(store) => Some(store),
            None => open(state, config.tls.ca_file.as_deref())?,
        };
        let lease = LeaseConfig { offline_share: state.offline_share };
        Ok(store.map(|store| Self { store, timeout: state.timeout, lease }))
    }

    /// Shares a scope's limits with every scope of the same key.
    pub(crate) fn share(&self, scope: &Scope, key: String) {
        scope.share(Keeper::new(Arc::clone(&self.store), key, self.timeout), self.lease);
    }
}

/// The name of an account in the store: what the provider is called, and which account it is. Processes with the same
/// key share its quota, those with another do not; the key itself cannot be told from the name.
pub(crate) fn account(provider: &str, parts: &[&str]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    let hash = context.finish();
    let hex = hash.as_ref().iter().take(8).fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    format!("{provider}:{hex}")
}

/// The store that `state` names; `None` for this process's memory.
///
/// # Errors
/// [`ErrorKind::Config`]: the address cannot be used. That nobody answers there is none: calls go on with a share.
fn open(state: &State, ca_file: Option<&Path>) -> Result<Option<Arc<dyn SharedStore>>, Error> {
    let refused = |error: StoreError| Error::new(ErrorKind::Config, format!("state: {error}"));
    Ok(match &state.store {
        StoreAddress::Memory => None,
        #[cfg(target_family = "unix")]
        StoreAddress::Sqlite(path) => {
            Some(Arc::new(sqlite::SqliteStore::open(path, &state.namespace, state.timeout).map_err(refused)?))
        }
        StoreAddress::Redis(url) => Some(Arc::new(
            redis::RedisStore::open(url, &state.namespace, state.timeout, ca_file).map_err(refused)?,
        )),
        other => {
            return Err(Error::new(
                ErrorKind::Config,
                format!("state: `{other}` is not available on this system"),
            ));
        }
    })
}

/// Something that a fork does not take along: a child begins with its own, and leaves its parent's alone.
#[derive(Debug)]
struct OwnProcess<T>(ArcSwap<(u32, T)>);

impl<T: Default> OwnProcess<T> {
    fn new() -> Self {
        Self(ArcSwap::from_pointee((std::process::id(), T::default())))
    }

    fn get(&self) -> OwnedBy<T> {
        let here = std::process::id();
        let held = self.0.load_full();
        if held.0 == here {
            return OwnedBy(held);
        }
        let own = Arc::new((here, T::default()));
        // What belongs to the parent is not even taken down: its threads and tasks are not here to be told.
        std::mem::forget(self.0.swap(Arc::clone(&own)));
        OwnedBy(own)
    }
}

/// See [`OwnProcess`].
struct OwnedBy<T>(Arc<(u32, T)>);

impl<T> std::ops::Deref for OwnedBy<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.1
    }
}

/// How long a connection may take to come up: not the time of an exchange, which waits for none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
