//! Against real servers: `redis-server` of the system, each test with its own.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::super::redis::RedisStore;
use super::*;

/// A server of a test's own, on a port of its own.
struct RedisServer {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl RedisServer {
    fn start() -> Self {
        Self::start_with(|port, _| vec!["--port".into(), port.to_string()])
    }

    /// With arguments that know its port and its folder.
    fn start_with(arguments: impl FnOnce(u16, &Path) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let child = Command::new("redis-server")
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .args(arguments(port, folder.path()))
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed: `apt-get install redis-server`");
        Self { child, port, folder }
    }

    fn store(&self) -> RedisStore {
        self.opened(&format!("redis://127.0.0.1:{}", self.port), None)
    }

    fn opened(&self, url: &str, ca_file: Option<&Path>) -> RedisStore {
        RedisStore::open(url, "test", Duration::from_secs(5), ca_file).expect("the address is one")
    }

    /// Says something to it as its administrator, as soon as it is up.
    async fn command<T: ::redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = ::redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).expect("an address");
        let config = ::redis::aio::ConnectionManagerConfig::new().set_number_of_retries(50);
        let mut connection =
            ::redis::aio::ConnectionManager::new_with_config(client, config).await.expect("it is up");
        let mut command = ::redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await.expect("it answers")
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port()
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_script_is_the_account() {
    let server = RedisServer::start();
    let store = server.store();
    for seed in 0..6 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let scope = format!("openai:{seed}");
        let (mut ledger, mut holders) = (Ledger::default(), BTreeMap::<String, Holder>::new());
        let mut whims: Vec<Whim> = (0..4).map(|_| Whim { life: 1, ..Whim::default() }).collect();
        let mut epoch = 0;
        for step in 0..250 {
            let number = rng.usize(..whims.len());
            let request = whims[number].request(&mut rng, epoch);
            let name = format!("{number}-{}", request.life);
            let script = store.exchange(&scope, &name, &request).await.expect("it answers");
            epoch = script.epoch;
            let now = script.at;
            holders.retain(|name, holder| {
                let keeps = !Ledger::has_expired(holder, now);
                if !keeps {
                    ledger.forget(name, holder);
                }
                keeps
            });
            let mut holder = holders.remove(&name);
            let account = ledger.exchange(&name, &mut holder, &request, now);
            // Only the epoch is each one's own.
            ledger.epoch = epoch;
            if let Some(holder) = holder {
                holders.insert(name, holder);
            }
            assert_alike(&script, &account, step, &request);
            whims[number].hear(&request, &script);
        }
    }
}

#[tokio::test]
async fn redis_shares_a_quota() {
    let server = RedisServer::start();
    works(&server.store()).await;
}

#[tokio::test]
async fn everything_in_redis_has_an_end_of_life() {
    let server = RedisServer::start();
    let store = server.store();
    store.exchange("a", "one", &request(1)).await.expect("it answers");
    let keys: Vec<String> = server.command(&["KEYS", "*"]).await;
    assert_eq!(keys.len(), 2, "{keys:?}");
    for key in keys {
        assert!(key.starts_with("test:v1:{a}"), "one hash tag: {key}");
        let life: i64 = server.command(&["PTTL", &key]).await;
        assert!((1..=200_000).contains(&life), "{key} lives for {life} ms");
    }
}

#[tokio::test]
async fn a_redis_that_is_not_there_is_an_error_and_no_wait() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    let store = RedisStore::open(&url, "test", Duration::from_millis(25), None).expect("an address");
    store.exchange("a", "one", &request(1)).await.expect_err("nobody is there");
}

#[tokio::test]
async fn a_user_needs_no_more_rights_than_the_documentation_says() {
    let page = include_str!("../../../../../docs/shared-state.md");
    let rights = page.split_once("A Redis user needs `").and_then(|(_, rest)| rest.split_once('`'));
    let rights = rights.expect("the page names them").0.replace("~omega:", "~test:");
    let server = RedisServer::start();
    let mut words = vec!["ACL", "SETUSER", "llm", "on", ">s3cret"];
    words.extend(rights.split(' '));
    let () = server.command(&words).await;
    works(&server.opened(&format!("redis://llm:s3cret@127.0.0.1:{}", server.port), None)).await;
    let stranger = server.opened(&format!("redis://llm:guess@127.0.0.1:{}", server.port), None);
    let error = stranger.exchange("a", "one", &request(1)).await.expect_err("that is not its password");
    assert!(!error.to_string().contains("guess"), "{error}");
    // What it has no right to it cannot do.
    let client = ::redis::Client::open(format!("redis://llm:s3cret@127.0.0.1:{}", server.port));
    let mut connection =
        client.expect("an address").get_multiplexed_async_connection().await.expect("it is up");
    for forbidden in [["SET", "test:x", "1"], ["HGET", "other:v1:{a}", "s"]] {
        let refused = ::redis::cmd(forbidden[0]).arg(&forbidden[1..]).exec_async(&mut connection).await;
        let refused = refused.expect_err("it has no right to");
        assert_eq!(refused.code(), Some("NOPERM"), "{refused}");
    }
}

#[tokio::test]
async fn a_server_may_speak_tls_under_a_certificate_of_ones_own() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let server = RedisServer::start_with(|port, folder| {
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&cert, certificate.cert.pem()).expect("it is written");
        std::fs::write(&key, certificate.signing_key.serialize_pem()).expect("it is written");
        let path = |path: &Path| path.display().to_string();
        let words = ["--port", "0", "--tls-port", &port.to_string(), "--tls-auth-clients", "no"];
        let mut words: Vec<String> = words.map(String::from).to_vec();
        words.extend(["--tls-cert-file".into(), path(&cert), "--tls-key-file".into(), path(&key)]);
        words.extend(["--tls-ca-cert-file".into(), path(&cert)]);
        words
    });
    let url = format!("rediss://localhost:{}", server.port);
    works(&server.opened(&url, Some(&server.folder.path().join("cert.pem")))).await;
    let trusting = RedisStore::open(&url, "test", Duration::from_millis(500), None).expect("an address");
    trusting.exchange("a", "one", &request(1)).await.expect_err("nobody vouches for that certificate");
}

#[tokio::test]
async fn a_cluster_keeps_each_quota_on_one_node() {
    let node = || {
        RedisServer::start_with(|port, _| {
            let (port, bus) = (port.to_string(), free_port().to_string());
            let words = ["--port", &port, "--cluster-enabled", "yes", "--cluster-port", &bus];
            words.map(String::from).to_vec()
        })
    };
    let (one, two) = (node(), node());
    let () = one.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]).await;
    let () = two.command(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]).await;
    let bus: Vec<String> = two.command(&["CONFIG", "GET", "cluster-port"]).await;
    let () = one.command(&["CLUSTER", "MEET", "127.0.0.1", &two.port.to_string(), &bus[1]]).await;
    let is_up = async {
        for node in [&one, &two] {
            while !node.command::<String>(&["CLUSTER", "INFO"]).await.contains("cluster_state:ok") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), is_up).await.expect("the nodes meet");
    let store = one.opened(&format!("redis+cluster://127.0.0.1:{}", one.port), None);
    works(&store).await;
    for scope in 0..20 {
        store.exchange(&format!("openai:{scope}"), "one", &request(1)).await.expect("it answers");
    }
    let (here, there): (Vec<String>, Vec<String>) =
        (one.command(&["KEYS", "*"]).await, two.command(&["KEYS", "*"]).await);
    assert_eq!(here.len() + there.len(), 2 * 22, "an account and its processes, of 22 quotas");
    assert!(!here.is_empty() && !there.is_empty(), "each has some: {here:?} {there:?}");
    for key in here.iter().filter(|key| !key.ends_with(":processes")) {
        assert!(here.contains(&format!("{key}:processes")), "{key} is apart from its processes");
    }
}

#[tokio::test]
async fn a_store_that_is_full_is_an_error_and_goes_on_when_it_has_room() {
    let server = RedisServer::start();
    let store = server.store();
    store.exchange("a", "one", &request(1)).await.expect("it answers");
    let () = server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let error = store.exchange("a", "one", &request(2)).await.expect_err("nothing more fits in");
    assert!(error.to_string().contains("memory"), "{error}");
    let () = server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let answer = store.exchange("a", "one", &request(3)).await.expect("it answers");
    assert_eq!((answer.members, answer.stale), (1, false));
}
