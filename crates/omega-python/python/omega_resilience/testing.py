"""Providers to test against: OMEGA's emulator, inside the test's own process.

::

    from omega_resilience.testing import Emulator

    with Emulator() as emulator:
        llm = emulator.client()
        emulator.fail("server-error", first=2)
        assert llm.chat_sync("hello").attempts[0].outcome == "failed"

With pytest there is a fixture, `omega_emulator`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _omega, _plain
from ._client import UnifiedLLMClient

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["PROVIDERS", "Emulator", "faults"]

PROVIDERS = ("openai", "anthropic", "google", "grok")
"""The providers an emulator pretends to be."""

_VARIABLES = {
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_KEY"),
    "anthropic": ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"),
    "google": ("GOOGLE_GEMINI_BASE_URL", "GEMINI_API_KEY"),
    "grok": ("XAI_BASE_URL", "XAI_API_KEY"),
}


def faults() -> dict[str, str]:
    """The fault catalogue: how a fault is written, and what it does."""
    return dict(_omega.faults())


class Emulator:
    """Four pretended providers on one free port of this computer, with quotas, latency and faults.

    Args:
        providers: Quotas and latency by provider, as in ``omega emulate``'s configuration:
            ``{"openai": {"quota": {"rpm": 60}}}``.
        scenario: What goes wrong when: a list of rules, or the scenario as a dictionary.
        seed: Everything random follows from it.
        time_scale: How many times faster than real time everything runs.
        **config: Anything else of ``omega emulate``'s configuration.

    Raises:
        ValueError: The configuration makes no sense.
    """

    def __init__(
        self,
        *,
        providers: Mapping[str, Any] | None = None,
        scenario: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        seed: int = 0,
        time_scale: float = 1.0,
        **config: Any,
    ) -> None:
        self._scenario = _rules(scenario)
        told = {"providers": providers or {}, "seed": seed, "time_scale": time_scale, **config}
        self._native = _omega.Emulator(_plain.dumps({**told, "scenario": self._scenario}))

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return self._native.url

    def base_url(self, provider: str) -> str:
        """What a client or SDK of this provider takes as base URL."""
        return self._native.base_url(provider)

    @property
    def base_urls(self) -> dict[str, str]:
        """The same by provider: what `UnifiedLLMClient` takes."""
        return {provider: self.base_url(provider) for provider in PROVIDERS}

    @property
    def environment(self) -> dict[str, str]:
        """Variables that send this process's clients here: the SDKs' base URLs, any keys, and OMEGA's own."""
        variables = {}
        for provider, (url, key) in _VARIABLES.items():
            variables[url] = variables[f"OMEGA_PROVIDERS_{provider.upper()}_BASE_URL"] = self.base_url(provider)
            variables[key] = "sk-emulated"
        return variables

    def client(self, **arguments: Any) -> UnifiedLLMClient:
        """A client that calls these providers.

        Args:
            **arguments: As `UnifiedLLMClient` takes them.
        """
        keys = dict.fromkeys(PROVIDERS, "sk-emulated")
        arguments.setdefault("api_keys", keys)
        arguments.setdefault("base_urls", self.base_urls)
        llm = UnifiedLLMClient(**arguments)
        # Whoever keeps the client alone keeps what it calls, too.
        llm._kept = self
        return llm

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Every request so far, in the order of arrival."""
        return self._native.requests()

    def clear_requests(self) -> None:
        """Forgets them."""
        self._native.clear_requests()

    def fail(self, fault: str, **conditions: Any) -> None:
        """Adds a rule, asked after those before it.

        Args:
            fault: A fault of the catalogue: see `faults`.
            **conditions: When: ``provider``, ``model``, ``stream``, ``first``, ``every``, ``from_s``, ``until_s``, …

        Raises:
            ValueError: There is no such fault or condition.
        """
        rules = [*self._scenario.get("rules", []), {"fault": fault, **conditions}]
        self.set_scenario({**self._scenario, "rules": rules})

    def set_scenario(self, scenario: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None) -> None:
        """Replaces what goes wrong. Its counts begin anew. ``None``: nothing goes wrong.

        Raises:
            ValueError: There is no such fault or condition.
        """
        rules = _rules(scenario)
        self._native.set_scenario(_plain.dumps(rules))
        self._scenario = rules

    def stop(self) -> None:
        """Ends every connection. A second time does nothing."""
        self._native.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _rules(scenario: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    if scenario is None:
        return {}
    if isinstance(scenario, Mapping):
        return dict(scenario)
    return {"rules": list(scenario)}
