"""The specification's lines through `logging`, and events."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest
from conftest import QUICK, eventually
from omega_resilience import CircuitBreakerError, ProviderError, UnifiedLLMClient, UnifiedLLMClientError
from omega_resilience.testing import Emulator


@pytest.fixture(autouse=True)
def _listen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="omega_resilience")


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(each.levelname, each.getMessage()) for each in caplog.records if each.name == "omega_resilience"]


async def test_the_nine_lines_to_the_character(caplog: pytest.LogCaptureFixture, emulator: Emulator) -> None:
    settings = {
        **QUICK,
        "circuit_breaker.failure_threshold": 5,
        "circuit_breaker.success_threshold": 1,
        "circuit_breaker.timeout_seconds": 0.2,
    }
    llm = emulator.client(settings=settings, max_retries=3)
    assert lines(caplog) == [
        ("INFO", "🔱 Circuit breakers initialized for all providers"),
        ("INFO", "🔱 Rate limiters initialized for all providers"),
    ]
    caplog.clear()
    emulator.fail("server-error")
    with pytest.raises(ProviderError):
        await llm.chat("hi")
    # Logged before the exception was raised.
    failed = "⚠️ LLM call failed on attempt {}/3: 500 server_error: "
    (one, wait, two, wait2, three) = lines(caplog)
    for (level, text), attempt in ((one, 1), (two, 2), (three, 3)):
        assert level == "WARNING"
        assert text.startswith(failed.format(attempt))
    assert re.fullmatch(r"⏳ Backing off for 0\.0\ds \(attempt 1\)", wait[1])
    assert re.fullmatch(r"⏳ Backing off for 0\.0\ds \(attempt 2\)", wait2[1])
    caplog.clear()
    with pytest.raises(ProviderError):
        await llm.chat("hi")
    assert ("ERROR", "🚨 Circuit breaker 'openai' OPEN after 5 failures") in lines(caplog)
    caplog.clear()
    emulator.set_scenario(None)
    with pytest.raises(CircuitBreakerError):
        await llm.chat("hi")
    await asyncio.sleep(0.25)
    await llm.chat("hi")
    assert lines(caplog) == [
        ("INFO", "🔄 Circuit 'openai' entering HALF_OPEN state"),
        ("INFO", "✅ Circuit 'openai' CLOSED (recovered)"),
    ]
    caplog.clear()
    emulator.set_scenario([{"fault": "insufficient-quota:insufficient_quota"}])
    with pytest.raises(UnifiedLLMClientError):
        await llm.chat("hi")
    assert lines(caplog) == [("WARNING", "🚨 Quota/Rate limit error on attempt 1/3: insufficient_quota")]


async def test_a_limit_that_is_hit_is_logged_once(caplog: pytest.LogCaptureFixture, emulator: Emulator) -> None:
    llm = emulator.client()
    caplog.clear()
    await asyncio.gather(*(llm.chat("hi", max_wait=0.5) for _ in range(70)), return_exceptions=True)
    hit = [text for _, text in lines(caplog) if text.startswith("⏸️ Rate limit hit for openai: ")]
    assert 1 <= len(hit) <= 3


def test_lines_come_in_calls_without_a_loop(caplog: pytest.LogCaptureFixture, emulator: Emulator) -> None:
    llm = emulator.client(settings=QUICK)
    emulator.fail("server-error", first=1)
    caplog.clear()
    llm.chat_sync("hi")
    assert [text.split()[0] for _, text in lines(caplog)] == ["⚠️", "⏳"]


async def test_lines_come_while_a_call_goes_on(caplog: pytest.LogCaptureFixture, emulator: Emulator) -> None:
    llm = emulator.client(settings={"backoff.base_delay": 30})
    emulator.fail("server-error", first=1)
    caplog.clear()
    task = asyncio.create_task(llm.chat("hi"))
    await eventually(lambda: len(lines(caplog)) == 2, "the lines of the first attempt")
    assert not task.done()
    task.cancel()


async def test_events(emulator: Emulator) -> None:
    heard: list[dict[str, Any]] = []
    llm = emulator.client(
        on_event=heard.append, settings={**QUICK, "circuit_breaker.failure_threshold": 2}, fallbacks=["grok-4.5"]
    )
    emulator.fail("server-error", provider="openai")
    assert (await llm.chat("hi")).provider == "grok"
    await eventually(lambda: len(heard) >= 3, "three events")
    assert [event["type"] for event in heard] == ["retrying", "transition", "failed_over"]
    assert heard[0]["provider"] == "openai"
    assert heard[0]["attempt"] == 1
    assert 0 < heard[0]["delay"] < 0.1
    assert (heard[1]["from"], heard[1]["to"]) == ("closed", "open")
    assert (heard[2]["from"], heard[2]["to"]) == ("openai", "grok")


async def test_a_listener_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture, emulator: Emulator) -> None:
    def fail(_event: dict[str, Any]) -> None:
        raise KeyError("mine")

    llm = emulator.client(on_event=fail, settings=QUICK)
    emulator.fail("server-error", first=1)
    assert (await llm.chat("hi")).text
    await eventually(lambda: any("on_event failed" in text for _, text in lines(caplog)), "the failure is logged")


async def test_keys_are_in_no_line_and_no_repr(caplog: pytest.LogCaptureFixture, emulator: Emulator) -> None:
    llm = UnifiedLLMClient(openai_api_key="sk-very-secret", base_urls=emulator.base_urls, max_retries=1)
    emulator.fail("bad-key")
    with pytest.raises(UnifiedLLMClientError) as caught:
        await llm.chat("hi")
    told = f"{caplog.text} {llm!r} {caught.value} {caught.value!r} {caught.value.attempts}"
    assert "very-secret" not in told
