"""The policies by themselves: for code that calls no language model, or calls one in its own way."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast

from . import _bridge, _notes, _omega

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._client import CircuitBreakerStats, Priority, RateLimiterStats

__all__ = ["Backoff", "CircuitBreaker", "Permit", "RateLimiter", "retrying"]

P = ParamSpec("P")
T = TypeVar("T")
Failures = type[BaseException] | tuple[type[BaseException], ...]
Jitter = Literal["proportional", "full", "equal", "decorrelated", "none"]

HINT_MAX = 300.0
"""Seconds. The longest wait that an exception's ``retry_after`` can impose, as for a provider's hint."""


class CircuitBreaker:
    """Leaves alone what is down: after a run of failures it refuses at once, then lets a few calls test recovery.

    ::

        breaker = CircuitBreaker("search", failure_threshold=3)

        @breaker
        async def search(query): ...

        breaker.call(fetch, url)
        with breaker: ...          # `async with` as well

    Args:
        name: For messages, log lines and statistics.
        failure_threshold: Consecutive failures before it opens. 1 or more.
        success_threshold: Successes of test calls before it closes. 1 or more.
        timeout_seconds: Seconds before recovery is tested.
        half_open_max_calls: Test calls in flight at once. 1 or more.
        failures: The exceptions that count as failures. Others say nothing about what is protected, nor does a
            cancelled task.
        on_event: Called with a dictionary for each change of state.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        name: str = "default",
        *,
        failure_threshold: int = 5,
        success_threshold: int = 2,
        timeout_seconds: float = 60.0,
        half_open_max_calls: int = 3,
        failures: Failures = Exception,
        on_event: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        self.name = name
        self.failures = failures
        listener = _notes.listen(self, on_event)
        self._circuit = _omega.Circuit(
            name, failure_threshold, success_threshold, timeout_seconds, half_open_max_calls, listener
        )

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half_open``."""
        return self._circuit.state

    def stats(self) -> CircuitBreakerStats:
        """The specification's dictionary."""
        return self._circuit.stats()

    def reset(self) -> None:
        """Closes it by hand and forgets its failures."""
        self._circuit.reset()

    def call(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a function through the circuit. What an ``async`` function returns is to be awaited, as ever.

        Raises:
            CircuitBreakerError: The circuit is open; the function was not called.
        """
        if inspect.iscoroutinefunction(func):
            return cast(T, self._awaited(func, *args, **kwargs))
        trial = self._circuit.enter()
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            self._settle(trial, error)
            raise
        if inspect.isawaitable(result):
            # A lambda around an `async` function, for instance: how it went is not known yet.
            return cast(T, self._finish(trial, result))
        trial.succeed()
        return result

    async def _awaited(self, func: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        return await self._finish(self._circuit.enter(), func(*args, **kwargs))

    async def _finish(self, trial: _omega.CircuitPass, result: Awaitable[T]) -> T:
        try:
            done = await result
        except BaseException as error:
            self._settle(trial, error)
            raise
        trial.succeed()
        return done

    def __call__(self, func: Callable[P, T]) -> Callable[P, T]:
        """Protects a function, plain or ``async``: for ``@breaker``."""
        if inspect.iscoroutinefunction(func):

            @functools.wraps(func)
            async def protected(*args: P.args, **kwargs: P.kwargs) -> Any:
                return await self._awaited(func, *args, **kwargs)

            return cast("Callable[P, T]", protected)

        @functools.wraps(func)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            return self.call(func, *args, **kwargs)

        return guarded

    def _settle(self, trial: _omega.CircuitPass, error: BaseException | None) -> None:
        if error is None:
            trial.succeed()
        elif isinstance(error, self.failures) and not isinstance(error, asyncio.CancelledError):
            trial.fail()
        else:
            trial.cancel()

    def __enter__(self) -> Self:
        _entered.set((*_entered.get(), self._circuit.enter()))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        *outer, trial = _entered.get()
        _entered.set(tuple(outer))
        self._settle(trial, error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"CircuitBreaker({self.name!r}, state={self.state!r})"


# What `with breaker:` has entered in this task or thread: blocks end in the opposite order in which they begin.
_entered: ContextVar[tuple[_omega.CircuitPass, ...]] = ContextVar("omega_resilience_entered", default=())


class Permit:
    """The right to one call, from `RateLimiter.acquire`. Dropped without `release`, it is given back."""

    __slots__ = ("_limiter", "_pass")

    def __init__(self, limiter: RateLimiter, native: _omega.GatePass) -> None:
        self._limiter = limiter
        self._pass = native

    def release(self, tokens: int | None = None) -> None:
        """The call ended. A second time does nothing.

        Args:
            tokens: What it really used; ``None``: as much as was acquired.
        """
        self._limiter._held.pop(self._pass, None)
        self._pass.release(tokens)


class _Acquisition:
    """What `RateLimiter.acquire` returns: to be awaited, or entered with ``with`` or ``async with``."""

    __slots__ = ("_limiter", "_permit", "_terms")

    def __init__(self, limiter: RateLimiter, terms: tuple[int, float, str | None]) -> None:
        self._limiter = limiter
        self._terms = terms
        self._permit: Permit | None = None

    async def _wait(self) -> Permit:
        entered = self._limiter._gate.enter(*self._terms)
        if isinstance(entered, _omega.GatePlace):
            loop, queue = _bridge.here()
            future: asyncio.Future[_omega.GatePass] = loop.create_future()
            ticket = entered.wait(queue, future)
            try:
                entered = await future
            except BaseException:
                ticket.cancel()
                raise
        return Permit(self._limiter, entered)

    async def _hold(self) -> Permit:
        permit = await self._wait()
        self._limiter._held[permit._pass] = permit
        return permit

    def __await__(self) -> Generator[Any, None, Permit]:
        return self._hold().__await__()

    async def __aenter__(self) -> Permit:
        self._permit = await self._wait()
        return self._permit

    async def __aexit__(self, *_: object) -> None:
        assert self._permit is not None
        self._permit.release()

    def __enter__(self) -> Permit:
        self._permit = Permit(self._limiter, self._limiter._gate.enter_here(*self._terms))
        return self._permit

    def __exit__(self, *_: object) -> None:
        assert self._permit is not None
        self._permit.release()


class RateLimiter:
    """A token bucket for requests and tokens per minute, and a bound on calls in flight. Who comes too soon waits.

    ::

        limiter = RateLimiter("search", max_requests_per_minute=60, max_tokens_per_minute=90_000)

        async with limiter.acquire(tokens=500) as permit:
            ...
            permit.release(tokens=420)     # what it really used; optional

        await limiter.acquire()            # or in two steps
        limiter.release()

    Args:
        name: For messages and log lines.
        max_requests_per_minute: ``None``: any number.
        max_tokens_per_minute: ``None``: any number.
        max_concurrent_requests: ``None``: any number.
        max_wait: Seconds that a call may wait for its turn. Default 30, as of the client's ``max_wait_seconds``.
        on_event: Called with a dictionary when an episode of limiting begins and ends.

    Raises:
        ValueError: A limit is 0.
    """

    def __init__(
        self,
        name: str = "default",
        *,
        max_requests_per_minute: int | None = None,
        max_tokens_per_minute: int | None = None,
        max_concurrent_requests: int | None = None,
        max_wait: float = 30.0,
        on_event: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        self.name = name
        self.max_wait = max_wait
        self._held: dict[_omega.GatePass, Permit] = {}
        listener = _notes.listen(self, on_event)
        self._gate = _omega.Gate(
            name, max_requests_per_minute, max_tokens_per_minute, max_concurrent_requests, listener
        )

    def acquire(
        self, tokens: int = 0, *, max_wait: float | None = None, priority: Priority | None = None
    ) -> _Acquisition:
        """Waits for a turn: ``await`` it, or enter it with ``async with`` or ``with``.

        Args:
            tokens: What the call will use, as far as is known.
            max_wait: Seconds it may wait; 0: not at all; ``math.inf``: as long as it takes. Default: the limiter's.
            priority: Who goes first while several wait. Default ``normal``.

        Raises:
            RateLimitExceededError: Its turn would come too late, or never; ``retry_after`` says when. Raised at once.
        """
        if tokens < 0:
            raise ValueError(f"tokens is 0 or more; {tokens} is not")
        return _Acquisition(self, (tokens, self.max_wait if max_wait is None else max_wait, priority))

    def acquire_sync(
        self, tokens: int = 0, *, max_wait: float | None = None, priority: Priority | None = None
    ) -> Permit:
        """The same, waited for here. See `acquire`."""
        permit = self.acquire(tokens, max_wait=max_wait, priority=priority).__enter__()
        self._held[permit._pass] = permit
        return permit

    def release(self, tokens: int | None = None) -> None:
        """Gives back the permit that was acquired first of those still held.

        Args:
            tokens: What the call really used; ``None``: as much as was acquired.

        Raises:
            RuntimeError: None is held.
        """
        first = next(iter(self._held.values()), None)
        if first is None:
            raise RuntimeError("release() without acquire()")
        first.release(tokens)

    def stats(self) -> RateLimiterStats:
        """The specification's dictionary."""
        return self._gate.stats()

    def __repr__(self) -> str:
        return f"RateLimiter({self.name!r})"


class Backoff:
    """``min(base_delay * exponential_base ** attempt + jitter, max_delay)``, in seconds.

    Args:
        base_delay: The first delay.
        max_delay: The longest.
        exponential_base: The factor per retry. 1.0 to 10.0.
        jitter: ``True`` (``"proportional"``, up to twice the delay), ``"full"``, ``"equal"``, ``"decorrelated"``, or
            ``False`` (``"none"``).

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        base_delay: float = 1.0,
        max_delay: float = 60.0,
        exponential_base: float = 2.0,
        jitter: bool | Jitter = True,
    ) -> None:
        name = jitter if isinstance(jitter, str) else ("proportional" if jitter else "none")
        self._backoff = _omega.Backoff(base_delay, max_delay, exponential_base, name)

    def __repr__(self) -> str:
        return repr(self._backoff)

    def delay(self, attempt: int, previous: float = 0.0) -> float:
        """Seconds before a retry.

        Args:
            attempt: Which retry, counted from 0.
            previous: The delay before this one; for ``"decorrelated"``.
        """
        return self._backoff.delay(attempt, previous)

    def delays(self) -> Iterator[float]:
        """One after the other, without end."""
        attempt, delay = 0, 0.0
        while True:
            delay = self.delay(attempt, delay)
            yield delay
            attempt += 1


def retrying(
    *,
    attempts: int = 3,
    on: Failures = Exception,
    backoff: Backoff | None = None,
    breaker: CircuitBreaker | None = None,
    limiter: RateLimiter | None = None,
    tokens: int = 0,
    before_retry: Callable[[BaseException, int, float], object] | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Protects a function, plain or ``async``: a turn at the limiter, the circuit, and another try after a wait.

    ::

        @retrying(attempts=4, on=(OSError, TimeoutError), breaker=CircuitBreaker("search"))
        async def search(query): ...

    An exception with a number as ``retry_after`` is waited out for at least that long (300 s at most). An open circuit
    and a limit that cannot be met in time are not tried again.

    Args:
        attempts: Tries in all. 1 or more.
        on: The exceptions after which it is tried again.
        backoff: The waits. Default ``Backoff()``.
        breaker: Asked before each try, and told how it went.
        limiter: Waited for before each try.
        tokens: What each try acquires there.
        before_retry: Called with the exception, the number of the try that failed (from 1) and the seconds to wait.

    Raises:
        ValueError: ``attempts`` is less than 1.
    """
    if attempts < 1:
        raise ValueError("attempts is at least 1: it counts the first try")
    waits = backoff or Backoff()

    def next_wait(error: BaseException, attempt: int, previous: float) -> float:
        from ._errors import CircuitBreakerError, RateLimitExceededError

        own = isinstance(error, (CircuitBreakerError, RateLimitExceededError)) and error.origin == "local"
        if attempt == attempts or own:
            raise error
        hint = getattr(error, "retry_after", None)
        wait = waits.delay(attempt - 1, previous)
        if isinstance(hint, (int, float)) and hint > 0:
            wait = max(wait, min(float(hint), HINT_MAX))
        if before_retry is not None:
            before_retry(error, attempt, wait)
        return wait

    def decorate(func: Callable[P, T]) -> Callable[P, T]:
        tried = breaker(func) if breaker is not None else func
        if inspect.iscoroutinefunction(func):

            @functools.wraps(func)
            async def patient(*args: P.args, **kwargs: P.kwargs) -> Any:
                wait = 0.0
                for attempt in range(1, attempts + 1):
                    try:
                        if limiter is None:
                            return await cast(Any, tried(*args, **kwargs))
                        async with limiter.acquire(tokens):
                            return await cast(Any, tried(*args, **kwargs))
                    except on as error:
                        wait = next_wait(error, attempt, wait)
                    await asyncio.sleep(wait)

            return cast("Callable[P, T]", patient)

        @functools.wraps(func)
        def persistent(*args: P.args, **kwargs: P.kwargs) -> Any:
            wait = 0.0
            for attempt in range(1, attempts + 1):
                try:
                    if limiter is None:
                        return tried(*args, **kwargs)
                    with limiter.acquire(tokens):
                        return tried(*args, **kwargs)
                except on as error:
                    wait = next_wait(error, attempt, wait)
                time.sleep(wait)

        return persistent

    return decorate
