//! One line on stderr for every request that has ended, in the order in which they ended.

use std::collections::BTreeSet;
use std::time::Duration;

use omega_emulator::{Finished, RequestRecord};

use crate::cli::Context;

/// Which requests have been printed.
pub(super) struct Lines {
    /// Every number up to here has been printed.
    below: u64,
    /// Printed ones above it.
    above: BTreeSet<u64>,
    pause: Duration,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self { below: 0, above: BTreeSet::new(), pause: Duration::from_millis(200) }
    }

    /// Until it is worth looking again.
    pub(super) async fn pause(&self) {
        tokio::time::sleep(self.pause).await;
    }

    pub(super) fn print(&mut self, requests: &[RequestRecord], context: &Context) {
        for request in requests {
            let is_new = request.number > self.below && !self.above.contains(&request.number);
            if is_new && request.finished != Finished::InProgress {
                context.note(&line(request));
                self.above.insert(request.number);
            }
        }
        while self.above.remove(&(self.below + 1)) {
            self.below += 1;
        }
        if let Some(first) = requests.first() {
            // What the journal has forgotten will never be seen again.
            self.below = self.below.max(first.number - 1);
        }
        // A look copies the journal; a long one is looked at less often.
        self.pause = Duration::from_millis(200 + requests.len() as u64 / 50);
    }
}

fn line(request: &RequestRecord) -> String {
    let status = request.status.map_or_else(|| String::from("---"), |status| status.to_string());
    let took = request.finished_at.map_or(0.0, |end| end - request.at);
    let how = match request.finished {
        Finished::InProgress | Finished::Completed => "",
        Finished::Cut => "  cut",
        Finished::ClientDisconnected => "  client went away",
    };
    let stream = if request.stream { " stream" } else { "" };
    let fault = request.fault.as_deref().map_or_else(String::new, |fault| format!("  fault {fault}"));
    format!(
        "{:9.3}s  {status}  {:9}  {}{stream}  {} in {} out  {took:.3}s{fault}{how}",
        request.at,
        request.provider.name(),
        request.model.escape_debug(),
        request.input_tokens,
        request.output_tokens,
    )
}
