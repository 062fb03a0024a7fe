"""The client that people use."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast, overload

from . import _bridge, _notes, _omega, _plain

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._omega import Attempt, ChatChunk, ChatResult, Usage

__all__ = ["ChatStream", "Priority", "ResilienceStats", "SyncChatStream", "UnifiedLLMClient"]

Priority = Literal["low", "normal", "high"]
"""How urgent a call is."""

Options = tuple[list[str] | None, float | None, float | None, int | None, str | None, str | None]
"""What holds for one call: fallbacks, timeout, max_wait, max_attempts, priority, tenant."""


class CircuitBreakerStats(TypedDict):
    """One circuit breaker: the specification's keys."""

    name: str
    """The provider."""
    state: str
    """``closed``, ``open`` or ``half_open``."""
    failure_count: int
    """Consecutive failures, or those that opened it."""
    success_count: int
    """Successful probes while half-open."""
    last_failure_time: str | None
    """The last failure that counted, in RFC 3339."""


class RateLimiterStats(TypedDict):
    """One rate limiter: the specification's keys."""

    requests_last_minute: int
    """Requests sent in the last sixty one-second slots."""
    tokens_last_minute: int
    """Tokens of the same."""
    concurrent_requests: int
    """Calls in flight."""
    max_requests_per_minute: int | None
    """``None`` is unlimited."""
    max_tokens_per_minute: int | None
    """``None`` is unlimited."""


class ResilienceStats(TypedDict):
    """How every provider is doing, by its name."""

    circuit_breakers: dict[str, CircuitBreakerStats]
    """The circuits."""
    rate_limiters: dict[str, RateLimiterStats]
    """The limiters."""
    details: dict[str, Any]
    """What the specification does not name: ``calls``, ``providers``, ``pool``."""


class _StreamFacts:
    """What a stream knows of itself."""

    __slots__ = ("_native",)

    def __init__(self, native: _omega.Stream) -> None:
        self._native = native

    @property
    def provider(self) -> str:
        """The provider that serves it."""
        return self._native.provider

    @property
    def model(self) -> str:
        """The model asked for there."""
        return self._native.model

    @property
    def attempts(self) -> list[Attempt]:
        """Everything that was tried, in order; the last one is this stream."""
        return self._native.attempts

    @property
    def queued(self) -> float:
        """Seconds that the call waited for quota before it began."""
        return self._native.queued

    @property
    def usage(self) -> Usage | None:
        """What it cost: known once the provider has said so, which is at the end."""
        return self._native.usage

    def __repr__(self) -> str:
        return f"{type(self).__name__}(provider={self.provider!r}, model={self.model!r})"


class ChatStream(_StreamFacts):
    """A chat answer as it is written, for ``async for``.

    Its first content has come already: whatever failed before it was retried or failed over unseen. A stream that is
    cut never just ends: the last step raises `StreamBrokenError`. Leaving the loop, `aclose` or dropping it cancels
    the call.
    """

    __slots__ = ()

    def __aiter__(self) -> AsyncIterator[ChatChunk]:
        return self

    async def __anext__(self) -> ChatChunk:
        while True:
            chunk = self._native.take()
            if chunk is None:
                await _bridge.until_ready(self._native)
            elif chunk is False:
                raise StopAsyncIteration
            else:
                return cast("ChatChunk", chunk)

    async def text(self) -> str:
        """Reads it to its end: the text that is still to come."""
        return "".join([chunk.text async for chunk in self])

    async def aclose(self) -> None:
        """Cancels the call, if it has not ended."""
        self._native.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._native.close()


class SyncChatStream(_StreamFacts):
    """A chat answer as it is written, for ``for``. See `ChatStream`."""

    __slots__ = ()

    def __iter__(self) -> Iterator[ChatChunk]:
        return self

    def __next__(self) -> ChatChunk:
        while True:
            chunk = self._native.take()
            if chunk is None:
                self._native.wait_here()
            elif chunk is False:
                raise StopIteration
            else:
                return cast("ChatChunk", chunk)

    def text(self) -> str:
        """Reads it to its end: the text that is still to come."""
        return "".join([chunk.text for chunk in self])

    def close(self) -> None:
        """Cancels the call, if it has not ended."""
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._native.close()


# Clients of the process that this one is a fork of: never used, and never freed, for their locks may be held.
_forgotten: list[_omega.Client] = []


class UnifiedLLMClient:
    """Calls OpenAI, Anthropic, Google and xAI inside their quotas and through their failures.

    A rate limiter waits its turn instead of drawing 429s, a circuit breaker leaves a provider alone while it is down,
    retries back off, fallbacks take over, one deadline bounds it all. Everything is on unless it is switched off.

    Arguments that are not given are unset: the environment (``OMEGA_*``) counts, then ``config/resilience.yaml``, then
    the defaults. One client holds one set of limits; use it from any number of tasks, threads and event loops.

    Args:
        preferred_model: The model of calls that name none. Default ``gpt-5.2``.
        openai_api_key: Default: ``OPENAI_API_KEY``.
        anthropic_api_key: Default: ``ANTHROPIC_API_KEY``.
        google_api_key: Default: ``GEMINI_API_KEY`` or ``GOOGLE_API_KEY``.
        grok_api_key: Default: ``XAI_API_KEY`` or ``GROK_API_KEY``.
        xai_api_key: The same as ``grok_api_key``.
        api_keys: Keys by the name of the provider, for others than these.
        enable_circuit_breaker: Default ``True``.
        enable_rate_limiting: Default ``True``.
        max_retries: Attempts at each target, the first included; 1 means no retry. Default 3.
        fallbacks: Models to turn to, in order, when a call cannot be served. Default none.
        timeout: Seconds a call may take in all: queueing, sleeping, calling. Default 600.
        base_urls: Where a provider is, by its name, as its SDK takes it.
        providers: Providers of one's own and settings of known ones, as ``providers`` in the configuration file:
            ``{"vllm": {"base_url": "http://localhost:8000/v1", "models": ["qwen*"]}}``.
        config: A configuration file's path, or its contents as a dictionary. Default: what ``OMEGA_CONFIG`` names, else
            ``config/resilience.yaml`` if it is there.
        state: Where limits and circuits live: ``memory`` (this process), ``sqlite:///path`` or ``redis://host:6379``
            (everybody who names the same). Default ``memory``.
        settings: Any other setting by its path in the file: ``{"circuit_breaker.timeout_seconds": 5}``.
        tenant_weights: The parts of the quota that tenants get while calls wait, relative to 1.
        on_event: Called with a dictionary for each change of a circuit, limit hit, pause, retry, hedge and failover; on
            an event loop's thread or one of OMEGA's. It should return quickly.

    Raises:
        ConfigurationError: Something in the configuration cannot be used; the text says what and where.
    """

    def __init__(
        self,
        *,
        preferred_model: str | None = None,
        openai_api_key: str | None = None,
        anthropic_api_key: str | None = None,
        google_api_key: str | None = None,
        grok_api_key: str | None = None,
        xai_api_key: str | None = None,
        api_keys: Mapping[str, str] | None = None,
        enable_circuit_breaker: bool | None = None,
        enable_rate_limiting: bool | None = None,
        max_retries: int | None = None,
        fallbacks: Iterable[str] | None = None,
        timeout: float | None = None,
        base_urls: Mapping[str, str] | None = None,
        providers: Mapping[str, Any] | None = None,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        state: str | None = None,
        settings: Mapping[str, Any] | None = None,
        tenant_weights: Mapping[str, int] | None = None,
        on_event: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        _must_be("preferred_model", preferred_model, str, "a model's name")
        _must_be("enable_circuit_breaker", enable_circuit_breaker, bool, "True or False")
        _must_be("enable_rate_limiting", enable_rate_limiting, bool, "True or False")
        _must_be("max_retries", max_retries, int, "a whole number")
        _must_be("timeout", timeout, (int, float), "a number of seconds")
        _must_be("config", config, (str, os.PathLike, Mapping), "a file's path or a dictionary")
        _must_be("state", state, str, "an address such as 'memory'")
        for name, mapping in {
            "api_keys": api_keys,
            "base_urls": base_urls,
            "providers": providers,
            "settings": settings,
            "tenant_weights": tenant_weights,
        }.items():
            _must_be(name, mapping, Mapping, "a dictionary by name")
        keys = dict(api_keys or {})
        named = {
            "openai": openai_api_key,
            "anthropic": anthropic_api_key,
            "google": google_api_key,
            "grok": grok_api_key if grok_api_key is not None else xai_api_key,
        }
        keys.update((provider, key) for provider, key in named.items() if key is not None)
        for provider, key in keys.items():
            _must_be(f"the key of {provider}", key, str, "text")
        for provider, url in (base_urls or {}).items():
            _must_be(f"the base URL of {provider}", url, str, "text")
        paths = {path: _setting(value) for path, value in (settings or {}).items()}
        if state is not None:
            paths["state"] = state
        is_text = isinstance(config, Mapping)
        self._arguments: dict[str, Any] = {
            "preferred_model": preferred_model,
            "api_keys": list(keys.items()),
            "enable_circuit_breaker": enable_circuit_breaker,
            "enable_rate_limiting": enable_rate_limiting,
            "max_retries": max_retries,
            "fallbacks": None if fallbacks is None else _names("fallbacks", fallbacks),
            "timeout": timeout,
            "base_urls": list((base_urls or {}).items()),
            "config_file": None if is_text else config,
            "config_text": _plain.dumps(config) if is_text else None,
            "parts": [("providers", _plain.dumps({"providers": providers}))] if providers else [],
            "settings": list(paths.items()),
            "tenant_weights": list((tenant_weights or {}).items()),
        }
        self._listener = _notes.listen(self, on_event)
        self._native: _omega.Client | None = _omega.Client(self._arguments, self._listener)
        self._relay: _omega.Relay | None = None
        self._kept: object = None
        self._generation = _bridge.generation()

    def _client(self) -> _omega.Client:
        native = self._native
        if native is None:
            raise RuntimeError("this client has been closed")
        if self._generation != _bridge.generation():
            # This process is a fork: connections, locks and the thread are the parent's.
            _forgotten.append(native)
            _notes.start()
            native = self._native = _omega.Client(self._arguments, self._listener)
            self._relay, self._generation = None, _bridge.generation()
        return native

    def _in_process(self) -> _omega.Relay:
        native = self._client()
        if self._relay is None:
            self._relay = native.relay()
        return self._relay

    @overload
    async def chat(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        tools: Sequence[Any] | None = None,
        response_format: Any = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        stream: Literal[False] = False,
        fallbacks: Iterable[str] | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
        tenant: str | None = None,
        max_wait: float | None = None,
        max_attempts: int | None = None,
        **extra: Any,
    ) -> ChatResult: ...

    @overload
    async def chat(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        tools: Sequence[Any] | None = None,
        response_format: Any = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        stream: Literal[True],
        fallbacks: Iterable[str] | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
        tenant: str | None = None,
        max_wait: float | None = None,
        max_attempts: int | None = None,
        **extra: Any,
    ) -> ChatStream: ...

    async def chat(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        tools: Sequence[Any] | None = None,
        response_format: Any = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        stream: bool = False,
        fallbacks: Iterable[str] | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
        tenant: str | None = None,
        max_wait: float | None = None,
        max_attempts: int | None = None,
        **extra: Any,
    ) -> ChatResult | ChatStream:
        """Asks for an answer.

        Cancelling the task drops the call at once, wherever it is, and gives back what it held.

        Args:
            messages: The conversation: dictionaries as OpenAI's, pydantic models or dataclasses. A string is one
                message of the user's.
            model: The model; ``provider/model`` names the provider too. Default: the preferred one.
            tools: What the model may call, as OpenAI describes functions.
            response_format: The form of the answer, as OpenAI's, or a pydantic model class.
            temperature: 0 to 2.
            max_tokens: The longest answer, in tokens. 1 or more.
            stream: Return a `ChatStream`, once its content has begun, in place of a `ChatResult`.
            fallbacks: Models to turn to, in order, in place of the configured ones. Empty: none.
            timeout: Seconds the call may take in all; ``math.inf``: any number.
            priority: While calls wait for quota, those of a higher priority go first. Default ``normal``.
            tenant: Whose it is. While calls wait for quota, tenants are served in equal parts.
            max_wait: Seconds its first admission may take. 0: never wait for quota.
            max_attempts: Attempts at each target; it can only lower ``max_retries``.
            **extra: Any other field of a chat request (``top_p``, ``stop``, ``seed``, ``tool_choice``,
                ``reasoning_effort``, …), and fields of the provider's own.

        Raises:
            UnifiedLLMClientError: There is no answer; its subclass says what can be done.
            ValueError: An argument cannot be used.
            TypeError: A message cannot be sent.
        """
        fields = {
            "tools": tools,
            "response_format": response_format,
            "temperature": temperature,
            "max_tokens": max_tokens,
            **extra,
        }
        request = _plain.request(messages, model, fields)
        options = _options(fallbacks, timeout, max_wait, max_attempts, priority, tenant)
        native = self._client()
        loop, queue = _bridge.here()
        future = loop.create_future()
        ticket = native.chat(queue, future, request, options, stream)
        try:
            result = await future
        except BaseException:
            ticket.cancel()
            raise
        return ChatStream(result) if stream else result

    @overload
    def chat_sync(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        tools: Sequence[Any] | None = None,
        response_format: Any = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        stream: Literal[False] = False,
        fallbacks: Iterable[str] | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
        tenant: str | None = None,
        max_wait: float | None = None,
        max_attempts: int | None = None,
        **extra: Any,
    ) -> ChatResult: ...

    @overload
    def chat_sync(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        tools: Sequence[Any] | None = None,
        response_format: Any = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        stream: Literal[True],
        fallbacks: Iterable[str] | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
        tenant: str | None = None,
        max_wait: float | None = None,
        max_attempts: int | None = None,
        **extra: Any,
    ) -> SyncChatStream: ...

    def chat_sync(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        tools: Sequence[Any] | None = None,
        response_format: Any = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        stream: bool = False,
        fallbacks: Iterable[str] | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
        tenant: str | None = None,
        max_wait: float | None = None,
        max_attempts: int | None = None,
        **extra: Any,
    ) -> ChatResult | SyncChatStream:
        """The same for scripts, threads and notebooks: waits here. Ctrl-C ends it. See `chat`."""
        fields = {
            "tools": tools,
            "response_format": response_format,
            "temperature": temperature,
            "max_tokens": max_tokens,
            **extra,
        }
        request = _plain.request(messages, model, fields)
        options = _options(fallbacks, timeout, max_wait, max_attempts, priority, tenant)
        result = self._client().chat_here(request, options, stream)
        return SyncChatStream(result) if stream else result

    def get_resilience_stats(self) -> ResilienceStats:
        """How every provider is doing. The four built-in providers are always there."""
        return self._client().stats()

    def reset_circuit(self, provider: str) -> None:
        """Closes a provider's circuit by hand and forgets its failures.

        Raises:
            ValueError: No provider has that name.
        """
        self._client().reset_circuit(provider)

    @property
    def preferred_model(self) -> str:
        """The model of calls that name none."""
        return self._client().preferred_model

    async def close(self) -> None:
        """Lets go of the connections. Calls that run go on; new ones are refused."""
        self.close_sync()

    def close_sync(self) -> None:
        """The same without an event loop."""
        self._native = self._relay = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close_sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close_sync()

    def __repr__(self) -> str:
        native = self._native
        if native is None:
            return "UnifiedLLMClient(closed)"
        return f"UnifiedLLMClient(preferred_model={native.preferred_model!r})"


_NO_OPTIONS: Options = (None, None, None, None, None, None)


def _options(
    fallbacks: Iterable[str] | None,
    timeout: float | None,
    max_wait: float | None,
    max_attempts: int | None,
    priority: str | None,
    tenant: str | None,
) -> Options | None:
    models = None if fallbacks is None else _names("fallbacks", fallbacks)
    options = (models, timeout, max_wait, max_attempts, priority, tenant)
    return None if options == _NO_OPTIONS else options


def _names(argument: str, names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise TypeError(f"{argument} is a list of models, not one string")
    listed = list(names)
    for name in listed:
        _must_be(f"each of {argument}", name, str, "a model's name")
    return listed


def _must_be(name: str, value: object, kind: type | tuple[type, ...], words: str) -> None:
    """Refuses what is given and of another type. What it is, is not shown: it may be a secret."""
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} is {words}, not of the type {type(value).__name__}")


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)
