//! One run: an emulator, a client, and the requests of the trace at their times.
//!
//! One loop sends the requests, gathers their endings and the client's events, and tells the progress; the requests
//! themselves run in a set of tasks that is gone when the run is.

use std::time::Duration;

use anyhow::Context;
use omega_client::{Attempt, ChatCall, ClientEvent, Error, Events, EventsError, UnifiedLLMClient};
use omega_emulator::Emulator;
use omega_protocol::{ChatRequest, FinishReason, Message};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::plan::Plan;
use super::tally::{self, Ending, Evidence, Outcome, Tally, Transition};
use super::trace::{Arrival, Trace};
use super::{Progress, Run, Step};
use crate::clock::Stopwatch;

/// How often the progress is told.
const TICK: Duration = Duration::from_millis(100);

pub(super) async fn run(
    plan: &Plan,
    trace: &Trace,
    run: Run,
    progress: &dyn Progress,
) -> anyhow::Result<Tally> {
    let emulator = Emulator::start(plan.emulator()).await.context("the emulator cannot start")?;
    let client = client(plan, &emulator, run)?;
    let prompts = Prompts::new(plan, trace);
    progress.begin(run, plan);
    let start_s = emulator.trace_seconds();
    emulator.set_scenario(plan.scenario(start_s));
    let mut replay = Replay::new(plan, &client, progress);
    replay.send_all(&client, trace, &prompts).await;
    let evidence = Evidence {
        plan,
        ended_s: plan.trace_s(replay.watch.elapsed()),
        endings: replay.endings,
        journal: emulator.requests(),
        start_s,
        transitions: replay.transitions,
        stats: serde_json::to_value(client.resilience_stats()).context("the statistics cannot be written")?,
    };
    emulator.shutdown().await;
    let tally = evidence.tally();
    progress.end(run, &tally);
    Ok(tally)
}

fn client(plan: &Plan, emulator: &Emulator, run: Run) -> anyhow::Result<UnifiedLLMClient> {
    let mut config = plan.client(emulator);
    if run == Run::Unprotected {
        config.fallbacks.clear();
        config.breaker.enabled = false;
        config.rate_limiting = false;
        config.max_retries = 1;
    }
    UnifiedLLMClient::builder().config(config).seed(plan.seed).build().context("the client cannot be built")
}

/// The run as it goes on.
struct Replay<'a> {
    plan: &'a Plan,
    progress: &'a dyn Progress,
    watch: Stopwatch,
    /// How old the client was when the replay began; its events count from there.
    client_age: Duration,
    events: Events,
    running: JoinSet<Ending>,
    sent: u64,
    endings: Vec<Ending>,
    transitions: Vec<Transition>,
    was_in_outage: bool,
    was_after_outage: bool,
}

impl<'a> Replay<'a> {
    fn new(plan: &'a Plan, client: &UnifiedLLMClient, progress: &'a dyn Progress) -> Self {
        Self {
            plan,
            progress,
            watch: Stopwatch::start(),
            client_age: client.uptime(),
            events: client.subscribe(),
            running: JoinSet::new(),
            sent: 0,
            endings: Vec::new(),
            transitions: Vec::new(),
            was_in_outage: false,
            was_after_outage: false,
        }
    }

    /// Sends every request at its time and waits for every ending.
    async fn send_all(&mut self, client: &UnifiedLLMClient, trace: &Trace, prompts: &Prompts) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut arrivals = trace.arrivals().iter().peekable();
        let mut events_open = true;
        while arrivals.peek().is_some() || !self.running.is_empty() {
            let next = arrivals.peek().map(|arrival| self.watch.moment(self.plan.real(arrival.at_s)));
            tokio::select! {
                // Arrivals first: a late request would change the trace.
                biased;
                () = async { if let Some(at) = next { sleep_until(at).await } }, if next.is_some() => {
                    if let Some(arrival) = arrivals.next() {
                        self.send(client, prompts.request(arrival, self.sent), *arrival);
                    }
                }
                event = self.events.next(), if events_open => events_open = self.hear(event),
                Some(ending) = self.running.join_next() => self.end(ending),
                _ = tick.tick() => self.tell(),
            }
        }
        while let Ok(Some(event)) = self.events.try_next() {
            self.hear(Ok(event));
        }
        self.tell();
    }

    fn send(&mut self, client: &UnifiedLLMClient, request: ChatRequest, arrival: Arrival) {
        let client = client.clone();
        let time_scale = self.plan.time_scale;
        let max_tokens = self.plan.max_tokens;
        // Half of the requests are read as streams, half as whole answers.
        let as_stream = self.sent % 2 == 1;
        self.sent += 1;
        self.running.spawn(async move {
            let heard =
                if as_stream { read_along(&client, request).await } else { whole(&client, request).await };
            heard.ending(arrival.output_tokens.min(max_tokens), time_scale)
        });
    }

    fn end(&mut self, ending: Result<Ending, tokio::task::JoinError>) {
        // A task that panicked has no ending; it counts as a failure, which the report shows.
        let lost = Ending { outcome: Outcome::Failed, queued_s: 0.0, retries: 0, failovers: 0 };
        self.endings.push(ending.unwrap_or(lost));
    }

    /// Takes an event; `false` when there will be no more.
    fn hear(&mut self, event: Result<ClientEvent, EventsError>) -> bool {
        match event {
            Ok(ClientEvent::Transition(event)) if tally::is_planned(self.plan, &event.provider) => {
                let at_s = self.plan.trace_s(event.at.saturating_sub(self.client_age));
                let (from, to) = (event.from.name(), event.to.name());
                self.progress.happened(at_s, &format!("circuit {}: {from} -> {to}", event.provider));
                self.transitions.push(Transition { provider: event.provider, from, to, at_s });
                true
            }
            Ok(_) | Err(EventsError::Missed(_)) => true,
            Err(EventsError::Closed) => false,
        }
    }

    fn tell(&mut self) {
        let at_s = self.plan.trace_s(self.watch.elapsed());
        let outage = self.plan.outage;
        let primary = self.plan.primary().name();
        if !self.was_in_outage && at_s >= outage.from_s {
            self.was_in_outage = true;
            self.progress.happened(at_s, &format!("{primary} goes down"));
        }
        if !self.was_after_outage && at_s >= outage.until_s {
            self.was_after_outage = true;
            self.progress.happened(at_s, &format!("{primary} is up again"));
        }
        let answered =
            self.endings.iter().filter(|ending| ending.outcome == Outcome::Answered).count() as u64;
        self.progress.step(&Step {
            at_s,
            requests: self.sent,
            answered,
            failed: self.endings.len() as u64 - answered,
            pending: self.running.len() as u64,
        });
    }
}

/// What one call came to, before it is judged.
struct Heard {
    attempts: Vec<Attempt>,
    result: Result<(Option<FinishReason>, Option<u64>), Outcome>,
}

impl Heard {
    fn failed(error: &Error, attempts: Vec<Attempt>) -> Self {
        Self { attempts, result: Err(Outcome::of_error(error)) }
    }

    /// - `expected_tokens`: how long the whole answer is.
    fn ending(self, expected_tokens: u64, time_scale: f64) -> Ending {
        let outcome = match self.result {
            Ok((Some(FinishReason::Stop | FinishReason::Length), Some(tokens)))
                if tokens == expected_tokens =>
            {
                Outcome::Answered
            }
            Ok(_) => Outcome::Truncated,
            Err(outcome) => outcome,
        };
        let queued: Duration = self.attempts.iter().map(|attempt| attempt.queued).sum();
        let (retries, failovers) = tally::retries_and_failovers(&self.attempts);
        Ending { outcome, queued_s: queued.as_secs_f64() * time_scale, retries, failovers }
    }
}

async fn whole(client: &UnifiedLLMClient, request: ChatRequest) -> Heard {
    match client.chat(ChatCall::new(request)).await {
        Ok(answer) => {
            let result =
                Ok((answer.finish_reason(), answer.usage.as_ref().map(|usage| usage.completion_tokens)));
            Heard { attempts: answer.attempts, result }
        }
        Err(error) => Heard::failed(&error, error.attempts().to_vec()),
    }
}

async fn read_along(client: &UnifiedLLMClient, request: ChatRequest) -> Heard {
    let mut stream = match client.chat_stream(ChatCall::new(request)).await {
        Ok(stream) => stream,
        Err(error) => return Heard::failed(&error, error.attempts().to_vec()),
    };
    let mut finish = None;
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => {
                if let Some(reason) = chunk.choices.first().and_then(|choice| choice.finish_reason.clone()) {
                    finish = Some(reason);
                }
            }
            Err(error) => return Heard::failed(&error, stream.attempts().to_vec()),
        }
    }
    Heard {
        result: Ok((finish, stream.usage().map(|usage| usage.output_tokens))),
        attempts: stream.attempts().to_vec(),
    }
}

/// Requests of the sizes the trace names. It has no text, so the text is made up: filler of the right length and a
/// marker that tells the emulator how long the answer was.
struct Prompts {
    filler: String,
    model: &'static str,
    max_tokens: u64,
}

impl Prompts {
    /// The emulator counts four bytes a token.
    const BYTES_PER_TOKEN: usize = 4;

    fn new(plan: &Plan, trace: &Trace) -> Self {
        const SENTENCE: &str = "The quick brown fox jumps over the lazy dog while nobody is looking. ";
        let longest = trace.arrivals().iter().map(|arrival| arrival.input_tokens).max().unwrap_or_default();
        let bytes = usize::try_from(longest).unwrap_or(usize::MAX).saturating_mul(Self::BYTES_PER_TOKEN);
        Self {
            filler: SENTENCE.repeat(bytes / SENTENCE.len() + 1),
            model: plan.primary().model,
            max_tokens: plan.max_tokens,
        }
    }

    fn request(&self, arrival: &Arrival, number: u64) -> ChatRequest {
        let marker = format!(" {number} [[output-tokens:{}]] [[reasoning-tokens:0]]", arrival.output_tokens);
        let bytes =
            usize::try_from(arrival.input_tokens).unwrap_or(usize::MAX).saturating_mul(Self::BYTES_PER_TOKEN);
        let filler = &self.filler[..bytes.saturating_sub(marker.len()).min(self.filler.len())];
        ChatRequest::new(self.model, [Message::user(format!("{filler}{marker}"))]).max_tokens(self.max_tokens)
    }
}
