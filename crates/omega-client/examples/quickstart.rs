//! One protected call. `OPENAI_API_KEY=… cargo run -p omega-client --example quickstart`

use omega_client::{Error, UnifiedLLMClient};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    // Keys and settings come from the environment and config/resilience.yaml; every protection is on.
    let client = UnifiedLLMClient::builder().preferred_model("gpt-5.2").build()?;
    let answer = client.chat("Say hello in five words.").await?;
    println!("{}", answer.text());
    println!("({} answered after {} attempt(s))", answer.provider, answer.attempts.len());
    Ok(())
}
