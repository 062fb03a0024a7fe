//! Fallbacks, limits of one call, and what an error tells.
//! `OPENAI_API_KEY=… ANTHROPIC_API_KEY=… cargo run -p omega-client --example fallback`

use std::time::Duration;

use omega_client::{ChatCall, ChatRequest, Error, ErrorKind, Message, UnifiedLLMClient};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let client = UnifiedLLMClient::builder().fallbacks(["claude-opus-5-5", "gemini-3-pro"]).build()?;

    let messages = [Message::system("Answer in one sentence."), Message::user("Why is the sky blue?")];
    let request = ChatRequest::new("gpt-5.2", messages).max_tokens(200);
    let call = ChatCall::new(request).timeout(Duration::from_secs(60)).max_wait(Duration::from_secs(10));

    match client.chat(call).await {
        Ok(answer) => println!("{} ({}) says: {}", answer.provider, answer.model, answer.text()),
        Err(error) => match (error.kind(), error.retry_after()) {
            (ErrorKind::CircuitOpen | ErrorKind::RateLimited, Some(wait)) => {
                println!("busy; come back in {:.1} s: {error}", wait.as_secs_f64());
            }
            (ErrorKind::QuotaExhausted, _) => println!("check the billing page: {error}"),
            _ => println!("{error}"),
        },
    }
    for (name, circuit) in client.resilience_stats().circuit_breakers {
        println!("{name}: {:?}", circuit.state);
    }
    Ok(())
}
