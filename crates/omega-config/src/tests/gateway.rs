//! The gateway's section.

use std::time::Duration;

use serde_json::json;

use super::{load, load_with, problem, setting};
use crate::{Arguments, GatewaySettings, Origin};

#[test]
fn it_listens_on_this_computer_unless_it_is_told_otherwise() {
    let gateway = load("", &[]).unwrap().config.gateway;
    assert_eq!(gateway, GatewaySettings::default());
    assert_eq!(gateway.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!((gateway.max_body_bytes, gateway.max_header_bytes), (33_554_432, 65_536));
    let clocks = [gateway.header_timeout, gateway.body_timeout, gateway.write_timeout, gateway.drain];
    assert_eq!(clocks.map(|clock| clock.as_secs()), [10, 30, 60, 30]);
    assert_eq!((gateway.max_requests, gateway.queue_keep_alive), (10_000, None));
    assert!(gateway.sticky && !gateway.pass_through_keys);
    assert!(gateway.allowed_hosts.is_empty() && gateway.allowed_origins.is_empty());
}

#[test]
fn every_setting_of_the_file_arrives() {
    let yaml = "gateway:\n  listen: '[::1]:9'\n  max_body_bytes: 1024\n  max_header_bytes: 4096\n  header_timeout_seconds: 1\n  body_timeout_seconds: 2\n  write_timeout_seconds: 3\n  max_requests: 4\n  drain_seconds: 0\n  queue_keep_alive_seconds: 1.5\n  pass_through_keys: true\n  allowed_hosts: [LLM.example.com, 192.168.1.5, '[fe80::1]']\n  allowed_origins: ['https://Chat.example.com', 'http://localhost:3000', 'app://obsidian.md']\n  sticky: false\n";
    let expected = GatewaySettings {
        listen: "[::1]:9".parse().unwrap(),
        max_body_bytes: 1_024,
        max_header_bytes: 4_096,
        header_timeout: Duration::from_secs(1),
        body_timeout: Duration::from_secs(2),
        write_timeout: Duration::from_secs(3),
        max_requests: 4,
        drain: Duration::ZERO,
        queue_keep_alive: Some(Duration::from_millis(1_500)),
        pass_through_keys: true,
        allowed_hosts: ["llm.example.com", "192.168.1.5", "[fe80::1]"].map(String::from).to_vec(),
        allowed_origins: ["https://chat.example.com", "http://localhost:3000", "app://obsidian.md"]
            .map(String::from)
            .to_vec(),
        sticky: false,
    };
    let loaded = load(yaml, &[]).unwrap();
    assert_eq!(loaded.config.gateway, expected);
    let at_line = Origin::File { path: "test.yaml".into(), line: 8 };
    assert_eq!(setting(&loaded, "gateway.max_requests"), (json!(4), at_line));
    assert_eq!(setting(&loaded, "gateway.queue_keep_alive_seconds").0, json!(1.5));
}

#[test]
fn a_variable_wins_over_the_file_and_an_argument_over_both() {
    let yaml = "gateway: {listen: '127.0.0.1:1', queue_keep_alive_seconds: 5}";
    let variables = [
        ("OMEGA_GATEWAY_LISTEN", "0.0.0.0:2"),
        ("OMEGA_GATEWAY_QUEUE_KEEP_ALIVE_SECONDS", "none"),
        ("OMEGA_GATEWAY_ALLOWED_HOSTS", "a.example, b.example"),
    ];
    let gateway = load(yaml, &variables).unwrap().config.gateway;
    assert_eq!((gateway.listen.to_string().as_str(), gateway.queue_keep_alive), ("0.0.0.0:2", None));
    assert_eq!(gateway.allowed_hosts, ["a.example", "b.example"]);
    let settings = vec![(String::from("gateway.listen"), String::from("127.0.0.1:3"))];
    let loaded = load_with(yaml, &variables, Arguments { settings, ..Arguments::default() }).unwrap();
    assert_eq!(loaded.config.gateway.listen.port(), 3);
}

#[test]
fn what_it_cannot_be_is_refused_with_what_it_could() {
    for (yaml, part) in [
        (
            "gateway: {listen: 'localhost:8080'}",
            "such as `127.0.0.1:8080` or `[::1]:8080`, found `localhost:8080`",
        ),
        ("gateway: {listen: 8080}", "expected text, found `8080`"),
        ("gateway: {max_body_bytes: 1023}", "a whole number from 1,024 to 1,073,741,824"),
        ("gateway: {max_body_bytes: 1073741825}", "a whole number from 1,024 to 1,073,741,824"),
        ("gateway: {max_header_bytes: 4095}", "a whole number from 4,096 to 1,048,576"),
        ("gateway: {max_header_bytes: 1048577}", "a whole number from 4,096 to 1,048,576"),
        ("gateway: {header_timeout_seconds: 0}", "seconds from 0.1 to 3600"),
        ("gateway: {max_requests: 0}", "a whole number from 1 to 1,000,000"),
        ("gateway: {drain_seconds: -1}", "seconds from 0 to 86400"),
        ("gateway: {queue_keep_alive_seconds: off}", "or `none`, found `false`"),
        (
            "gateway: {allowed_origins: '*'}",
            "any web page that somebody behind this gateway opens could spend",
        ),
        ("gateway: {allowed_origins: ['https://*.example.com']}", "origins are named one by one"),
        ("gateway: {allowed_origins: ['null']}", "the origin of every sandboxed page"),
        ("gateway: {allowed_origins: ['https://a.example/chat']}", "scheme, host and port, and no path"),
        ("gateway: {allowed_origins: [a.example]}", "expected an origin such as `https://chat.example.com`"),
        ("gateway: {allowed_hosts: ['*']}", "hosts are named one by one"),
        ("gateway: {allowed_hosts: ['http://a.example']}", "without scheme or port"),
        ("gateway: {allowed_hosts: ['a.example:80']}", "without scheme or port"),
        ("gateway: {allowed_hosts: [5]}", "expected a name, found `5`"),
        ("gateway: {liste: '127.0.0.1:1'}", "unknown key `gateway.liste`. Did you mean `listen`?"),
        ("gatway: {}", "unknown key `gatway`. Did you mean `gateway`?"),
        ("max_body_bytes: 5000", "Did you mean `gateway.max_body_bytes`?"),
    ] {
        let text = problem(load(yaml, &[]));
        assert!(text.contains(part) && text.starts_with("test.yaml:1:"), "{yaml}: {text}");
    }
    let text = problem(load("", &[("OMEGA_GATEWAY_ALLOWED_ORIGINS", "https://a.example,*")]));
    assert!(text.starts_with("OMEGA_GATEWAY_ALLOWED_ORIGINS: `*`: origins are named one by one"), "{text}");
    let text = problem(load("", &[("OMEGA_GATEWAY_LISTN", "127.0.0.1:1")]));
    assert!(text.contains("Did you mean OMEGA_GATEWAY_LISTEN?"), "{text}");
}

#[test]
fn a_wrong_name_in_a_list_is_shown_where_it_stands() {
    let text = problem(load("gateway:\n  allowed_origins:\n    - https://a.example\n    - '*'\n", &[]));
    assert!(text.starts_with("test.yaml:4:7: `gateway.allowed_origins`: `*`: "), "{text}");
}

#[test]
fn a_password_in_an_origin_is_not_repeated() {
    let text = problem(load("gateway:\n  allowed_origins: ['https://user:hunter2@a.example']\n", &[]));
    assert!(!text.contains("hunter2"), "{text}");
}
