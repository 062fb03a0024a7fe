//! Redis or Valkey: one script for each exchange, on the server's clock.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{Client, RedisError, Script, ScriptInvocation, TlsCertificates};
use tokio::sync::OnceCell;

use super::{CONNECT_TIMEOUT, FleetReport, OwnProcess, SharedStore, StoreError, WireGrant, WireRequest};

/// Names in the store carry the layout's version: another layout is another name, and old processes are not disturbed.
const LAYOUT: &str = "v1";

/// The longest pause between two attempts to connect: as quick as a fleet should notice that its store is back.
const RECONNECT_MAX: Duration = Duration::from_millis(500);

/// A Redis or Valkey server, or a cluster of them.
pub(super) struct RedisStore {
    link: Link,
    namespace: String,
    lease: Script,
    report: Script,
}

enum Link {
    /// One server. The connection is made when it is first needed, inside a runtime.
    Single {
        client: Client,
        timeout: Duration,
        connections: OwnProcess<OnceCell<ConnectionManager>>,
    },
    Cluster {
        client: ClusterClient,
        connections: OwnProcess<OnceCell<ClusterConnection>>,
    },
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An address may hold a password.
        f.debug_struct("RedisStore").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Reads the address; connects to nobody yet.
    pub(super) fn open(
        url: &str,
        namespace: &str,
        timeout: Duration,
        ca_file: Option<&Path>,
    ) -> Result<Self, StoreError> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("redis", url));
        let is_tls = scheme.contains("rediss") || scheme.contains("valkeys");
        let certificates = match ca_file.filter(|_| is_tls) {
            Some(path) => Some(
                std::fs::read(path).map_err(|error| StoreError(format!("{}: {error}", path.display())))?,
            ),
            None => None,
        };
        let certificates = certificates.map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) });
        let scheme_of_one = if is_tls { "rediss" } else { "redis" };
        let link = if scheme.ends_with("+cluster") {
            let (login, hosts) = rest.rsplit_once('@').map_or(("", rest), |(login, hosts)| (login, hosts));
            let login = if login.is_empty() { String::new() } else { format!("{login}@") };
            let nodes = hosts.split(',').filter(|host| !host.is_empty());
            let nodes: Vec<String> = nodes.map(|host| format!("{scheme_of_one}://{login}{host}")).collect();
            let mut builder = ClusterClient::builder(nodes)
                .connection_timeout(CONNECT_TIMEOUT)
                .response_timeout(timeout)
                .retries(1);
            if let Some(certificates) = certificates {
                builder = builder.certs(certificates);
            }
            Link::Cluster { client: builder.build().map_err(unusable)?, connections: OwnProcess::new() }
        } else {
            let address = format!("{scheme_of_one}://{rest}");
            let client = match certificates {
                Some(certificates) => Client::build_with_tls(address, certificates),
                None => Client::open(address),
            };
            let client = client.map_err(unusable)?;
            Link::Single { client, timeout, connections: OwnProcess::new() }
        };
        Ok(Self {
            link,
            namespace: namespace.to_owned(),
            lease: Script::new(include_str!("lease.lua")),
            report: Script::new(include_str!("report.lua")),
        })
    }

    /// Everything of one quota has the same hash tag, and so lives on one node of a cluster.
    fn key(&self, scope: &str) -> String {
        // A brace in a name would end the tag early.
        format!("{}:{LAYOUT}:{{{}}}", self.namespace, scope.replace(['{', '}'], "_"))
    }

    async fn run(&self, script: &ScriptInvocation<'_>) -> Result<String, StoreError> {
        match &self.link {
            Link::Single { client, timeout, connections } => {
                let connect = async || {
                    let config = ConnectionManagerConfig::new()
                        .set_connection_timeout(Some(CONNECT_TIMEOUT))
                        .set_response_timeout(Some(*timeout))
                        .set_min_delay(Duration::from_millis(50))
                        .set_max_delay(RECONNECT_MAX);
                    ConnectionManager::new_lazy_with_config(client.clone(), config)
                };
                let mut connection =
                    connections.get().get_or_try_init(connect).await.map_err(failed)?.clone();
                script.invoke_async(&mut connection).await.map_err(failed)
            }
            Link::Cluster { client, connections } => {
                let mut connection = connections
                    .get()
                    .get_or_try_init(|| client.get_async_connection())
                    .await
                    .map_err(failed)?
                    .clone();
                script.invoke_async(&mut connection).await.map_err(failed)
            }
        }
    }
}

impl SharedStore for RedisStore {
    fn exchange<'a>(
        &'a self,
        scope: &'a str,
        process: &'a str,
        request: &'a WireRequest,
    ) -> BoxFuture<'a, Result<WireGrant, StoreError>> {
        Box::pin(async move {
            let key = self.key(scope);
            let asked = serde_json::to_string(request).map_err(|error| StoreError(error.to_string()))?;
            let mut script = self.lease.key(&key);
            script.key(format!("{key}:processes")).arg(process).arg(asked);
            let answer = self.run(&script).await?;
            serde_json::from_str(&answer).map_err(misunderstood)
        })
    }

    fn report<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<Option<FleetReport>, StoreError>> {
        Box::pin(async move {
            let answer = self.run(&self.report.key(self.key(scope))).await?;
            let report: FleetReport = serde_json::from_str(&answer).map_err(misunderstood)?;
            Ok((report.ledger.epoch != 0).then_some(report))
        })
    }
}

fn unusable(error: RedisError) -> StoreError {
    // What the driver says of an address may quote it, password and all.
    StoreError(format!("the address cannot be used ({:?})", error.kind()))
}

fn failed(error: RedisError) -> StoreError {
    StoreError(error.to_string())
}

fn misunderstood(error: serde_json::Error) -> StoreError {
    StoreError(format!("its answer was not understood: {error}"))
}
