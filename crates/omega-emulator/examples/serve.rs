//! Serves the four pretended providers until interrupted, and prints where.
//!
//!     cargo run -p omega-emulator --example serve                   any free port, healthy
//!     cargo run -p omega-emulator --example serve -- config.yaml    see docs/emulator.md
//!
//! The first line on standard output is the bare address, for scripts; then one base URL a provider.

use omega_emulator::{Emulator, EmulatorConfig, Provider};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = match std::env::args().nth(1) {
        Some(path) => {
            let text =
                std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
            EmulatorConfig::from_yaml(&text)?
        }
        None => EmulatorConfig::default(),
    };
    let emulator = Emulator::start(config).await?;
    println!("{}", emulator.url());
    for provider in Provider::ALL {
        println!("{provider}: {}", emulator.base_url(provider.name()));
    }
    if let Some(ca) = emulator.ca_pem() {
        println!("{ca}");
    }
    tokio::signal::ctrl_c().await?;
    emulator.shutdown().await;
    Ok(())
}
