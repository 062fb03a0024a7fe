"""Fixtures for pytest, there as soon as the package is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .testing import Emulator


@pytest.fixture
def omega_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Four emulated providers for one test; the environment sends clients and SDKs there for as long."""
    with Emulator() as emulator:
        for name, value in emulator.environment.items():
            monkeypatch.setenv(name, value)
        yield emulator
