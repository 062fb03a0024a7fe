//! The transport against real servers on the loopback interface: pooling, failures, proxies, certificates, runtimes.

mod failures;
mod http1;
mod http2;
mod proxies;
mod runtimes;
mod servers;
mod trust;
