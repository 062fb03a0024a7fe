#!/usr/bin/env python3
"""The official Python SDKs against a running emulator: chat, streams, tools, structured output, errors.

Usage: emulator_python.py http://127.0.0.1:PORT
Prints one line a failure and at the end `N passed, N failed`; exits with 1 if anything failed.
"""

import json
import sys
import traceback

import anthropic
import openai
from google import genai
from google.genai import errors as genai_errors
from google.genai import types
from pydantic import BaseModel

CHECKS = []


def check(function):
    """Registers a check; its name and docstring say what must hold."""
    CHECKS.append(function)
    return function


class Sdks:
    """One client a vendor, all without retries of their own."""

    def __init__(self, address):
        self.address = address
        self.openai = openai.OpenAI(api_key="k", base_url=f"{address}/openai/v1", max_retries=0, timeout=10)
        self.grok = openai.OpenAI(api_key="k", base_url=f"{address}/grok/v1", max_retries=0, timeout=10)
        self.anthropic = anthropic.Anthropic(api_key="k", base_url=f"{address}/anthropic", max_retries=0, timeout=10)
        self.google = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=f"{address}/google"))


HI = [{"role": "user", "content": "hi"}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
OPENAI_TOOL = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
FLAT_TOOL = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}
ANTHROPIC_TOOL = {"name": "weather", "input_schema": WEATHER}


class Answer(BaseModel):
    """What structured output must look like."""

    title: str
    score: int


def raises(kind, call):
    """The exception `call` raises, which must be exactly of this class."""
    try:
        call()
    except kind as error:
        assert type(error) is kind, f"{type(error).__name__} instead of {kind.__name__}"
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def fault(name):
    return {"x-emulate-fault": name}


@check
def openai_chat(sdk):
    answer = sdk.openai.chat.completions.create(model="gpt-5.2", messages=HI)
    assert answer.choices[0].message.content == "You said: hi"
    assert answer.choices[0].finish_reason == "stop"
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens == 3 and answer._request_id.startswith("req_")


@check
def openai_chat_stream(sdk):
    stream = sdk.openai.chat.completions.create(
        model="gpt-5.2", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "You said: hi", text
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].usage.completion_tokens == 3 and chunks[-1].choices == []


@check
def openai_limit_and_reasoning(sdk):
    answer = sdk.openai.chat.completions.create(
        model="gpt-5.2",
        messages=HI,
        max_completion_tokens=20,
        reasoning_effort="low",
        extra_headers={"x-emulate-output-tokens": "100"},
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 20
    assert answer.usage.completion_tokens_details.reasoning_tokens == 10
    error = raises(
        openai.BadRequestError,
        lambda: sdk.openai.chat.completions.create(model="gpt-5.2", messages=HI, max_tokens=20),
    )
    assert error.code == "unsupported_parameter" and error.param == "max_tokens"


@check
def openai_tool_round_trip(sdk):
    messages = [{"role": "user", "content": "call:weather"}]
    first = sdk.openai.chat.completions.create(model="gpt-5.2", messages=messages, tools=[OPENAI_TOOL])
    assert first.choices[0].finish_reason == "tool_calls"
    call = first.choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments) == {"city": "text", "days": 1}
    messages.append(first.choices[0].message)
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "sunny"})
    second = sdk.openai.chat.completions.create(model="gpt-5.2", messages=messages, tools=[OPENAI_TOOL])
    assert second.choices[0].message.content == "The tool answered: sunny"


@check
def openai_tool_stream(sdk):
    with sdk.openai.chat.completions.stream(
        model="gpt-5.2", messages=HI, tools=[OPENAI_TOOL], tool_choice="required"
    ) as stream:
        stream.until_done()
        call = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert call.function.name == "weather" and json.loads(call.function.arguments)["days"] == 1


@check
def openai_structured_output(sdk):
    answer = sdk.openai.chat.completions.parse(model="gpt-5.2", messages=HI, response_format=Answer)
    assert answer.choices[0].message.parsed == Answer(title="text", score=1)


@check
def openai_responses(sdk):
    answer = sdk.openai.responses.create(model="gpt-5.2", input="hi", instructions="Be brief.")
    assert answer.output_text == "You said: hi" and answer.status == "completed"
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    counted = sdk.openai.responses.input_tokens.count(model="gpt-5.2", input="hi", instructions="Be brief.")
    assert counted.input_tokens == answer.usage.input_tokens


@check
def openai_responses_stream(sdk):
    with sdk.openai.responses.stream(model="gpt-5.2", input="hi") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == "You said: hi"
    numbers = [event.sequence_number for event in events if hasattr(event, "sequence_number")]
    assert numbers == sorted(numbers)
    assert events[0].type == "response.created" and events[-1].type == "response.completed"


@check
def openai_responses_tool(sdk):
    answer = sdk.openai.responses.create(model="gpt-5.2", input="hi", tools=[FLAT_TOOL], tool_choice="required")
    call = answer.output[0]
    assert call.type == "function_call" and json.loads(call.arguments) == {"city": "text", "days": 1}
    second = sdk.openai.responses.create(
        model="gpt-5.2",
        tools=[FLAT_TOOL],
        input=[
            {"role": "user", "content": "hi"},
            {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
            {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
        ],
    )
    assert second.output_text == "The tool answered: rain"


@check
def openai_embeddings_and_models(sdk):
    answer = sdk.openai.embeddings.create(model="text-embedding-3-small", input=["a", "b"], dimensions=8)
    assert [len(item.embedding) for item in answer.data] == [8, 8]
    plain = sdk.openai.embeddings.create(
        model="text-embedding-3-small", input="a", dimensions=8, encoding_format="float"
    )
    assert all(abs(x - y) < 1e-6 for x, y in zip(plain.data[0].embedding, answer.data[0].embedding))
    assert "gpt-5.2" in [model.id for model in sdk.openai.models.list()]


@check
def openai_errors(sdk):
    expected = {
        "bad-key": openai.AuthenticationError,
        "forbidden": openai.PermissionDeniedError,
        "model-not-found": openai.NotFoundError,
        "conflict": openai.ConflictError,
        "unprocessable": openai.UnprocessableEntityError,
        "rate-limited": openai.RateLimitError,
        "insufficient-quota": openai.RateLimitError,
        "server-error": openai.InternalServerError,
        "bad-gateway-html": openai.InternalServerError,
        "overloaded": openai.InternalServerError,
        "context-length": openai.BadRequestError,
        "reset-before-headers": openai.APIConnectionError,
        "close-before-headers": openai.APIConnectionError,
    }
    for name, kind in expected.items():
        raises(
            kind,
            lambda name=name: sdk.openai.chat.completions.create(
                model="gpt-5.2", messages=HI, extra_headers=fault(name)
            ),
        )
    error = raises(
        openai.RateLimitError,
        lambda: sdk.openai.chat.completions.create(
            model="gpt-5.2", messages=HI, extra_headers=fault("insufficient-quota:project_spend_limit_exceeded")
        ),
    )
    assert (error.type, error.code) == ("insufficient_quota", "project_spend_limit_exceeded")


@check
def openai_broken_streams(sdk):
    def consume(name):
        stream = sdk.openai.chat.completions.create(
            model="gpt-5.2", messages=HI, stream=True, extra_headers=fault(name)
        )
        return [chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content]

    raises(openai.APIError, lambda: consume("error-in-stream:1"))
    raises(openai.APIError, lambda: consume("error-in-stream-alternative:1"))
    # The SDK does not notice a missing terminator: that is why a client of ours must.
    assert len(consume("end-after:2")) == 2
    assert len(consume("missing-done")) == 3


@check
def openai_retries_are_seen(sdk):
    client = sdk.openai.with_options(max_retries=2)
    answer = client.chat.completions.create(
        model="gpt-5.2", messages=HI, extra_headers=fault("rate-limited-ms:0.05,times=2,id=python-retries")
    )
    assert answer.choices[0].message.content == "You said: hi"


@check
def anthropic_message(sdk):
    answer = sdk.anthropic.messages.create(model="claude-opus-5-5", max_tokens=50, messages=HI, system="Be brief.")
    assert answer.content[0].text == "You said: hi" and answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens == 3 and answer._request_id.startswith("req_")
    counted = sdk.anthropic.messages.count_tokens(model="claude-opus-5-5", messages=HI, system="Be brief.")
    assert counted.input_tokens == answer.usage.input_tokens


@check
def anthropic_stream(sdk):
    with sdk.anthropic.messages.stream(model="claude-opus-5-5", max_tokens=50, messages=HI) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "You said: hi"
    assert final.stop_reason == "end_turn" and final.usage.output_tokens == 3


@check
def anthropic_thinking_stream(sdk):
    with sdk.anthropic.messages.stream(
        model="claude-opus-5-5", max_tokens=400, messages=HI, thinking={"type": "adaptive"}
    ) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert final.content[0].signature and final.usage.output_tokens > 3


@check
def anthropic_versions(sdk):
    call = lambda client, **extra: client.messages.create(
        model="claude-haiku-4-5", max_tokens=50, messages=HI, **extra
    )
    warm = {"extra_body": {"temperature": 1.0}}
    error = raises(anthropic.BadRequestError, lambda: call(sdk.anthropic, **warm))
    assert "temperature" in str(error)
    older = sdk.anthropic.with_options(default_headers={"anthropic-version": "2023-06-01"})
    assert call(older, **warm).stop_reason == "end_turn"
    both = sdk.anthropic.with_options(default_headers={"x-api-key": "another"})
    raises(anthropic.AuthenticationError, lambda: call(both))


@check
def anthropic_tool_round_trip(sdk):
    messages = [{"role": "user", "content": "call:weather"}]
    ask = lambda: sdk.anthropic.messages.create(
        model="claude-opus-5-5", max_tokens=100, messages=messages, tools=[ANTHROPIC_TOOL]
    )
    first = ask()
    call = first.content[0]
    assert first.stop_reason == "tool_use" and call.input == {"city": "text", "days": 1}
    messages.append({"role": "assistant", "content": first.content})
    messages.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]})
    assert ask().content[0].text == "The tool answered: sunny"


@check
def anthropic_tool_stream(sdk):
    with sdk.anthropic.messages.stream(
        model="claude-opus-5-5", max_tokens=100, messages=HI, tools=[ANTHROPIC_TOOL], tool_choice={"type": "any"}
    ) as stream:
        final = stream.get_final_message()
    assert final.content[0].input == {"city": "text", "days": 1} and final.stop_reason == "tool_use"


@check
def anthropic_structured_output(sdk):
    schema = {"type": "object", "properties": {"score": {"type": "integer"}}, "required": ["score"]}
    answer = sdk.anthropic.messages.create(
        model="claude-opus-5-5",
        max_tokens=50,
        messages=HI,
        extra_body={"output_config": {"format": {"type": "json_schema", "schema": schema}}},
    )
    assert json.loads(answer.content[0].text) == {"score": 1}


@check
def anthropic_errors(sdk):
    expected = {
        "bad-key": anthropic.AuthenticationError,
        "payment-required": anthropic.PaymentRequiredError,
        "forbidden": anthropic.PermissionDeniedError,
        "model-not-found": anthropic.NotFoundError,
        "request-timeout": anthropic.RequestTimeoutError,
        "conflict": anthropic.ConflictError,
        "too-large": anthropic.ContentTooLargeError,
        "rate-limited": anthropic.RateLimitError,
        "server-error": anthropic.InternalServerError,
        "unavailable": anthropic.ServiceUnavailableError,
        "gateway-timeout": anthropic.GatewayTimeoutError,
        "overloaded": anthropic.OverloadedError,
        "spend-limit:credit-balance": anthropic.BadRequestError,
    }
    for name, kind in expected.items():
        # The SDK's own subclasses are private in part: the public name must be the class or its base.
        try:
            sdk.anthropic.messages.create(
                model="claude-opus-5-5", max_tokens=9, messages=HI, extra_headers=fault(name)
            )
        except kind as error:
            assert error.body["type"] == "error" and error.body["request_id"], name
        else:
            raise AssertionError(f"{name}: nothing was raised")


@check
def anthropic_broken_streams(sdk):
    def consume(name):
        with sdk.anthropic.messages.stream(
            model="claude-opus-5-5", max_tokens=50, messages=HI, extra_headers=fault(name)
        ) as stream:
            return "".join(stream.text_stream)

    try:
        consume("error-in-stream:1")
    except anthropic.APIStatusError as error:
        assert error.status_code == 200 and "overloaded" in str(error).lower()
    else:
        raise AssertionError("an error event raises nothing")
    assert consume("end-after:2") == "You said"


@check
def anthropic_models(sdk):
    assert "claude-opus-5-5" in [model.id for model in sdk.anthropic.models.list()]


@check
def google_content(sdk):
    answer = sdk.google.models.generate_content(model="gemini-2.5-flash", contents="hi")
    assert answer.text == "You said: hi"
    usage = answer.usage_metadata
    assert usage.total_token_count == usage.prompt_token_count + usage.candidates_token_count
    counted = sdk.google.models.count_tokens(model="gemini-2.5-flash", contents="hi")
    assert counted.total_tokens == usage.prompt_token_count


@check
def google_thoughts_stay_outside_candidates(sdk):
    config = types.GenerateContentConfig(
        thinking_config=types.ThinkingConfig(thinking_level="LOW", include_thoughts=True), max_output_tokens=100
    )
    answer = sdk.google.models.generate_content(model="gemini-3.5-flash", contents="hi", config=config)
    usage = answer.usage_metadata
    assert usage.thoughts_token_count == 16 and usage.candidates_token_count == 3
    assert usage.total_token_count == usage.prompt_token_count + 19
    assert answer.candidates[0].content.parts[0].thought


@check
def google_stream(sdk):
    chunks = list(sdk.google.models.generate_content_stream(model="gemini-2.5-flash", contents="hi"))
    assert "".join(chunk.text or "" for chunk in chunks) == "You said: hi"
    assert chunks[-1].candidates[0].finish_reason.name == "STOP"
    assert chunks[-1].usage_metadata.candidates_token_count == 3


@check
def google_both_versions(sdk):
    older = genai.Client(
        api_key="k", http_options=types.HttpOptions(base_url=f"{sdk.address}/google", api_version="v1beta")
    )
    assert older.models.generate_content(model="gemini-2.5-flash", contents="hi").text == "You said: hi"


@check
def google_tool_and_structured_output(sdk):
    declared = types.FunctionDeclaration(name="weather", parameters_json_schema=WEATHER)
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])])
    answer = sdk.google.models.generate_content(model="gemini-2.5-flash", contents="call:weather", config=config)
    assert answer.function_calls[0].args == {"city": "text", "days": 1}
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=Answer)
    answer = sdk.google.models.generate_content(model="gemini-2.5-flash", contents="hi", config=config)
    assert answer.parsed == Answer(title="text", score=1)


@check
def google_embeddings(sdk):
    config = types.EmbedContentConfig(output_dimensionality=8)
    answer = sdk.google.models.embed_content(model="gemini-embedding-001", contents=["a", "b"], config=config)
    assert [len(item.values) for item in answer.embeddings] == [8, 8]
    assert answer.embeddings[0].values != answer.embeddings[1].values


@check
def google_errors(sdk):
    expected = {
        "bad-key": (genai_errors.ClientError, 400, "INVALID_ARGUMENT"),
        "payment-required": (genai_errors.ClientError, 402, "RESOURCE_EXHAUSTED"),
        "model-not-found": (genai_errors.ClientError, 404, "NOT_FOUND"),
        "per-day-quota": (genai_errors.ClientError, 429, "RESOURCE_EXHAUSTED"),
        "overloaded": (genai_errors.ServerError, 503, "UNAVAILABLE"),
        "server-error": (genai_errors.ServerError, 500, "INTERNAL"),
    }
    for name, (kind, code, status) in expected.items():
        config = types.GenerateContentConfig(http_options=types.HttpOptions(headers=fault(name)))
        error = raises(
            kind,
            lambda config=config: sdk.google.models.generate_content(
                model="gemini-2.5-flash", contents="hi", config=config
            ),
        )
        assert (error.code, error.status) == (code, status), (name, error.code, error.status)


@check
def google_broken_streams(sdk):
    for name in ["error-in-stream:1", "error-in-stream-alternative:1"]:
        config = types.GenerateContentConfig(http_options=types.HttpOptions(headers=fault(name)))
        stream = sdk.google.models.generate_content_stream(model="gemini-2.5-flash", contents="hi", config=config)
        error = raises(genai_errors.ServerError, lambda stream=stream: list(stream))
        assert error.code == 503


@check
def google_content_filter(sdk):
    config = types.GenerateContentConfig(http_options=types.HttpOptions(headers=fault("content-filter")))
    answer = sdk.google.models.generate_content(model="gemini-2.5-flash", contents="hi", config=config)
    assert not answer.candidates and answer.prompt_feedback.block_reason.name == "SAFETY"


@check
def grok_chat(sdk):
    answer = sdk.grok.chat.completions.create(model="grok-4-fast-reasoning", messages=HI, max_tokens=100)
    usage = answer.usage
    reasoning = usage.completion_tokens_details.reasoning_tokens
    assert reasoning > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens + reasoning
    assert answer.choices[0].message.content == "You said: hi"


@check
def grok_stream_and_errors(sdk):
    chunks = list(sdk.grok.chat.completions.create(model="grok-4.6", messages=HI, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "You said: hi"
    error = raises(
        openai.BadRequestError,
        lambda: sdk.grok.chat.completions.create(model="grok-4.6", messages=HI, extra_headers=fault("bad-key")),
    )
    assert "Incorrect API key" in error.body


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    sdk = Sdks(sys.argv[1].rstrip("/"))
    failed = 0
    for function in CHECKS:
        try:
            function(sdk)
        except Exception:
            failed += 1
            print(f"FAILED {function.__name__}", file=sys.stderr)
            traceback.print_exc()
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
