//! The real side: every request at its compressed time through one client, over HTTP, and what became of each.

use std::time::Duration;

use anyhow::Context;
use omega_client::{Attempt, ChatCall, UnifiedLLMClient};
use omega_emulator::Emulator;
use omega_protocol::ChatRequest;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::plan::{PROVIDER, Plan};
use super::report::{Side, quantile};
use crate::clock::Stopwatch;

/// A timer's resolution and the way to a processor: an attempt the policy let go in time may really leave this much
/// later, and is still counted as in time.
const GRAIN: Duration = Duration::from_millis(10);

/// What the real run came to.
pub(super) struct Ran {
    pub(super) side: Side,
    /// How late requests were handed to the client, in trace seconds, at the 99th percentile: a busy machine shows here
    /// first.
    pub(super) lag_p99_s: f64,
}

/// What became of one request.
enum Ending {
    /// Answered; the policy added this many trace seconds.
    Answered { added_s: f64 },
    /// Sent, and given up.
    Failed,
    /// Never sent.
    Refused,
}

pub(super) async fn run(plan: &Plan) -> anyhow::Result<Ran> {
    let emulator = Emulator::start(plan.emulator()).await.context("the emulator cannot start")?;
    let config = plan.client(emulator.base_url(PROVIDER));
    let client = UnifiedLLMClient::builder().config(config).seed(plan.settings.seed).build();
    let client = client.context("the client cannot be built")?;
    let mut running = JoinSet::new();
    let watch = Stopwatch::start();
    for (number, request) in plan.requests().iter().enumerate() {
        let chat = plan.request(number as u32);
        let due = plan.real(request.arrival);
        sleep_until(watch.moment(due)).await;
        running.spawn(send(client.clone(), chat, watch, due));
    }
    let mut endings = Vec::with_capacity(plan.requests().len());
    let mut lags = Vec::with_capacity(plan.requests().len());
    while let Some(ended) = running.join_next().await {
        let (lag, ending) = ended.context("a request's task panicked")?;
        lags.push(plan.trace_s(lag));
        endings.push(match ending {
            Heard::Answered { added } => Ending::Answered { added_s: plan.trace_s(added) },
            Heard::Failed => Ending::Failed,
            Heard::Refused => Ending::Refused,
        });
    }
    let journal = emulator.requests();
    emulator.shutdown().await;
    let count = |is: fn(&Ending) -> bool| endings.iter().filter(|ending| is(ending)).count() as u64;
    let mut waits: Vec<f64> = endings
        .iter()
        .filter_map(|ending| if let Ending::Answered { added_s } = ending { Some(*added_s) } else { None })
        .collect();
    let in_time = plan.settings.deadline.as_secs_f64() + plan.trace_s(GRAIN);
    let side = Side {
        requests: endings.len() as u64,
        good: waits.iter().filter(|added| **added <= in_time).count() as u64,
        answered: waits.len() as u64,
        failed: count(|ending| matches!(ending, Ending::Failed)),
        refused: count(|ending| matches!(ending, Ending::Refused)),
        rate_limited: journal.iter().filter(|record| record.status == Some(429)).count() as u64,
        upstream_calls: journal.len() as u64,
        wait_p50_s: quantile(&mut waits, 0.5),
        wait_p99_s: quantile(&mut waits, 0.99),
    };
    Ok(Ran { side, lag_p99_s: quantile(&mut lags, 0.99) })
}

/// The same in real time.
enum Heard {
    Answered { added: Duration },
    Failed,
    Refused,
}

/// Sends one request that was due at `due`; says how late it was handed over, and how it ended. What the policy added
/// counts from there: the simulator's policies are never asked late.
async fn send(
    client: UnifiedLLMClient,
    request: ChatRequest,
    watch: Stopwatch,
    due: Duration,
) -> (Duration, Heard) {
    let began = watch.elapsed();
    let heard = match client.chat(ChatCall::new(request)).await {
        Ok(answer) => {
            let waited = answer.attempts.last().map_or(Duration::ZERO, |last| last.started + last.queued);
            Heard::Answered { added: waited }
        }
        Err(error) if error.attempts().iter().any(Attempt::was_sent) => Heard::Failed,
        Err(_) => Heard::Refused,
    };
    (began.saturating_sub(due), heard)
}
