"""The native part of `omega_resilience`. What is for users, the package exports; the rest is internal."""

from asyncio import Future
from collections.abc import Iterator
from typing import Any, final

from ._client import CircuitBreakerStats, Options, RateLimiterStats, ResilienceStats

__version__: str

@final
class ChatResult:
    """A whole answer. Behaves like the dictionary of OpenAI's chat completion, whichever provider gave it.

    ``result.text``, ``result["choices"][0]["message"]["content"]``, ``result.usage.total_tokens``, ``result.provider``.
    Any key of the dictionary is an attribute too. ``str(result)`` is the text.
    """

    @property
    def text(self) -> str:
        """The text of the first choice; empty if it has none."""
    @property
    def provider(self) -> str:
        """The provider that really served it."""
    @property
    def model(self) -> str:
        """The model that answered, as the provider names it."""
    @property
    def id(self) -> str:
        """The provider's id of the answer."""
    @property
    def created(self) -> int:
        """When it was made, in Unix seconds; 0 where the provider does not say."""
    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended: ``stop``, ``length``, ``tool_calls``, ``content_filter``, …"""
    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """What the first choice wants called, as dictionaries; empty if nothing."""
    @property
    def usage(self) -> Usage | None:
        """What it cost; ``None`` where the provider did not say."""
    @property
    def attempts(self) -> list[Attempt]:
        """Everything that was tried, in order; the last one is the answer."""
    @property
    def queued(self) -> float:
        """Seconds that the call waited for quota, over all attempts."""
    def _repr_markdown_(self) -> str: ...
    @staticmethod
    def _load(answer: str, provider: str, model: str, queued: float) -> ChatResult: ...
    def __reduce__(self) -> tuple[Any, tuple[str, str, str, float]]: ...
    def __copy__(self) -> ChatResult: ...
    def __deepcopy__(self, _memo: Any, /) -> ChatResult: ...
    # The mapping.
    def __getitem__(self, key: str, /) -> Any: ...
    def __contains__(self, key: object, /) -> bool: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str]: ...
    def __getattr__(self, name: str, /) -> Any: ...
    def get(self, key: str, default: Any = None, /) -> Any:
        """The value of a key, or the default."""
    def keys(self) -> Any:
        """The keys, as of a dictionary."""
    def values(self) -> Any:
        """The values, as of a dictionary."""
    def items(self) -> Any:
        """The items, as of a dictionary."""
    def to_dict(self) -> dict[str, Any]:
        """A dictionary of its own, all the way down."""
    def to_json(self) -> str:
        """The same as JSON text."""

@final
class ChatChunk:
    """A piece of a streamed answer. Behaves like the dictionary of OpenAI's chunk. ``str(chunk)`` is its text."""

    @property
    def text(self) -> str:
        """What is new of the first choice; empty if nothing."""
    @property
    def model(self) -> str:
        """The model that answers."""
    @property
    def id(self) -> str:
        """The provider's id of the answer."""
    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended, on its last chunk."""
    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """What is new of tool calls, as dictionaries."""
    @property
    def usage(self) -> Usage | None:
        """What the call cost; on the last chunks only."""
    # The mapping.
    def __getitem__(self, key: str, /) -> Any: ...
    def __contains__(self, key: object, /) -> bool: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str]: ...
    def __getattr__(self, name: str, /) -> Any: ...
    def get(self, key: str, default: Any = None, /) -> Any:
        """The value of a key, or the default."""
    def keys(self) -> Any:
        """The keys, as of a dictionary."""
    def values(self) -> Any:
        """The values, as of a dictionary."""
    def items(self) -> Any:
        """The items, as of a dictionary."""
    def to_dict(self) -> dict[str, Any]:
        """A dictionary of its own, all the way down."""
    def to_json(self) -> str:
        """The same as JSON text."""

@final
class Usage:
    """Tokens used, with one meaning for every provider. Behaves like OpenAI's dictionary."""

    @property
    def prompt_tokens(self) -> int:
        """Everything the model read, cached input included."""
    @property
    def completion_tokens(self) -> int:
        """Everything the model wrote, reasoning included."""
    @property
    def total_tokens(self) -> int:
        """The sum."""
    @property
    def cached_tokens(self) -> int:
        """The part of the prompt that came from the provider's cache."""
    @property
    def reasoning_tokens(self) -> int:
        """The part of the answer that was reasoning."""
    # The mapping.
    def __getitem__(self, key: str, /) -> Any: ...
    def __contains__(self, key: object, /) -> bool: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str]: ...
    def __getattr__(self, name: str, /) -> Any: ...
    def get(self, key: str, default: Any = None, /) -> Any:
        """The value of a key, or the default."""
    def keys(self) -> Any:
        """The keys, as of a dictionary."""
    def values(self) -> Any:
        """The values, as of a dictionary."""
    def items(self) -> Any:
        """The items, as of a dictionary."""
    def to_dict(self) -> dict[str, Any]:
        """A dictionary of its own, all the way down."""
    def to_json(self) -> str:
        """The same as JSON text."""

@final
class Attempt:
    """One thing that was tried."""

    @property
    def provider(self) -> str:
        """The provider."""
    @property
    def model(self) -> str:
        """The model asked for there."""
    @property
    def outcome(self) -> str:
        """``answered``, ``failed``, ``refused`` (OMEGA did not send it), ``cancelled`` or ``skipped``."""
    @property
    def message(self) -> str | None:
        """Why it was not answered, in words; ``None`` if it was."""
    @property
    def status_code(self) -> int | None:
        """The provider's HTTP status, where it failed with one."""
    @property
    def code(self) -> str | None:
        """The provider's error code, where it failed; OMEGA's own word where it refused."""
    @property
    def started(self) -> float:
        """Seconds after the call began."""
    @property
    def elapsed(self) -> float:
        """Seconds it took, waiting for quota included."""
    @property
    def queued(self) -> float:
        """Seconds of these that were waiting for quota."""

@final
class Queue:
    def __new__(cls) -> Queue: ...
    def fileno(self) -> int: ...
    def drain(self) -> None: ...
    def __len__(self) -> int: ...

@final
class Ticket:
    def cancel(self) -> None: ...

@final
class Client:
    def __new__(cls, arguments: dict[str, Any], listener: int | None) -> Client: ...
    def chat(
        self, queue: Queue, future: Future[Any], request: str, options: Options | None, stream: bool
    ) -> Ticket: ...
    def chat_here(self, request: str, options: Options | None, stream: bool) -> Any: ...
    def stats(self) -> ResilienceStats: ...
    def reset_circuit(self, provider: str) -> None: ...
    @property
    def preferred_model(self) -> str: ...
    def relay(self) -> Relay: ...

@final
class Stream:
    def take(self) -> Any: ...
    def wait(self, queue: Queue, future: Future[Any]) -> Ticket | None: ...
    def wait_here(self) -> None: ...
    def close(self) -> None: ...
    @property
    def provider(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def attempts(self) -> list[Attempt]: ...
    @property
    def queued(self) -> float: ...
    @property
    def usage(self) -> Usage | None: ...

@final
class Relay:
    def call(
        self,
        queue: Queue,
        future: Future[Any],
        method: str,
        target: str,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
    ) -> Ticket: ...
    def call_here(self, method: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes) -> RelayAnswer: ...

@final
class RelayAnswer:
    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> list[tuple[bytes, bytes]]: ...
    def take(self) -> Any: ...
    def wait(self, queue: Queue, future: Future[Any]) -> Ticket | None: ...
    def wait_here(self) -> None: ...
    def close(self) -> None: ...

@final
class Circuit:
    def __new__(
        cls,
        name: str,
        failure_threshold: int,
        success_threshold: int,
        timeout_seconds: float,
        half_open_max_calls: int,
        listener: int | None,
    ) -> Circuit: ...
    def enter(self) -> CircuitPass: ...
    def stats(self) -> CircuitBreakerStats: ...
    @property
    def state(self) -> str: ...
    def reset(self) -> None: ...

@final
class CircuitPass:
    def succeed(self) -> None: ...
    def fail(self) -> None: ...
    def cancel(self) -> None: ...

@final
class Gate:
    def __new__(
        cls,
        name: str,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        max_concurrent: int | None,
        listener: int | None,
    ) -> Gate: ...
    def enter(self, tokens: int, max_wait: float, urgency: str | None) -> GatePass | GatePlace: ...
    def enter_here(self, tokens: int, max_wait: float, urgency: str | None) -> GatePass: ...
    def stats(self) -> RateLimiterStats: ...

@final
class GatePlace:
    def wait(self, queue: Queue, future: Future[Any]) -> Ticket: ...

@final
class GatePass:
    def release(self, tokens: int | None = None) -> bool: ...

@final
class Backoff:
    def __new__(cls, base_delay: float, max_delay: float, exponential_base: float, jitter: str) -> Backoff: ...
    def delay(self, attempt: int, previous: float) -> float: ...

@final
class Emulator:
    def __new__(cls, config: str) -> Emulator: ...
    @property
    def url(self) -> str: ...
    def base_url(self, provider: str) -> str: ...
    def requests(self) -> list[dict[str, Any]]: ...
    def clear_requests(self) -> None: ...
    def set_scenario(self, scenario: str) -> None: ...
    def stop(self) -> None: ...

def faults() -> list[tuple[str, str]]: ...
def take_notes() -> tuple[list[tuple[int, str, str | None]], int]: ...
def told(count: int) -> None: ...
def wait_for_notes() -> bool: ...
def shutdown() -> None: ...
def after_fork() -> None: ...
