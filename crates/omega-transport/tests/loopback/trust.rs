//! Certificates: an authority of the test's own, and what happens without it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use omega_transport::{Http2, HttpTransport, TransportConfig, TransportErrorKind};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use crate::servers::*;

/// A certificate authority that no platform trusts.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub fn pem(&self) -> String {
        self.pem.clone()
    }

    /// A server's side of TLS for `localhost`, offering `protocols`.
    pub fn acceptor(&self, protocols: &[&str]) -> TlsAcceptor {
        self.acceptor_for(&["localhost", "127.0.0.1"], protocols)
    }

    fn acceptor_for(&self, names: &[&str], protocols: &[&str]) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let params = CertificateParams::new(names).expect("parameters");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .expect("a usable certificate");
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A file that is gone when the test is.
pub struct TemporaryFile(pub PathBuf);

impl TemporaryFile {
    pub fn new(content: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let name = format!("omega-transport-{}-{number}.pem", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, content).expect("a temporary file");
        Self(path)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn tls_server(authority: &Authority, protocols: &[&str]) -> Server {
    let speaks = Speaks::Tls { acceptor: authority.acceptor(protocols), streams: 100 };
    Server::start(speaks, |request| async move { text(format!("{:?}", request.version())) }).await
}

#[tokio::test]
async fn an_authority_from_a_file_is_trusted_besides_the_platform() {
    let authority = Authority::new();
    let server = tls_server(&authority, &["h2", "http/1.1"]).await;
    let file = TemporaryFile::new(&authority.pem());
    let transport = transport(|config| config.ca_file = Some(file.0.clone()));
    assert_eq!(within(fetch(&transport, &server.https("/"))).await.expect("an answer"), "HTTP/2.0");
    let address = format!("https://{}/", server.address);
    assert_eq!(within(fetch(&transport, &address)).await.expect("an address works too"), "HTTP/2.0");
}

#[tokio::test]
async fn the_protocol_is_what_both_sides_offer() {
    let authority = Authority::new();
    let old = tls_server(&authority, &["http/1.1"]).await;
    let silent = tls_server(&authority, &[]).await;
    let both = tls_server(&authority, &["h2", "http/1.1"]).await;
    let auto = transport(|config| config.ca_pem = authority.pem().into_bytes());
    assert_eq!(within(fetch(&auto, &old.https("/"))).await.expect("an answer"), "HTTP/1.1");
    assert_eq!(within(fetch(&auto, &silent.https("/"))).await.expect("an answer"), "HTTP/1.1");
    let off = transport(|config| {
        config.ca_pem = authority.pem().into_bytes();
        config.http2 = Http2::Off;
    });
    assert_eq!(within(fetch(&off, &both.https("/"))).await.expect("an answer"), "HTTP/1.1");
}

#[tokio::test]
async fn many_first_requests_to_a_tls_server_without_http2_all_get_a_connection() {
    let authority = Authority::new();
    let barrier = Arc::new(tokio::sync::Barrier::new(25));
    let speaks = Speaks::Tls { acceptor: authority.acceptor(&["http/1.1"]), streams: 100 };
    let server = Server::start(speaks, move |_| {
        let barrier = barrier.clone();
        async move {
            barrier.wait().await;
            text("all here")
        }
    })
    .await;
    let transport = Arc::new(transport(|config| config.ca_pem = authority.pem().into_bytes()));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..25 {
        let (transport, url) = (transport.clone(), server.https("/"));
        calls.spawn(async move { fetch(&transport, &url).await.expect("an answer") });
    }
    assert_eq!(within(calls.join_all()).await.len(), 25);
    assert_eq!(server.accepted(), 25);
}

#[tokio::test]
async fn an_unknown_authority_is_a_tls_error() {
    let server = tls_server(&Authority::new(), &["h2"]).await;
    let other = Authority::new();
    let transport = transport(|config| config.ca_pem = other.pem().into_bytes());
    let error = failure(&transport, &server.https("/")).await;
    assert_eq!((error.kind(), error.sent()), (TransportErrorKind::Tls, false), "{error:?}");
    assert!(error.to_string().contains("localhost"), "{error}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_a_tls_error() {
    let authority = Authority::new();
    let speaks = Speaks::Tls { acceptor: authority.acceptor_for(&["other.example"], &["h2"]), streams: 100 };
    let server = Server::start(speaks, |_| async { text("never") }).await;
    let transport = transport(|config| config.ca_pem = authority.pem().into_bytes());
    let error = failure(&transport, &server.https("/")).await;
    assert_eq!((error.kind(), error.sent()), (TransportErrorKind::Tls, false), "{error:?}");
}

#[test]
fn a_certificate_file_that_cannot_be_used_is_named() {
    let refuse = |path: PathBuf| {
        let mut config = TransportConfig::default();
        config.ca_file = Some(path.clone());
        let error = HttpTransport::new(config).expect_err("refused");
        assert_eq!(error.kind(), TransportErrorKind::Tls);
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        error.to_string()
    };
    assert!(refuse(PathBuf::from("/no/such/file.pem")).contains("cannot be read"));
    let empty = TemporaryFile::new("hello, this is not PEM\n");
    assert!(refuse(empty.0.clone()).contains("no certificate"));
    let garbage = TemporaryFile::new("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n");
    assert!(refuse(garbage.0.clone()).contains("certificate 1"));
}
