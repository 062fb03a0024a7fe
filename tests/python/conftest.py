"""What the tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from omega_resilience import UnifiedLLMClient
from omega_resilience.testing import Emulator

QUICK = {"backoff.base_delay": 0.01, "backoff.max_delay": 0.05}
"""Retries that a test need not wait for."""


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """No configuration file of the working directory, no keys of whoever runs this."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "XAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def llm(emulator: Emulator) -> UnifiedLLMClient:
    return emulator.client(settings=QUICK)


async def eventually(is_so: Callable[[], bool], what: str) -> None:
    """Waits for what another thread does by itself."""
    for _ in range(500):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"never came: {what}")


def held(llm: UnifiedLLMClient) -> int:
    """Permits and places that calls hold."""
    stats = llm.get_resilience_stats()
    providers = stats["details"]["providers"].values()
    return sum(each["permits_in_flight"] + each["queued"] for each in providers)
