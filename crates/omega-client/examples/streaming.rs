//! An answer as it is written. `OPENAI_API_KEY=… cargo run -p omega-client --example streaming`

use std::io::Write;

use omega_client::{Error, UnifiedLLMClient};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let client = UnifiedLLMClient::builder().build()?;
    // Until the first content comes, failures are retried or failed over unseen.
    let mut stream = client.chat_stream("Write a limerick about queues.").await?;
    while let Some(chunk) = stream.next().await {
        // A stream that was cut ends with an error, never like an answer.
        print!("{}", chunk?.text());
        std::io::stdout().flush().ok();
    }
    println!();
    if let Some(usage) = stream.usage() {
        println!("({} wrote {} tokens)", stream.model(), usage.output_tokens);
    }
    Ok(())
}
