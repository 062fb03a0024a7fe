//! Chat at every vendor, each way: what is said, shown, called, limited and counted.

use omega_client::{
    ChatRequest, Content, ContentPart, FinishReason, Message, ReasoningEffort, ResponseFormat, Tool,
    ToolChoice, UnifiedLLMClient,
};
use serde_json::{Value, json};

use crate::support::*;

fn request(vendor: &Vendor, text: &str) -> ChatRequest {
    ChatRequest::new(vendor.model, [Message::user(text)])
}

#[tokio::test]
async fn every_vendor_answers_every_way() {
    let wire = Wire::new().await;
    for vendor in &VENDORS {
        for way in WAYS {
            let heard = wire.ask(way, request(vendor, "Hello there, ünïcode 🦀")).await.unwrap();
            let shown = format!("{} {way:?}", vendor.name);
            assert_eq!(heard.response.text(), "You said: Hello there, ünïcode 🦀", "{shown}");
            assert_eq!(heard.response.finish_reason(), Some(FinishReason::Stop), "{shown}");
            assert_eq!((heard.provider.as_str(), heard.attempts), (vendor.name, 1), "{shown}");
            assert_eq!((heard.model.as_str(), heard.response.model.as_str()), (vendor.model, vendor.model));
            assert!(!heard.response.id.is_empty(), "{shown}");
            let seen = wire.last().await;
            assert_eq!(seen.provider.name(), vendor.emulated, "{shown}");
            assert_eq!((seen.status, seen.stream), (Some(200), way != Way::Whole), "{shown}");
            let auth = match vendor.name {
                "anthropic" => "x-api-key",
                "google" => "x-goog-api-key",
                _ => "authorization",
            };
            assert_eq!(seen.headers.auth, [auth], "{shown}");
        }
    }
    for way in WAYS {
        assert_nothing_held(wire.client(way)).await;
    }
}

#[tokio::test]
async fn a_conversation_and_its_system_prompt_are_carried() {
    let wire = Wire::new().await;
    for vendor in &VENDORS {
        for way in WAYS {
            wire.ask(way, request(vendor, "one")).await.unwrap();
            let short = wire.last().await.input_tokens;
            let turns = [
                Message::system("Speak like a pirate"),
                Message::user("one"),
                Message::assistant("You said: one"),
                Message::user("two [[echo-system]]"),
            ];
            let heard = wire.ask(way, ChatRequest::new(vendor.model, turns)).await.unwrap();
            assert_eq!(
                heard.response.text(),
                "System prompt: Speak like a pirate. You said: two [[echo-system]]",
                "{} {way:?}",
                vendor.name
            );
            let long = wire.last().await.input_tokens;
            assert!(long >= short + 10, "{}: {long} tokens after {short}", vendor.name);
        }
    }
}

#[tokio::test]
async fn images_are_shown_inline_and_by_address() {
    // The smallest PNG there is: one transparent pixel.
    const PIXEL: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
    let wire = Wire::new().await;
    let image = |url: &str| ContentPart::ImageUrl {
        url: url.into(),
        detail: None,
        extra: omega_protocol::Extra::new(),
    };
    let text = ContentPart::Text { text: "What is this?".into(), extra: omega_protocol::Extra::new() };
    for vendor in &VENDORS {
        for way in WAYS {
            let parts = vec![text.clone(), image(PIXEL), image("https://example.com/cat.png")];
            let call = ChatRequest::new(vendor.model, [Message::user_parts(parts)]);
            let heard = wire.ask(way, call).await.unwrap();
            assert_eq!(
                heard.response.text(),
                "Images: 2. You said: What is this?",
                "{} {way:?}",
                vendor.name
            );
        }
    }
}

fn tools() -> [Tool; 2] {
    let city = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let count = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    [Tool::function("weather", "Weather of a city", city), Tool::function("count", "Counts", count)]
}

fn arguments(call: &omega_protocol::ToolCall) -> Value {
    serde_json::from_str(call.arguments()).unwrap()
}

#[tokio::test]
async fn tools_are_called_and_their_results_answered() {
    let wire = Wire::new().await;
    for vendor in &VENDORS {
        for way in WAYS {
            let shown = format!("{} {way:?}", vendor.name);
            let question = Message::user("Please call:weather and call:count");
            let ask = ChatRequest::new(vendor.model, [question.clone()]).tools(tools());
            let heard = wire.ask(way, ask).await.unwrap();
            assert_eq!(heard.response.finish_reason(), Some(FinishReason::ToolCalls), "{shown}");
            let turn = heard.response.choices[0].message.clone();
            let calls = turn.tool_calls.clone();
            assert_eq!([calls[0].name(), calls[1].name()], ["weather", "count"], "{shown}");
            assert!(arguments(&calls[0])["city"].is_string(), "{shown}: {:?}", calls[0].arguments());
            assert!(arguments(&calls[1])["n"].is_i64(), "{shown}: {:?}", calls[1].arguments());
            assert_ne!(calls[0].id, calls[1].id, "{shown}");

            // The emulator refuses results that do not belong to the calls of the turn before.
            let conversation = [
                question,
                turn,
                Message::tool(&calls[0].id, r#"{"degrees": 21}"#),
                Message::tool(&calls[1].id, r#"{"counted": 42}"#),
            ];
            let heard =
                wire.ask(way, ChatRequest::new(vendor.model, conversation).tools(tools())).await.unwrap();
            let said = heard.response.text();
            assert!(said.starts_with("The tool answered: "), "{shown}: {said}");
            assert!(said.contains("21") && said.contains("42"), "{shown}: {said}");
            assert_eq!(heard.response.finish_reason(), Some(FinishReason::Stop), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_tool_can_be_forced_or_forbidden() {
    let wire = Wire::new().await;
    for vendor in &VENDORS {
        for way in WAYS {
            let shown = format!("{} {way:?}", vendor.name);
            for (choice, called) in [
                (ToolChoice::Function("count".into()), vec!["count"]),
                (ToolChoice::Required, vec!["weather"]),
                (ToolChoice::None, vec![]),
            ] {
                let text = if called.is_empty() { "call:weather" } else { "Hello" };
                let ask = request(vendor, text).tools(tools()).tool_choice(choice);
                let heard = wire.ask(way, ask).await.unwrap();
                let names: Vec<&str> =
                    heard.response.tool_calls().iter().map(omega_protocol::ToolCall::name).collect();
                assert_eq!(names, called, "{shown}");
            }
        }
    }
}

#[tokio::test]
async fn structured_output_has_its_form() {
    let schema = json!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": false
    });
    let wire = Wire::new().await;
    for vendor in &VENDORS {
        for way in WAYS {
            let ask = request(vendor, "Who?")
                .response_format(ResponseFormat::json_schema("person", schema.clone()));
            let heard = wire.ask(way, ask).await.unwrap();
            let person: Value = serde_json::from_str(heard.response.text()).unwrap();
            let shown = format!("{} {way:?}: {person}", vendor.name);
            assert!(person["name"].is_string() && person["age"].is_i64(), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_stop_text_ends_the_answer_and_a_limit_cuts_it() {
    let wire = Wire::new().await;
    for vendor in &VENDORS {
        for way in WAYS {
            let shown = format!("{} {way:?}", vendor.name);
            let heard = wire.ask(way, request(vendor, "Hello world, goodbye").stop(["world"])).await.unwrap();
            assert_eq!(heard.response.text(), "You said: Hello ", "{shown}");
            assert_eq!(heard.response.finish_reason(), Some(FinishReason::Stop), "{shown}");

            let cut = request(vendor, "Tell me everything [[output-tokens:50]]").max_tokens(5);
            let heard = wire.ask(way, cut).await.unwrap();
            assert_eq!(heard.response.finish_reason(), Some(FinishReason::Length), "{shown}");
            assert_eq!(heard.response.usage.unwrap().completion_tokens, 5, "{shown}");
        }
    }
}

#[tokio::test]
async fn usage_means_the_same_everywhere() {
    let wire = Wire::new().await;
    for vendor in &VENDORS {
        for way in WAYS {
            let shown = format!("{} {way:?}", vendor.name);
            let text = "Think about this for a while [[reasoning-tokens:7]] [[cached-tokens:9]]";
            let ask = ChatRequest::new(vendor.reasoning_model, [Message::user(text)]);
            let usage = wire.ask(way, ask).await.unwrap().response.usage.unwrap();
            let seen = wire.last().await;
            // The emulator counts every token once: all input, all output.
            assert_eq!(usage.prompt_tokens, seen.input_tokens, "{shown}");
            assert_eq!(usage.completion_tokens, seen.output_tokens, "{shown}");
            assert_eq!(usage.total_tokens, seen.input_tokens + seen.output_tokens, "{shown}");
            assert_eq!((usage.reasoning_tokens(), usage.cached_tokens()), (7, 9), "{shown}");
        }
    }
}

#[tokio::test]
async fn reasoning_is_done_with_the_effort_asked_for() {
    let wire = Wire::new().await;
    for vendor in &VENDORS {
        for way in WAYS {
            let mut reasoned = Vec::new();
            for effort in [ReasoningEffort::Low, ReasoningEffort::High] {
                let mut ask = ChatRequest::new(vendor.reasoning_model, [Message::user("Think")])
                    .reasoning_effort(effort);
                if vendor.name == "anthropic" {
                    // There the effort says how much, and this says whether.
                    ask = ask.extra("thinking", json!({"type": "adaptive"}));
                }
                let heard = wire.ask(way, ask).await.unwrap();
                assert_eq!(heard.response.text(), "You said: Think");
                let usage = heard.response.usage.unwrap();
                assert!(usage.completion_tokens > usage.reasoning_tokens());
                reasoned.push(usage.reasoning_tokens());
            }
            assert!(reasoned[0] > 0 && reasoned[1] > reasoned[0], "{} {way:?}: {reasoned:?}", vendor.name);
        }
    }
}

/// Signed thinking is refused by the service if it does not come back as it was.
#[tokio::test]
async fn thinking_is_echoed_in_the_next_turn() {
    let wire = Wire::new().await;
    for way in WAYS {
        let question = Message::user("Think, then call:weather");
        let ask = ChatRequest::new(ANTHROPIC.model, [question.clone()])
            .tools(tools())
            .extra("thinking", json!({"type": "adaptive"}));
        let turn = wire.ask(way, ask.clone()).await.unwrap().response.choices[0].message.clone();
        assert!(turn.reasoning_content.as_deref().is_some_and(|said| !said.is_empty()), "{way:?}");
        let without = ask_again(&wire, way, &question, Message { extra: Default::default(), ..turn.clone() });
        let (without, with) = (without.await, ask_again(&wire, way, &question, turn).await);
        // The blocks are counted as input, so it shows that they arrived.
        assert!(with > without, "{way:?}: {with} tokens with the thinking, {without} without");
    }
}

async fn ask_again(wire: &Wire, way: Way, question: &Message, turn: Message) -> u64 {
    let result = Message::tool(&turn.tool_calls[0].id, "21 degrees");
    let conversation = [question.clone(), turn, result];
    let ask = ChatRequest::new(ANTHROPIC.model, conversation)
        .tools(tools())
        .extra("thinking", json!({"type": "adaptive"}));
    wire.ask(way, ask).await.unwrap();
    wire.last().await.input_tokens
}

#[tokio::test]
async fn unknown_fields_survive_in_both_directions() {
    let emulator = emulator().await;
    for vendor in &VENDORS {
        for guard in ["true", "false"] {
            let recorder = Recorder::new();
            let client: UnifiedLLMClient = builder(&emulator, "")
                .transport(recorder.clone())
                .setting("streaming.guard_whole_answers", guard)
                .build()
                .unwrap();
            let mut message = Message::user("Hello");
            message.content = Content::Text("Hello".into());
            let ask = ChatRequest::new(vendor.model, [message])
                .extra("field_of_tomorrow", json!({"deep": [1, null]}));
            let answer = client.chat(ask).await.unwrap();
            assert_eq!(
                recorder.last().body["field_of_tomorrow"],
                json!({"deep": [1, null]}),
                "{}",
                vendor.name
            );
            let answer = serde_json::to_value(&answer.response).unwrap();
            let kept = match vendor.emulated {
                "openai" => &answer["usage"]["prompt_tokens_details"]["text_tokens"],
                "anthropic" => &answer["usage"]["cache_creation"],
                "google" => &answer["usage"]["promptTokensDetails"],
                _ => &answer["usage"]["cost_in_usd_ticks"],
            };
            assert!(!kept.is_null(), "{} {guard}: {answer:#}", vendor.name);
        }
    }
}
