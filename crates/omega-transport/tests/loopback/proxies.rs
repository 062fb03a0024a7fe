//! Ways through proxies: CONNECT tunnels, forwarding and SOCKS5, and the exceptions from them.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex};

use omega_transport::{ProxySettings, TransportErrorKind};

use crate::servers::*;
use crate::trust::Authority;

type Heads = Arc<Mutex<Vec<String>>>;

/// "user:pass" as Basic credentials. Source: RFC 7617 section 2 for the form; encoded by hand for this test.
const BASIC_USER_PASS: &str = "Basic dXNlcjpwYXNz";

/// Copies both ways until either side closes.
fn splice(a: TcpStream, b: TcpStream) {
    let (mut a_read, mut b_write) = (a.try_clone().expect("a clone"), b.try_clone().expect("a clone"));
    let forth = std::thread::spawn(move || {
        let _ = std::io::copy(&mut a_read, &mut b_write);
        let _ = b_write.shutdown(std::net::Shutdown::Write);
    });
    let (mut a_write, mut b_read) = (a, b);
    let _ = std::io::copy(&mut b_read, &mut a_write);
    let _ = a_write.shutdown(std::net::Shutdown::Write);
    let _ = forth.join();
}

fn dial(host: &str) -> TcpStream {
    let address = host.to_socket_addrs().expect("an address").find(std::net::SocketAddr::is_ipv4);
    TcpStream::connect(address.expect("an IPv4 address")).expect("a server")
}

/// An HTTP proxy that tunnels for those who know the password and answers forwarded requests itself.
fn http_proxy() -> (RawServer, Heads) {
    let heads = Heads::default();
    let seen = heads.clone();
    let proxy = RawServer::start(move |_, mut stream| {
        let head = read_head(&mut stream);
        seen.lock().expect("no panic").push(head.clone());
        let authorized =
            head.to_ascii_lowercase().contains("proxy-authorization") && head.contains(BASIC_USER_PASS);
        if !authorized {
            write(&mut stream, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
            return;
        }
        if let Some(rest) = head.strip_prefix("CONNECT ") {
            let upstream = dial(rest.split(' ').next().expect("a destination"));
            write(&mut stream, "HTTP/1.1 200 Connection established\r\n\r\n");
            splice(stream, upstream);
        } else {
            write(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nforwarded");
            wait_for_close(&mut stream);
        }
    });
    (proxy, heads)
}

#[tokio::test]
async fn https_goes_through_a_tunnel_with_the_proxys_credentials() {
    let authority = Authority::new();
    let speaks = Speaks::Tls { acceptor: authority.acceptor(&["h2"]), streams: 10 };
    let server = Server::start(speaks, |request| async move {
        assert!(!request.headers().contains_key("proxy-authorization"));
        text("through")
    })
    .await;
    let (proxy, heads) = http_proxy();
    let address = format!("http://user:pass@{}", proxy.address);
    let transport = transport(|config| {
        config.ca_pem = authority.pem().into_bytes();
        config.proxy = ProxySettings::from_values(Some(&address), None, None, None).expect("a proxy");
    });
    assert_eq!(within(fetch(&transport, &server.https("/"))).await.expect("an answer"), "through");
    let heads = heads.lock().expect("no panic");
    assert_eq!(heads.len(), 1);
    assert!(
        heads[0].starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", server.address.port())),
        "{heads:?}"
    );
}

#[tokio::test]
async fn a_refused_tunnel_is_a_proxy_error_without_the_password() {
    let (proxy, _) = http_proxy();
    let address = format!("http://user:wrong@{}", proxy.address);
    let transport = transport(|config| {
        config.proxy = ProxySettings::from_values(Some(&address), None, None, None).expect("a proxy");
    });
    let error = failure(&transport, "https://api.example/").await;
    assert_eq!((error.kind(), error.sent()), (TransportErrorKind::Proxy, false), "{error:?}");
    assert!(error.to_string().contains("api.example:443"), "{error}");
    assert!(!format!("{error} {error:?}").contains("wrong"), "{error:?}");
}

#[tokio::test]
async fn an_unreachable_proxy_is_a_proxy_error() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let transport = transport(|config| {
        let address = format!("http://{unused}");
        config.proxy = ProxySettings::from_values(None, None, Some(&address), None).expect("a proxy");
    });
    let error = failure(&transport, "https://api.example/").await;
    assert_eq!((error.kind(), error.sent()), (TransportErrorKind::Proxy, false), "{error:?}");
}

#[tokio::test]
async fn plain_http_is_forwarded_with_its_whole_address() {
    let (proxy, heads) = http_proxy();
    let address = format!("http://user:pass@{}", proxy.address);
    let transport = transport(|config| {
        config.proxy = ProxySettings::from_values(None, Some(&address), None, None).expect("a proxy");
    });
    let answer =
        within(fetch(&transport, "http://llm.example:8000/v1/models?limit=1")).await.expect("an answer");
    assert_eq!(answer, "forwarded");
    let heads = heads.lock().expect("no panic");
    assert!(heads[0].starts_with("GET http://llm.example:8000/v1/models?limit=1 HTTP/1.1\r\n"), "{heads:?}");
    assert!(heads[0].contains("host: llm.example:8000\r\n"), "{heads:?}");
}

#[tokio::test]
async fn no_proxy_addresses_are_reached_directly() {
    let server = Server::start(Speaks::Http1, |_| async { text("direct") }).await;
    let (proxy, heads) = http_proxy();
    let address = format!("http://{}", proxy.address);
    let transport = transport(|config| {
        let settings = ProxySettings::from_values(None, None, Some(&address), Some("127.0.0.0/8,localhost"));
        config.proxy = settings.expect("a proxy");
    });
    assert_eq!(within(fetch(&transport, &server.url("/"))).await.expect("an answer"), "direct");
    assert!(heads.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn a_socks5_proxy_tunnels_any_address() {
    let server = Server::start(Speaks::Http1, |_| async { text("through socks") }).await;
    // Source of the messages: RFC 1928 sections 3 to 6.
    let proxy = RawServer::start(|_, mut stream| {
        let mut greeting = [0; 3];
        stream.read_exact(&mut greeting).expect("a greeting");
        assert_eq!(greeting, [5, 1, 0]);
        stream.write_all(&[5, 0]).expect("a method");
        let mut request = [0; 10];
        stream.read_exact(&mut request).expect("a request for an IPv4 address");
        assert_eq!(request[..4], [5, 1, 0, 1]);
        let port = u16::from_be_bytes([request[8], request[9]]);
        let upstream = dial(&format!("127.0.0.1:{port}"));
        stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).expect("a reply");
        splice(stream, upstream);
    });
    let address = format!("socks5h://{}", proxy.address);
    let transport = transport(|config| {
        config.proxy = ProxySettings::from_values(None, Some(&address), None, None).expect("a proxy");
    });
    assert_eq!(within(fetch(&transport, &server.url("/"))).await.expect("an answer"), "through socks");
}
