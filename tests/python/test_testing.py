"""The emulator and the fixture for users' own tests."""

from __future__ import annotations

import pytest
from omega_resilience import ProviderError, RateLimitExceededError, UnifiedLLMClient
from omega_resilience.testing import PROVIDERS, Emulator, faults


async def test_the_fixture_sends_clients_to_the_emulator(omega_emulator: Emulator) -> None:
    result = await UnifiedLLMClient().chat("hi")
    assert result.text == "You said: hi"
    (request,) = omega_emulator.requests
    assert request["provider"] == "openai"
    omega_emulator.clear_requests()
    assert omega_emulator.requests == []


async def test_the_fixture_sends_sdks_there_too(omega_emulator: Emulator) -> None:
    import openai

    async with openai.AsyncOpenAI() as sdk:
        answer = await sdk.chat.completions.create(model="gpt-5.2", messages=[{"role": "user", "content": "hi"}])
    assert answer.choices[0].message.content == "You said: hi"


def test_the_fixture_leaves_the_environment_as_it_was() -> None:
    import os

    assert "OPENAI_BASE_URL" not in os.environ


def test_faults_are_listed_and_misspelled_ones_corrected() -> None:
    assert "server-error" in faults()
    assert all(description for description in faults().values())
    with Emulator() as emulator:
        with pytest.raises(ValueError, match="did you mean `server-error`"):
            emulator.fail("server_error")
        # What was wrong has changed nothing.
        assert emulator.client().chat_sync("hi").text
    with pytest.raises(ValueError, match="rpmm"):
        Emulator(providers={"openai": {"quota": {"rpmm": 3}}})


def test_quotas_and_scenarios() -> None:
    quota = {"openai": {"quota": {"rpm": 1}}}
    with Emulator(providers=quota, scenario=[{"fault": "overloaded:1", "provider": "anthropic"}]) as emulator:
        llm = emulator.client(max_retries=1)
        assert llm.chat_sync("hi").text
        # The client reads the quota off the answer's headers and does not even ask.
        with pytest.raises(RateLimitExceededError):
            llm.chat_sync("hi", max_wait=0)
        with pytest.raises(ProviderError, match="529"):
            llm.chat_sync("hi", model="claude-opus-5-5")
        emulator.set_scenario(None)
        assert llm.chat_sync("hi", model="claude-opus-5-5").text


def test_a_stopped_emulator_says_so() -> None:
    emulator = Emulator()
    assert set(emulator.base_urls) == set(PROVIDERS)
    assert emulator.base_url("openai") == f"{emulator.url}/openai/v1"
    emulator.stop()
    emulator.stop()
    with pytest.raises(RuntimeError, match="has been stopped"):
        _ = emulator.url
