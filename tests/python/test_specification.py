"""Every Python example of the specification, word for word, and what it says about each."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import inspect
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from omega_resilience.testing import Emulator

# The specification's examples, as printed there, one after the other.
EXAMPLES = (Path(__file__).parents[2] / "docs/specification.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", EXAMPLES, re.DOTALL)


def block(words: str) -> str:
    (found,) = [each for each in BLOCKS if words in each]
    return found


def namespace() -> dict[str, Any]:
    """`messages`, and what `models.*` exports."""
    names: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello!"}]}
    for module in ("models.unified_llm_client", "models.circuit_breaker"):
        exported = importlib.import_module(module)
        names.update((name, getattr(exported, name)) for name in exported.__all__)
    return names


async def run(code: str, names: dict[str, Any]) -> str:
    """Runs it with `await` at its top; what it printed."""
    compiled = compile(code, "specification.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        done = eval(compiled, names)
        if inspect.isawaitable(done):
            await done
    return printed.getvalue()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> None:
    """Base URLs through the environment; nothing else is said."""
    for provider, url in emulator.base_urls.items():
        monkeypatch.setenv(f"OMEGA_PROVIDERS_{provider.upper()}_BASE_URL", url)


def test_all_examples_are_there_and_used() -> None:
    used = [
        "# All calls are protected",
        "max_retries=3 ",
        "enable_circuit_breaker=False",
        "stats = llm.get_resilience_stats()\n\nprint(stats)",
        "except CircuitBreakerError as e",
        "except RateLimitExceededError as e",
        "except UnifiedLLMClientError as e",
        "# Simulate failures",
        "# Send burst of requests",
    ]
    assert sorted(block(words) for words in used) == sorted(BLOCKS)


async def automatic(names: dict[str, Any]) -> None:
    await run(block("# All calls are protected"), names)


async def test_automatic() -> None:
    names = namespace()
    await automatic(names)
    assert names["result"].text.startswith("You said: Hello!")


async def test_manual_configuration() -> None:
    names = namespace()
    await run(block("max_retries=3 "), names)
    assert (await names["llm"].chat(names["messages"])).text


async def test_disabled(emulator: Emulator) -> None:
    names = namespace()
    await run(block("enable_circuit_breaker=False"), names)
    llm = names["llm"]
    emulator.fail("server-error")
    for _ in range(8):
        with pytest.raises(names["ProviderError"]) as failed:
            await llm.chat(names["messages"])
        assert len(failed.value.attempts) == 1
    assert llm.get_resilience_stats()["circuit_breakers"]["openai"]["state"] == "closed"
    emulator.set_scenario(None)
    # 100 at once where the limits allow ten in flight and sixty in a minute.
    results = await asyncio.gather(*(llm.chat(names["messages"]) for _ in range(100)))
    assert len(results) == 100


async def test_statistics() -> None:
    names = namespace()
    await automatic(names)
    printed = await run(block("stats = llm.get_resilience_stats()\n\nprint(stats)"), names)
    assert printed.startswith("{'circuit_breakers': {")
    # The dictionary that the specification prints, in JSON.
    said = block("stats = llm.get_resilience_stats()\n\nprint(stats)")
    shape = json.loads("\n".join(line[2:] for line in said.splitlines() if line.startswith("# ")))
    stats = names["stats"]
    for part, providers in shape.items():
        assert set(stats[part]) == {"openai", "anthropic", "google", "grok"}
        for numbers in stats[part].values():
            expected = providers["openai"]
            assert list(numbers) == list(expected)
            for key, value in expected.items():
                assert type(numbers[key]) is type(value), (part, key)
    assert set(stats) == {*shape, "details"}
    assert stats["rate_limiters"]["openai"]["requests_last_minute"] == 1
    assert stats["rate_limiters"]["openai"]["max_requests_per_minute"] == 60


async def test_circuit_breaker_errors(emulator: Emulator) -> None:
    names = namespace()
    await automatic(names)
    emulator.fail("server-error")
    printed = ""
    for _ in range(3):
        with contextlib.suppress(names["ProviderError"]):
            printed = await run(block("except CircuitBreakerError as e"), names)
    assert printed.startswith("Circuit is open: circuit for openai is open; next try in ")


async def test_rate_limit_errors(emulator: Emulator) -> None:
    names = namespace()
    await automatic(names)
    emulator.fail("rate-limited:7")
    llm = names["UnifiedLLMClient"](openai_api_key="your-key", max_retries=1)
    printed = await run(block("except RateLimitExceededError as e"), {**names, "llm": llm})
    assert printed.startswith("Rate limit exceeded: openai: 429 ")


async def test_quota_errors(emulator: Emulator) -> None:
    names = namespace()
    await automatic(names)
    code = block("except UnifiedLLMClientError as e")
    emulator.set_scenario([{"fault": "insufficient-quota"}])
    assert await run(code, names) == "OpenAI quota exceeded - check billing\n"
    llm = names["UnifiedLLMClient"](openai_api_key="your-key", max_retries=1)
    emulator.set_scenario([{"fault": "rate-limited:7"}])
    assert await run(code, {**names, "llm": llm}) == "Rate limited - will retry with backoff\n"


async def test_ten_failures_open_the_circuit(monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> None:
    monkeypatch.setenv("OMEGA_BACKOFF_BASE_DELAY", "0.01")
    names = namespace()
    await automatic(names)
    emulator.fail("server-error")
    printed = (await run(block("# Simulate failures"), names)).splitlines()
    assert [line.split(":")[0] for line in printed] == [*(f"Attempt {at}" for at in range(10)), "open"]
    assert printed[-1] == "open"


async def test_a_burst_of_a_hundred_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    # What may wait, waits for half a minute by default; a test need not.
    monkeypatch.setenv("OMEGA_RATE_LIMITING_OPENAI_MAX_WAIT_SECONDS", "2")
    names = namespace()
    await automatic(names)
    printed = await run(block("# Send burst of requests"), names)
    (limited,) = re.findall(r"^Rate limited: (\d+)/100$", printed, re.MULTILINE)
    # 59 of the minute's sixty are left and go at once, two more come in within two seconds.
    assert 36 <= int(limited) <= 41
    answered = [result for result in names["results"] if not isinstance(result, Exception)]
    assert len(answered) == 100 - int(limited)
