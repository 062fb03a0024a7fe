#!/usr/bin/env python3
"""The official Python SDKs through a running gateway, to each provider that can serve what they ask.

Usage: gateway_python.py http://127.0.0.1:GATEWAY http://127.0.0.1:EMULATOR
Nothing of the SDKs is changed but the base URL. Prints one line a failure and at the end `N passed, N failed`.
"""

import base64
import json
import sys
import traceback
import urllib.request

import anthropic
import openai
from google import genai
from google.genai import errors as genai_errors
from google.genai import types
from pydantic import BaseModel

# One model of each provider. Gemini's fault suffixes do not fit into its path; faults there come from the scenario.
MODELS = {
    "openai": "gpt-5.2",
    "anthropic": "claude-opus-5-5",
    "google": "gemini-3.5-flash",
    "grok": "grok-4.5",
}
HI = [{"role": "user", "content": "hi"}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
# The smallest PNG: one pixel.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PIXEL_TEXT = base64.b64encode(PIXEL).decode()

CHECKS = []


def check(function):
    """A check of its own."""
    CHECKS.append((function.__name__, function))
    return function


def each_provider(function):
    """A check that is made once for each provider."""
    for provider, model in MODELS.items():
        CHECKS.append((f"{function.__name__}[{provider}]", lambda sdk, m=model, p=provider: function(sdk, m, p)))
    return function


class Answer(BaseModel):
    """What structured output must look like."""

    city: str
    days: int


class Sdks:
    """One client a vendor, all without retries of their own."""

    def __init__(self, gateway, emulator):
        self.gateway, self.emulator = gateway, emulator
        self.openai = openai.OpenAI(api_key="k", base_url=f"{gateway}/v1", max_retries=0, timeout=20)
        self.retrying = openai.OpenAI(api_key="k", base_url=f"{gateway}/v1", timeout=20)
        self.anthropic = anthropic.Anthropic(api_key="k", base_url=gateway, max_retries=0, timeout=20)
        old = {"anthropic-version": "2023-06-01"}
        self.anthropic_old = anthropic.Anthropic(
            api_key="k", base_url=gateway, max_retries=0, timeout=20, default_headers=old
        )
        self.google = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=gateway))
        beta = types.HttpOptions(base_url=gateway, api_version="v1beta")
        self.google_beta = genai.Client(api_key="k", http_options=beta)

    def seen(self):
        """How many requests have reached the providers."""
        with urllib.request.urlopen(f"{self.emulator}/__emulator/requests") as answer:
            seen = json.load(answer)
        return len(seen["requests"] if isinstance(seen, dict) else seen)


def raises(kind, call):
    """The exception `call` raises, which must be exactly of this class."""
    try:
        call()
    except kind as error:
        assert type(error) is kind, f"{type(error).__name__} instead of {kind.__name__}: {error}"
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


# --- openai: chat completions -------------------------------------------------------------------------------------------


@each_provider
def chat(sdk, model, provider):
    raw = sdk.openai.chat.completions.with_raw_response.create(model=model, messages=HI)
    answer = raw.parse()
    assert answer.choices[0].message.content == "You said: hi", answer
    assert answer.choices[0].finish_reason == "stop" and answer.model == model, answer
    assert answer.usage.total_tokens > answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens > 0
    assert raw.headers["x-omega-provider"] == provider and raw.headers["x-omega-attempts"] == "1"
    assert raw.headers["x-omega-queued-ms"] == "0" and answer._request_id.startswith("req_")


@each_provider
def chat_stream(sdk, model, _provider):
    stream = sdk.openai.chat.completions.create(
        model=model, messages=HI, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "You said: hi", text
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].usage.completion_tokens > 0
    assert len({chunk.id for chunk in chunks}) == 1, "one answer has one id"


@each_provider
def chat_stream_without_usage(sdk, model, _provider):
    chunks = list(sdk.openai.chat.completions.create(model=model, messages=HI, stream=True))
    assert all(chunk.usage is None for chunk in chunks), "nobody asked for the usage"
    assert all(chunk.choices for chunk in chunks)


@each_provider
def chat_tools(sdk, model, _provider):
    tools = [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": WEATHER}}]
    messages = [{"role": "user", "content": "call:weather"}]
    first = sdk.openai.chat.completions.create(model=model, messages=messages, tools=tools)
    assert first.choices[0].finish_reason == "tool_calls", first
    call = first.choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments) == {"city": "text", "days": 1}
    messages += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    second = sdk.openai.chat.completions.create(model=model, messages=messages, tools=tools)
    assert "sunny" in second.choices[0].message.content, second


@each_provider
def chat_tools_stream(sdk, model, _provider):
    tools = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER, "strict": True}}]
    with sdk.openai.chat.completions.stream(
        model=model, messages=[{"role": "user", "content": "call:weather"}], tools=tools
    ) as stream:
        final = stream.get_final_completion()
    call = final.choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments) == {"city": "text", "days": 1}, call


@each_provider
def chat_structured_output(sdk, model, _provider):
    parsed = sdk.openai.chat.completions.parse(model=model, messages=HI, response_format=Answer)
    assert parsed.choices[0].message.parsed == Answer(city="text", days=1), parsed


@each_provider
def chat_image(sdk, model, _provider):
    content = [
        {"type": "text", "text": "what is this"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL_TEXT}"}},
    ]
    answer = sdk.openai.chat.completions.create(model=model, messages=[{"role": "user", "content": content}])
    assert "what is this" in answer.choices[0].message.content, answer


@each_provider
def chat_limit(sdk, model, _provider):
    messages = [{"role": "user", "content": "[[output-tokens:100]] hi"}]
    answer = sdk.openai.chat.completions.create(model=model, messages=messages, max_completion_tokens=10)
    assert answer.choices[0].finish_reason == "length", answer
    assert answer.usage.completion_tokens == 10


# --- openai: responses --------------------------------------------------------------------------------------------------


@each_provider
def responses(sdk, model, provider):
    raw = sdk.openai.responses.with_raw_response.create(model=model, input="hi")
    answer = raw.parse()
    assert answer.output_text == "You said: hi" and answer.status == "completed", answer
    assert answer.usage.output_tokens > 0 and raw.headers["x-omega-provider"] == provider


@each_provider
def responses_stream(sdk, model, _provider):
    events = list(sdk.openai.responses.create(model=model, input="hi", stream=True))
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == "You said: hi" == events[-1].response.output_text
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers)), numbers


@each_provider
def responses_stream_helper(sdk, model, _provider):
    with sdk.openai.responses.stream(model=model, input="hi") as stream:
        final = stream.get_final_response()
    assert final.output_text == "You said: hi"


@each_provider
def responses_tools(sdk, model, _provider):
    tool = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}
    asked = [{"role": "user", "content": "call:weather"}]
    first = sdk.openai.responses.create(model=model, input=asked, tools=[tool])
    call = next(item for item in first.output if item.type == "function_call")
    assert json.loads(call.arguments) == {"city": "text", "days": 1}
    asked += [
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
    ]
    second = sdk.openai.responses.create(model=model, input=asked, tools=[tool])
    assert "sunny" in second.output_text, second


@each_provider
def responses_structured_output(sdk, model, _provider):
    parsed = sdk.openai.responses.parse(model=model, input="hi", text_format=Answer)
    assert parsed.output_parsed == Answer(city="text", days=1), parsed


@each_provider
def responses_image(sdk, model, _provider):
    content = [
        {"type": "input_text", "text": "what is this"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL_TEXT}", "detail": "auto"},
    ]
    answer = sdk.openai.responses.create(model=model, input=[{"role": "user", "content": content}])
    assert "what is this" in answer.output_text, answer


# --- anthropic ----------------------------------------------------------------------------------------------------------


@each_provider
def messages(sdk, model, provider):
    for client in (sdk.anthropic, sdk.anthropic_old):
        raw = client.messages.with_raw_response.create(model=model, max_tokens=50, messages=HI)
        answer = raw.parse()
        assert answer.content[0].text == "You said: hi" and answer.stop_reason == "end_turn", answer
        assert answer.model == model and answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0
        assert raw.headers["x-omega-provider"] == provider and answer._request_id.startswith("req_")


@each_provider
def messages_stream(sdk, model, _provider):
    with sdk.anthropic.messages.stream(model=model, max_tokens=50, messages=HI) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "You said: hi" == final.content[0].text
    assert final.stop_reason == "end_turn" and final.usage.output_tokens > 0, final


@each_provider
def messages_tools(sdk, model, _provider):
    tools = [{"name": "weather", "description": "d", "input_schema": WEATHER}]
    asked = [{"role": "user", "content": "call:weather"}]
    first = sdk.anthropic.messages.create(model=model, max_tokens=500, messages=asked, tools=tools)
    assert first.stop_reason == "tool_use", first
    call = next(block for block in first.content if block.type == "tool_use")
    assert call.input == {"city": "text", "days": 1}
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    asked += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = sdk.anthropic.messages.create(model=model, max_tokens=500, messages=asked, tools=tools)
    assert "sunny" in second.content[0].text, second


@each_provider
def messages_tools_stream(sdk, model, _provider):
    tools = [{"name": "weather", "input_schema": WEATHER}]
    asked = [{"role": "user", "content": "call:weather"}]
    with sdk.anthropic.messages.stream(model=model, max_tokens=500, messages=asked, tools=tools) as stream:
        final = stream.get_final_message()
    call = next(block for block in final.content if block.type == "tool_use")
    assert call.input == {"city": "text", "days": 1}, final


@each_provider
def messages_structured_output(sdk, model, _provider):
    schema = {"type": "json_schema", "schema": WEATHER}
    answer = sdk.anthropic.messages.create(
        model=model, max_tokens=500, messages=HI, output_config={"format": schema}
    )
    text = next(block.text for block in answer.content if block.type == "text")
    assert json.loads(text) == {"city": "text", "days": 1}, answer


@each_provider
def messages_image(sdk, model, _provider):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL_TEXT}}
    content = [{"type": "text", "text": "what is this"}, image]
    answer = sdk.anthropic.messages.create(
        model=model, max_tokens=50, messages=[{"role": "user", "content": content}]
    )
    assert "what is this" in answer.content[0].text, answer


@each_provider
def messages_count_tokens(sdk, model, _provider):
    counted = sdk.anthropic.messages.count_tokens(model=model, messages=HI)
    assert counted.input_tokens > 0


# --- google -------------------------------------------------------------------------------------------------------------


@each_provider
def gemini(sdk, model, _provider):
    for client in (sdk.google, sdk.google_beta):
        answer = client.models.generate_content(model=model, contents="hi")
        assert answer.text == "You said: hi", answer
        assert answer.candidates[0].finish_reason == types.FinishReason.STOP
        assert answer.usage_metadata.total_token_count > 0


@each_provider
def gemini_stream(sdk, model, _provider):
    for client in (sdk.google, sdk.google_beta):
        chunks = list(client.models.generate_content_stream(model=model, contents="hi"))
        assert "".join(chunk.text or "" for chunk in chunks) == "You said: hi"
        assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP
        assert chunks[-1].usage_metadata.total_token_count > 0


@each_provider
def gemini_tools(sdk, model, _provider):
    function = types.FunctionDeclaration(name="weather", description="d", parameters_json_schema=WEATHER)
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[function])])
    asked = [types.Content(role="user", parts=[types.Part(text="call:weather")])]
    first = sdk.google.models.generate_content(model=model, contents=asked, config=config)
    call = first.function_calls[0]
    assert call.args == {"city": "text", "days": 1}, first
    result = types.FunctionResponse(id=call.id, name=call.name, response={"result": "sunny"})
    asked += [first.candidates[0].content, types.Content(role="user", parts=[types.Part(function_response=result)])]
    second = sdk.google.models.generate_content(model=model, contents=asked, config=config)
    assert "sunny" in second.text, second


@each_provider
def gemini_structured_output(sdk, model, _provider):
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=Answer)
    answer = sdk.google.models.generate_content(model=model, contents="hi", config=config)
    assert answer.parsed == Answer(city="text", days=1), answer


@each_provider
def gemini_image(sdk, model, _provider):
    parts = ["what is this", types.Part.from_bytes(data=PIXEL, mime_type="image/png")]
    answer = sdk.google.models.generate_content(model=model, contents=parts)
    assert "what is this" in answer.text, answer


@each_provider
def gemini_count_tokens(sdk, model, _provider):
    assert sdk.google.models.count_tokens(model=model, contents="hi").total_tokens > 0


# --- embeddings, models -------------------------------------------------------------------------------------------------


@check
def embeddings(sdk):
    answer = sdk.openai.embeddings.create(model="text-embedding-3-small", input=["a", "b"], dimensions=8)
    assert [len(one.embedding) for one in answer.data] == [8, 8] and answer.usage.prompt_tokens > 0


@check
def embeddings_of_another_provider(sdk):
    # The SDK asks for base64 unless told otherwise; Gemini has only numbers.
    for settings in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        answer = sdk.openai.embeddings.create(model="gemini-embedding-001", input="a", dimensions=8, **settings)
        vector = answer.data[0].embedding
        if settings.get("encoding_format") == "base64":
            assert len(base64.b64decode(vector)) == 4 * 8, vector
        else:
            assert len(vector) == 8 and isinstance(vector[0], float), vector


@check
def models_of_every_sdk(sdk):
    assert "gpt-5.2" in [model.id for model in sdk.openai.models.list()]
    assert "gpt-5.2" in [model.id for model in sdk.anthropic.models.list()]
    assert "models/gpt-5.2" in [model.name for model in sdk.google.models.list()]
    assert sdk.openai.models.retrieve("gpt-5.2").owned_by == "openai"
    raises(openai.NotFoundError, lambda: sdk.openai.models.retrieve("gpt-nothing"))


# --- errors, retries, fallbacks -----------------------------------------------------------------------------------------


@check
def errors_of_openai(sdk):
    expected = {
        "gpt-5.2+forbidden": openai.PermissionDeniedError,
        "gpt-5.2+invalid-request": openai.BadRequestError,
        "gpt-5.2+unprocessable": openai.UnprocessableEntityError,
        "gpt-5.2+model-not-found": openai.NotFoundError,
        "gpt-5.2+bad-key": openai.AuthenticationError,
        "nobody-knows-this": openai.NotFoundError,
    }
    for model, kind in expected.items():
        error = raises(kind, lambda m=model: sdk.openai.chat.completions.create(model=m, messages=HI))
        assert error.code and error.type and error.request_id.startswith("req_"), (model, error)
    error = raises(
        openai.RateLimitError,
        lambda: sdk.openai.chat.completions.create(model="gpt-5.2+insufficient-quota", messages=HI),
    )
    assert "quota" in str(error) and error.response.headers["x-should-retry"] == "false"


@check
def errors_of_anthropic(sdk):
    create = sdk.anthropic.messages.create
    error = raises(
        anthropic.PermissionDeniedError,
        lambda: create(model="claude-opus-5-5+forbidden", max_tokens=9, messages=HI),
    )
    assert error.body["type"] == "error" and error.body["error"]["type"] == "permission_error", error.body
    raises(anthropic.NotFoundError, lambda: create(model="nobody-knows-this", max_tokens=9, messages=HI))
    # What another protocol cannot say is refused, and the field named.
    search = [{"type": "web_search_20250305", "name": "web_search"}]
    error = raises(
        anthropic.BadRequestError, lambda: create(model="gpt-5.2", max_tokens=9, messages=HI, tools=search)
    )
    assert "tools.0" in str(error), error


@check
def errors_of_google(sdk):
    generate = sdk.google.models.generate_content
    error = raises(genai_errors.ClientError, lambda: generate(model="nobody-knows-this", contents="hi"))
    assert error.code == 404 and error.status == "NOT_FOUND", error
    config = types.GenerateContentConfig(tools=[types.Tool(google_search=types.GoogleSearch())])
    error = raises(genai_errors.ClientError, lambda: generate(model="gpt-5.2", contents="hi", config=config))
    assert error.code == 400 and "tools[0]" in str(error), error


@check
def a_failure_is_retried_here_and_not_once_more_by_the_sdk(sdk):
    before = sdk.seen()
    error = raises(
        openai.InternalServerError,
        lambda: sdk.retrying.chat.completions.create(model="gpt-5.2+server-error", messages=HI),
    )
    # Two attempts of ours, as configured; the SDK on its own would have made six of them.
    assert sdk.seen() - before == 2 and error.response.headers["x-should-retry"] == "false"
    assert error.response.headers["x-omega-attempts"] == "2"


@check
def a_failure_that_passes_is_not_seen(sdk):
    raw = sdk.openai.chat.completions.with_raw_response.create(
        model="gpt-5.2+server-error,times=1,id=py", messages=HI
    )
    assert raw.parse().choices[0].message.content == "You said: hi"
    assert raw.headers["x-omega-attempts"] == "2"


@check
def fallbacks_of_the_request(sdk):
    for field in ("fallbacks", "models"):
        raw = sdk.openai.chat.completions.with_raw_response.create(
            model="gpt-5.2+overloaded", messages=HI, extra_body={field: ["claude-opus-5-5"]}
        )
        answer = raw.parse()
        assert answer.model == "claude-opus-5-5" and raw.headers["x-omega-provider"] == "anthropic"
        assert answer.choices[0].message.content == "You said: hi"
    answer = sdk.anthropic.messages.create(
        model="claude-opus-5-5+overloaded", max_tokens=50, messages=HI, extra_body={"fallbacks": ["gemini-3.5-flash"]}
    )
    assert answer.model == "gemini-3.5-flash" and answer.content[0].text == "You said: hi"


@check
def an_alias_is_answered_by_what_it_stands_for(sdk):
    answer = sdk.openai.chat.completions.create(model="fast", messages=HI)
    assert answer.model == "gpt-5.2-mini" and answer.choices[0].message.content == "You said: hi"


@check
def a_cut_stream_raises_in_every_sdk(sdk):
    def openai_stream():
        list(sdk.openai.chat.completions.create(model="gpt-5.2+cut-after:2", messages=HI, stream=True))

    def responses_stream():
        list(sdk.openai.responses.create(model="gpt-5.2+cut-after:2", input="hi", stream=True))

    def anthropic_stream():
        with sdk.anthropic.messages.stream(model="claude-opus-5-5+cut-after:2", max_tokens=50, messages=HI) as stream:
            list(stream.text_stream)

    def translated():
        with sdk.anthropic.messages.stream(model="gpt-5.2+cut-after:2", max_tokens=50, messages=HI) as stream:
            list(stream.text_stream)

    def translated_responses():
        model = "claude-opus-5-5+cut-after:2"
        list(sdk.openai.responses.create(model=model, input="hi", stream=True))

    def translated_gemini():
        list(sdk.google.models.generate_content_stream(model="gpt-5.2+cut-after:2", contents="hi"))

    for call in (openai_stream, responses_stream, translated_responses):
        raises(openai.APIError, call)
    for call in (anthropic_stream, translated):
        raises(anthropic.APIStatusError, call)
    raises(genai_errors.ServerError, translated_gemini)


def main():
    """Runs every check."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    sdk = Sdks(sys.argv[1].rstrip("/"), sys.argv[2].rstrip("/"))
    failed = 0
    for name, function in CHECKS:
        try:
            function(sdk)
        except Exception:  # whatever it is, the others are still worth knowing
            failed += 1
            print(f"FAIL {name}")
            traceback.print_exc(limit=3, file=sys.stdout)
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
