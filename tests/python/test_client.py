"""Calls: what goes in, what comes out, what goes wrong."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import math
import pickle
from pathlib import Path
from typing import Any

import omega_resilience
import pydantic
import pytest
from conftest import QUICK
from omega_resilience import (
    AuthenticationError,
    CircuitBreakerError,
    ConfigurationError,
    DeadlineExceededError,
    InvalidRequestError,
    ProviderError,
    QuotaExceededError,
    RateLimitExceededError,
    UnifiedLLMClient,
    UnifiedLLMClientError,
)
from omega_resilience.testing import Emulator


@dataclasses.dataclass
class Said:
    role: str
    content: str
    name: str | None = None


class Message(pydantic.BaseModel):
    role: str
    content: str
    name: str | None = None


MODELS = {"openai": "gpt-5.2", "anthropic": "claude-opus-5-5", "google": "gemini-3.5-flash", "grok": "grok-4.5"}


@pytest.mark.parametrize("provider", MODELS)
async def test_a_result_is_an_object_and_a_dictionary(llm: UnifiedLLMClient, provider: str) -> None:
    result = await llm.chat([{"role": "user", "content": "hi"}], model=MODELS[provider])
    assert result.text == "You said: hi" == str(result) == result["choices"][0]["message"]["content"]
    assert (result.provider, result.model) == (provider, MODELS[provider])
    assert result.choices[0]["finish_reason"] == result.finish_reason == "stop"
    assert result.usage is not None
    assert result.usage.total_tokens == result["usage"]["total_tokens"] == result.usage["total_tokens"]
    assert result.usage.total_tokens == result.usage.prompt_tokens + result.usage.completion_tokens
    assert [each.outcome for each in result.attempts] == ["answered"]
    assert "id" in result
    assert "nothing" not in result
    assert result.get("nothing", 3) == 3
    assert dict(result) == result.to_dict() == json.loads(result.to_json())
    assert len(result) == len(list(result)) == len(result.keys()) == len(list(result.items()))
    with pytest.raises(KeyError):
        result["nothing"]
    with pytest.raises(AttributeError, match="'ChatResult' has no attribute or key 'nothing'"):
        _ = result.nothing
    assert repr(result).startswith("ChatResult(text='You said: hi', provider='")
    assert "total_tokens=" in repr(result)
    assert result._repr_markdown_().startswith("You said: hi\n\n*")
    # A dictionary of one's own may be changed; the result's stays.
    result.to_dict()["choices"].clear()
    assert result["choices"]


@pytest.mark.parametrize(
    "messages",
    [
        "hi",
        [{"role": "user", "content": "hi"}],
        [Said("user", "hi")],
        (Message(role="user", content="hi"),),
        ({"role": "user", "content": text} for text in ["hi"]),
    ],
    ids=["a string", "dictionaries", "dataclasses", "pydantic models", "a generator"],
)
async def test_messages_come_in_many_forms(llm: UnifiedLLMClient, emulator: Emulator, messages: Any) -> None:
    assert (await llm.chat(messages)).text == "You said: hi"
    assert emulator.requests[-1]["status"] == 200


@pytest.mark.parametrize(
    "messages",
    [3, b"hi", {"role": "user"}, [object()], [{"role": "user", "content": b"hi"}], [{"content": float("nan")}]],
)
async def test_what_cannot_be_sent_is_refused_at_once(llm: UnifiedLLMClient, messages: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        await llm.chat(messages)
    with pytest.raises((TypeError, ValueError)):
        llm.chat_sync(messages)


async def test_a_request_that_makes_no_sense_says_why(llm: UnifiedLLMClient) -> None:
    with pytest.raises(ValueError, match="`max_tokens`: invalid value: integer `-1`"):
        await llm.chat("hi", max_tokens=-1)
    with pytest.raises(ValueError, match="timeout is a number of seconds, 0 or more; -1 is not"):
        await llm.chat("hi", timeout=-1)
    with pytest.raises(ValueError, match="priority is 'low', 'normal' or 'high'; 'urgent' is not"):
        await llm.chat("hi", priority="urgent")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="fallbacks is a list of models, not one string"):
        await llm.chat("hi", fallbacks="claude-opus-5-5")


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.mark.parametrize("provider", MODELS)
async def test_tools(llm: UnifiedLLMClient, provider: str) -> None:
    result = await llm.chat("weather in Oslo?", model=MODELS[provider], tools=[WEATHER], tool_choice="required")
    (call,) = result.tool_calls
    assert call["function"]["name"] == "weather"
    assert "city" in json.loads(call["function"]["arguments"])
    assert result.finish_reason == "tool_calls"
    turn = [
        {"role": "user", "content": "weather in Oslo?"},
        result["choices"][0]["message"],
        {"role": "tool", "tool_call_id": call["id"], "content": "sunny"},
    ]
    assert (await llm.chat(turn, model=MODELS[provider], tools=[WEATHER])).text


class City(pydantic.BaseModel):
    city: str
    days: int = 3


@pytest.mark.parametrize("provider", ["openai", "google", "grok"])
async def test_a_pydantic_class_is_a_response_format(llm: UnifiedLLMClient, provider: str) -> None:
    result = await llm.chat("plan a trip", model=MODELS[provider], response_format=City)
    City.model_validate_json(result.text)


async def test_fields_of_the_provider_go_along(llm: UnifiedLLMClient) -> None:
    result = await llm.chat("hi", model="grok-4.5", temperature=0.3, max_tokens=50, top_p=0.9, seed=7)
    assert result.text
    with pytest.raises(InvalidRequestError, match="'temperature' does not support this value"):
        await llm.chat("hi", temperature=0.3)


async def test_many_at_once(emulator: Emulator) -> None:
    llm = emulator.client(enable_rate_limiting=False)
    results = await asyncio.gather(*(llm.chat(f"{at}") for at in range(200)))
    assert [result.text for result in results] == [f"You said: {at}" for at in range(200)]


async def test_fallbacks(emulator: Emulator) -> None:
    llm = emulator.client(fallbacks=["claude-opus-5-5"], settings=QUICK)
    emulator.fail("server-error", provider="openai")
    result = await llm.chat("hi", max_attempts=1)
    assert (result.provider, result.model) == ("anthropic", "claude-opus-5-5")
    assert [(each.provider, each.outcome, each.status_code) for each in result.attempts] == [
        ("openai", "failed", 500),
        ("anthropic", "answered", None),
    ]
    with pytest.raises(ProviderError):
        await llm.chat("hi", fallbacks=[], max_attempts=1)
    assert (await llm.chat("hi", fallbacks=["grok-4.5"], max_attempts=1)).provider == "grok"


@pytest.mark.parametrize(
    ("fault", "error", "status", "code"),
    [
        ("server-error", ProviderError, 500, "server_error"),
        ("rate-limited:5", RateLimitExceededError, 429, "rate_limit_exceeded"),
        ("insufficient-quota", QuotaExceededError, 429, "credit_balance_exhausted"),
        ("bad-key", AuthenticationError, 401, "invalid_api_key"),
        ("context-length", InvalidRequestError, 400, "context_length_exceeded"),
        ("model-not-found", InvalidRequestError, 404, "model_not_found"),
        ("reset-before-headers", ProviderError, None, "provider_unreachable"),
    ],
)
async def test_errors_say_what_can_be_done(
    llm: UnifiedLLMClient, emulator: Emulator, fault: str, error: type, status: int | None, code: str
) -> None:
    emulator.fail(fault)
    with pytest.raises(error) as caught:
        await llm.chat("hi", max_attempts=1)
    said = caught.value
    assert isinstance(said, UnifiedLLMClientError)
    assert (said.provider, said.model, said.status_code, said.code) == ("openai", "gpt-5.2", status, code)
    assert said.origin == "provider"
    assert [each.outcome for each in said.attempts] == ["failed"]
    if status is not None:
        assert str(status) in str(said)
    if fault == "rate-limited:5":
        assert said.retry_after == pytest.approx(5, abs=0.5)
    with pytest.raises(error):
        llm.chat_sync("hi", max_attempts=1)
    copied = pickle.loads(pickle.dumps(said))
    assert (type(copied), str(copied), copied.code) == (error, str(said), code)
    assert str(copy.copy(said)) == str(said)


async def test_an_open_circuit_and_a_reset(emulator: Emulator) -> None:
    llm = emulator.client(settings={"circuit_breaker.failure_threshold": 2}, max_retries=1)
    emulator.fail("server-error")
    for _ in range(2):
        with pytest.raises(ProviderError):
            await llm.chat("hi")
    with pytest.raises(CircuitBreakerError, match="circuit for openai is open; next try in") as caught:
        await llm.chat("hi")
    assert caught.value.retry_after == pytest.approx(60, abs=1)
    assert (caught.value.provider, caught.value.origin) == ("openai", "local")
    assert len(emulator.requests) == 2
    emulator.set_scenario(None)
    llm.reset_circuit("openai")
    assert (await llm.chat("hi")).text
    with pytest.raises(ValueError, match="no provider is called `nobody`; known are"):
        llm.reset_circuit("nobody")


async def test_limits_of_our_own(emulator: Emulator) -> None:
    llm = emulator.client(settings={"rate_limiting.openai.max_requests_per_minute": 2})
    await llm.chat("1")
    await llm.chat("2")
    with pytest.raises(RateLimitExceededError) as caught:
        await llm.chat("3", max_wait=0)
    assert caught.value.origin == "local"
    assert caught.value.retry_after == pytest.approx(30, abs=1)


async def test_deadlines(emulator: Emulator) -> None:
    llm = emulator.client()
    emulator.fail("hang")
    with pytest.raises(DeadlineExceededError) as caught:
        await llm.chat("hi", timeout=0.2)
    assert caught.value.origin == "local"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"openai_api_key": 3}, "the key of openai is text, not of the type int"),
        ({"config": [1]}, "config is a file's path or a dictionary, not of the type list"),
        ({"max_retries": "3"}, "max_retries is a whole number, not of the type str"),
        ({"base_urls": {"openai": 3}}, "the base URL of openai is text"),
        ({"base_urls": "http://x"}, "base_urls is a dictionary by name"),
        ({"fallbacks": [3]}, "each of fallbacks is a model's name"),
        ({"enable_rate_limiting": "no"}, "enable_rate_limiting is True or False"),
    ],
)
def test_arguments_of_a_wrong_type_are_named(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        UnifiedLLMClient(**wrong)


async def test_a_result_travels(llm: UnifiedLLMClient) -> None:
    result = await llm.chat("hi", timeout=math.inf, max_wait=math.inf)
    copied = pickle.loads(pickle.dumps(result))
    assert copied.to_dict() == result.to_dict()
    assert (copied.provider, copied.model, copied.text) == (result.provider, result.model, result.text)
    assert copied.attempts == []
    assert copy.copy(result) is result
    assert copy.deepcopy({"a": result})["a"] is result


def test_what_is_configured_wrongly_says_where(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_retries"):
        UnifiedLLMClient(max_retries=0)
    with pytest.raises(ConfigurationError, match=r"Did you mean `circuit_breaker\.timeout_seconds`"):
        UnifiedLLMClient(settings={"circuit_breaker.timeout_second": 3})
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml: there is no such file"):
        UnifiedLLMClient(config=tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigurationError, match="Did you mean `failure_threshold`"):
        UnifiedLLMClient(config={"circuit_breaker": {"failure_treshold": 3}})
    with pytest.raises(ConfigurationError, match="no provider is known for the model `no-such-family-1`") as caught:
        UnifiedLLMClient(preferred_model="no-such-family-1")
    assert isinstance(caught.value, ValueError)
    with pytest.raises(TypeError):
        UnifiedLLMClient("gpt-5.2")  # type: ignore[misc]
    with pytest.raises(ConfigurationError, match="state"):
        UnifiedLLMClient(state="carrier-pigeon://roof")


async def test_a_missing_key_is_an_error_of_the_first_call() -> None:
    llm = UnifiedLLMClient()
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        await llm.chat("hi")


async def test_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "omega.yaml"
    file.write_text("model: gpt-5.2\nrate_limiting: {openai: {max_requests_per_minute: 7}}\n")
    monkeypatch.setenv("OMEGA_CONFIG", str(file))
    monkeypatch.setenv("OMEGA_CIRCUIT_BREAKER_ENABLED", "false")
    stats = UnifiedLLMClient().get_resilience_stats()
    assert stats["rate_limiters"]["openai"]["max_requests_per_minute"] == 7
    monkeypatch.setenv("OMEGA_OPENAI_MAX_RPM", "8")
    stats = UnifiedLLMClient().get_resilience_stats()
    assert stats["rate_limiters"]["openai"]["max_requests_per_minute"] == 8
    given = {"rate_limiting.openai.max_requests_per_minute": 9}
    stats = UnifiedLLMClient(settings=given).get_resilience_stats()
    assert stats["rate_limiters"]["openai"]["max_requests_per_minute"] == 9
    named = UnifiedLLMClient(config=file).get_resilience_stats()
    assert named["rate_limiters"]["openai"]["max_requests_per_minute"] == 8


async def test_a_provider_of_ones_own(emulator: Emulator) -> None:
    own = {"vllm": {"base_url": emulator.base_url("openai"), "models": ["qwen*"]}}
    llm = UnifiedLLMClient(providers=own, api_keys={"vllm": "sk-emulated"}, preferred_model="vllm/gpt-5.2")
    result = await llm.chat("hi")
    assert (result.provider, result.text) == ("vllm", "You said: hi")
    assert "vllm" in llm.get_resilience_stats()["circuit_breakers"]


async def test_tenants_and_priorities_are_taken(emulator: Emulator) -> None:
    llm = emulator.client(tenant_weights={"team-a": 3})
    assert (await llm.chat("hi", tenant="team-a", priority="high")).text


async def test_a_closed_client_says_so(emulator: Emulator) -> None:
    async with emulator.client() as llm:
        assert (await llm.chat("hi")).text
        assert repr(llm) == "UnifiedLLMClient(preferred_model='gpt-5.2')"
    for call in (llm.get_resilience_stats, lambda: llm.chat_sync("hi")):
        with pytest.raises(RuntimeError, match="this client has been closed"):
            call()
    with pytest.raises(RuntimeError, match="this client has been closed"):
        await llm.chat("hi")
    assert repr(llm) == "UnifiedLLMClient(closed)"
    await llm.close()
    with emulator.client() as other:
        assert other.chat_sync("hi").text


def test_what_is_exported_is_documented() -> None:
    for name in omega_resilience.__all__:
        shown = getattr(omega_resilience, name)
        if isinstance(shown, type):
            assert shown.__module__ == "omega_resilience", name
            assert shown.__doc__, name
