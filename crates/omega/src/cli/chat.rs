//! `omega chat`: one protected call. The answer goes to stdout as it comes; what happened on the way goes to stderr.

mod prompt;
mod report;

use std::time::Duration;

use clap::Args;
use omega_client::{Answer, ChatCall, ChatStream, Error, UnifiedLLMClient};
use omega_protocol::{ChatResponse, FinishReason};

use crate::cli::interrupt::Stop;
use crate::cli::{Context, Done, Failure};

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ChatArgs {
    /// What to ask; `-` or nothing reads stdin, and piped text is appended to a prompt
    #[arg(value_name = "PROMPT")]
    prompt: Option<String>,
    /// The model; its name says the provider, `provider/model` says it outright [default: from the configuration]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// What the model is told before the prompt
    #[arg(short, long, value_name = "TEXT")]
    system: Option<String>,
    /// A model to turn to when the call cannot be served; repeat it, or separate by commas
    #[arg(short, long = "fallback", value_name = "MODEL", value_delimiter = ',')]
    fallbacks: Vec<String>,
    /// A picture to ask about: PNG, JPEG, GIF or WebP, or an https address; may be repeated
    #[arg(short, long = "image", value_name = "FILE")]
    images: Vec<String>,
    /// The longest answer, in tokens
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_tokens: Option<u64>,
    /// How freely the model chooses its words
    #[arg(long, value_name = "0-2", value_parser = temperature)]
    temperature: Option<f64>,
    /// How long the call may take in all: waiting for quota, retries and fallbacks included
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// How long the first try may wait for quota; 0 never waits. Retries are bounded by --timeout
    #[arg(long, value_name = "SECONDS", value_parser = seconds_or_none)]
    max_wait: Option<Duration>,
    /// Attempts in all at each provider, the first included
    #[arg(long, value_name = "N")]
    max_retries: Option<u32>,
    /// Where a provider is, for a proxy or `omega emulate`: openai=http://127.0.0.1:4010/openai/v1
    #[arg(long = "base-url", value_name = "PROVIDER=URL", value_parser = base_url)]
    base_urls: Vec<(String, String)>,
    /// Print the answer when it is complete instead of as it comes
    #[arg(long)]
    no_stream: bool,
    /// Print one JSON object: the answer, who gave it, the attempts, the time in the queue, the usage
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  omega chat \"Why is the sky blue?\"
  git diff | omega chat \"Write a commit message for this change\"
  omega chat -m gpt-5.2 -f claude-sonnet-5,gemini-3-pro --json \"Hello\" | jq .provider
  omega chat --image photo.jpg \"What is this?\"
  omega chat --base-url openai=http://127.0.0.1:4010/openai/v1 \"Hello\"    (see omega emulate)

Keys come from the environment: OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY or GOOGLE_API_KEY,
XAI_API_KEY or GROK_API_KEY.

Exit codes: 0 answered, 2 usage, 3 configuration or missing key, 4 refused by OMEGA (circuit or limit),
5 refused by the provider, 6 timeout or transport, 130 interrupted.";

pub(crate) async fn run(arguments: ChatArgs, context: &mut Context) -> Result<Done, Failure> {
    let mut interrupt = context.interrupt.clone();
    let request = tokio::select! {
        request = prompt::request(&arguments) => request?,
        stop = interrupt.stopped() => return ended(stop, context, ""),
    };
    let client = match client(&arguments, context) {
        Ok(client) => client,
        Err(error) => {
            if arguments.json {
                context.output.json(&report::error_json(&error))?;
            }
            return Err(report::failure(&error));
        }
    };
    let mut call = ChatCall::new(request);
    call.max_wait = arguments.max_wait;
    if arguments.json || arguments.no_stream {
        whole(&client, call, arguments.json, context, interrupt).await
    } else {
        streamed(&client, call, context, interrupt).await
    }
}

/// The client, its configuration strengthened by what the command line says.
fn client(arguments: &ChatArgs, context: &Context) -> Result<UnifiedLLMClient, omega_client::Error> {
    let mut sources = context.sources();
    let given = &mut sources.arguments;
    given.preferred_model = arguments.model.clone();
    given.fallbacks = (!arguments.fallbacks.is_empty()).then(|| arguments.fallbacks.clone());
    given.timeout = arguments.timeout;
    given.max_retries = arguments.max_retries;
    given.base_urls = arguments.base_urls.iter().cloned().collect();
    UnifiedLLMClient::builder().sources(sources).build()
}

async fn whole(
    client: &UnifiedLLMClient,
    call: ChatCall,
    json: bool,
    context: &mut Context,
    mut interrupt: crate::cli::Interrupt,
) -> Result<Done, Failure> {
    let result = tokio::select! {
        result = client.chat(call) => result,
        stop = interrupt.stopped() => return ended(stop, context, ""),
    };
    let answer: Answer<ChatResponse> = match result {
        Ok(answer) => answer,
        Err(error) => {
            if json {
                context.output.json(&report::error_json(&error))?;
            }
            return Err(report::failure(&error));
        }
    };
    if json {
        context.output.json(&report::answer_json(&answer))?;
    } else {
        let text = report::printable(answer.text(), context.output.is_terminal());
        context.output.line(&text)?;
        report::finish_note(answer.finish_reason().as_ref(), context);
    }
    report::story(
        &answer.provider,
        &answer.model,
        &answer.attempts,
        answer.usage.as_ref().map(Into::into),
        context,
    );
    Ok(Done::Well)
}

async fn streamed(
    client: &UnifiedLLMClient,
    call: ChatCall,
    context: &mut Context,
    mut interrupt: crate::cli::Interrupt,
) -> Result<Done, Failure> {
    let opened = tokio::select! {
        opened = client.chat_stream(call) => opened,
        stop = interrupt.stopped() => return ended(stop, context, ""),
    };
    let mut stream: ChatStream = opened.map_err(|error| report::failure(&error))?;
    let mut said = Said::default();
    let mut finish: Option<FinishReason> = None;
    loop {
        let next: Option<Result<_, Error>> = tokio::select! {
            next = stream.next() => next,
            stop = interrupt.stopped() => {
                drop(stream);
                said.end_line(context)?;
                return ended(stop, context, if said.anything { "; the answer above is not complete" } else { "" });
            }
        };
        match next {
            Some(Ok(chunk)) => {
                if let Some(reason) = chunk.choices.first().and_then(|choice| choice.finish_reason.clone()) {
                    finish = Some(reason);
                }
                said.say(chunk.text(), context)?;
            }
            Some(Err(error)) => {
                said.end_line(context)?;
                if said.anything {
                    context.note("the answer above is not complete");
                }
                return Err(report::failure(&error));
            }
            None => break,
        }
    }
    said.end_line(context)?;
    report::finish_note(finish.as_ref(), context);
    report::story(stream.provider(), stream.model(), stream.attempts(), stream.usage(), context);
    Ok(Done::Well)
}

/// What has been printed of an answer.
#[derive(Default)]
struct Said {
    anything: bool,
    in_line: bool,
}

impl Said {
    fn say(&mut self, text: &str, context: &mut Context) -> Result<(), Failure> {
        if text.is_empty() {
            return Ok(());
        }
        let is_terminal = context.output.is_terminal();
        context.output.write(&report::printable(text, is_terminal))?;
        self.anything = true;
        self.in_line = !text.ends_with('\n');
        Ok(())
    }

    fn end_line(&mut self, context: &mut Context) -> Result<(), Failure> {
        if std::mem::take(&mut self.in_line) {
            context.output.write("\n")?;
        }
        Ok(())
    }
}

/// Somebody stopped the call; dropping it has returned everything it held.
fn ended(stop: Stop, context: &Context, note: &str) -> Result<Done, Failure> {
    match stop {
        Stop::Interrupted => {
            context.note(&format!("interrupted{note}"));
            Ok(Done::Interrupted)
        }
        // 128 + 15, what shells report for a program that SIGTERM ended.
        Stop::Terminated => Err(Failure::with_code(143, format!("terminated{note}"))),
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=2.0).contains(&value) => Ok(value),
        _ => Err(String::from("expected a number from 0 to 2")),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    seconds_or_none(text).and_then(|span| {
        if span.is_zero() { Err(String::from("expected seconds, more than 0")) } else { Ok(span) }
    })
}

fn seconds_or_none(text: &str) -> Result<Duration, String> {
    /// A day: longer is a mistake of units.
    const LONGEST: f64 = 86_400.0;
    match text.parse::<f64>() {
        Ok(value) if (0.0..=LONGEST).contains(&value) => Ok(Duration::from_secs_f64(value)),
        _ => Err(format!("expected seconds, at most {LONGEST}")),
    }
}

fn base_url(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((provider, url)) if !provider.is_empty() && !provider.contains(':') && !url.is_empty() => {
            Ok((provider.to_owned(), url.to_owned()))
        }
        _ => Err(String::from("expected PROVIDER=URL, for instance openai=http://127.0.0.1:4010/openai/v1")),
    }
}
