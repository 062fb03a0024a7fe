"""The policies by themselves."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import pytest
from conftest import eventually
from omega_resilience import Backoff, CircuitBreaker, CircuitBreakerError, RateLimiter, RateLimitExceededError, retrying


def fails() -> None:
    raise OSError("down")


async def fails_later() -> None:
    raise OSError("down")


def test_a_breaker_opens_tests_and_closes() -> None:
    heard: list[dict[str, Any]] = []
    breaker = CircuitBreaker(
        "search", failure_threshold=3, success_threshold=2, timeout_seconds=0.1, on_event=heard.append
    )
    assert breaker.call(lambda x, y=1: x + y, 1, y=2) == 3
    for _ in range(3):
        with pytest.raises(OSError, match="down"):
            breaker.call(fails)
    assert breaker.state == "open"
    with pytest.raises(CircuitBreakerError, match="circuit for search is open") as caught:
        breaker.call(fails)
    assert caught.value.retry_after == pytest.approx(0.1, abs=0.1)
    assert breaker.stats()["failure_count"] == 3
    assert breaker.stats()["last_failure_time"] is not None
    time.sleep(0.12)
    assert breaker.call(lambda: 7) == 7
    assert breaker.state == "half_open"
    assert breaker.call(lambda: 7) == 7
    assert breaker.state == "closed"
    for _ in range(100):
        if len(heard) == 3:
            break
        time.sleep(0.02)
    assert [(event["from"], event["to"]) for event in heard] == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ]
    assert all(event["type"] == "transition" and event["provider"] == "search" for event in heard)


async def test_a_breaker_in_all_its_forms() -> None:
    breaker = CircuitBreaker("forms", failure_threshold=4)

    @breaker
    async def decorated() -> int:
        raise OSError("down")

    @breaker
    def plain() -> int:
        """Says something."""
        raise OSError("down")

    assert plain.__doc__ == "Says something."
    with pytest.raises(OSError):
        await decorated()
    with pytest.raises(OSError):
        plain()
    with pytest.raises(OSError):
        await breaker.call(fails_later)
    assert breaker.stats()["failure_count"] == 3
    breaker.reset()
    for _ in range(3):
        with pytest.raises(OSError):
            await breaker.call(lambda: fails_later())
    assert breaker.stats()["failure_count"] == 3
    with pytest.raises(OSError):
        async with breaker:
            raise OSError("down")
    assert breaker.state == "open"
    with pytest.raises(CircuitBreakerError), breaker:
        raise AssertionError("it is not entered")
    breaker.reset()
    assert breaker.state == "closed"
    with breaker:
        pass
    assert repr(breaker) == "CircuitBreaker('forms', state='closed')"


async def test_what_counts_as_a_failure_is_said() -> None:
    breaker = CircuitBreaker(failure_threshold=1, failures=(OSError, TimeoutError))
    with pytest.raises(KeyError), breaker:
        raise KeyError("of the caller's own making")
    assert breaker.state == "closed"

    async def slow() -> None:
        await asyncio.sleep(60)

    task = asyncio.create_task(breaker.call(slow))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert breaker.state == "closed"
    with pytest.raises(OSError), breaker:
        raise OSError
    assert breaker.state == "open"


async def test_blocks_of_one_breaker_may_nest_and_run_side_by_side() -> None:
    breaker = CircuitBreaker(failure_threshold=2)

    async def one(fail: bool) -> None:
        async with breaker:
            await asyncio.sleep(0.01)
            if fail:
                raise OSError

    results = await asyncio.gather(one(False), one(True), one(False), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), OSError, type(None)]
    with breaker, breaker:
        pass
    assert breaker.state == "closed"


def test_a_half_open_circuit_lets_only_so_many_in() -> None:
    breaker = CircuitBreaker(failure_threshold=1, timeout_seconds=0.05, half_open_max_calls=2)
    with pytest.raises(OSError):
        breaker.call(fails)
    time.sleep(0.06)
    inside, let_go, refused = threading.Barrier(3), threading.Event(), []

    def probe() -> None:
        inside.wait()
        let_go.wait()

    threads = [threading.Thread(target=breaker.call, args=(probe,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait()
    with pytest.raises(CircuitBreakerError):
        breaker.call(fails)
    let_go.set()
    for thread in threads:
        thread.join()
    assert (breaker.state, refused) == ("closed", [])


@pytest.mark.parametrize(
    "wrong",
    [{"failure_threshold": 0}, {"success_threshold": 0}, {"half_open_max_calls": 0}, {"timeout_seconds": -1}],
)
def test_a_breaker_refuses_what_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CircuitBreaker(**wrong)


async def test_a_limiter_waits_and_refuses() -> None:
    heard: list[dict[str, Any]] = []
    limiter = RateLimiter("search", max_requests_per_minute=600, max_wait=5, on_event=heard.append)
    before = time.monotonic()
    for _ in range(602):
        async with limiter.acquire():
            pass
    # 600 at once, then one each tenth of a second.
    assert 0.1 < time.monotonic() - before < 2
    with pytest.raises(RateLimitExceededError) as caught:
        await limiter.acquire(max_wait=0)
    assert caught.value.retry_after == pytest.approx(0.1, abs=0.1)
    assert limiter.stats()["requests_last_minute"] >= 602
    assert limiter.stats()["max_requests_per_minute"] == 600
    await eventually(lambda: len(heard) > 0, "the limit was hit")
    assert heard[0]["type"] == "limit_hit"


async def test_a_limiter_counts_tokens() -> None:
    limiter = RateLimiter(max_tokens_per_minute=1_000)
    async with limiter.acquire(tokens=900) as permit:
        permit.release(tokens=100)
    async with limiter.acquire(tokens=800, max_wait=0):
        pass
    with pytest.raises(RateLimitExceededError):
        await limiter.acquire(tokens=500, max_wait=0)
    with pytest.raises(RateLimitExceededError, match="the limit is 1000; no wait helps") as caught:
        await limiter.acquire(tokens=1_001)
    assert caught.value.retry_after is None


async def test_acquire_and_release_as_the_specification_draws_them() -> None:
    limiter = RateLimiter(max_concurrent_requests=2)
    await limiter.acquire()
    permit = await limiter.acquire()
    with pytest.raises(RateLimitExceededError):
        await limiter.acquire(max_wait=0)

    async def wait() -> None:
        await limiter.acquire()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0.01)
    limiter.release()
    await waiting
    permit.release()
    permit.release()
    limiter.release()
    with pytest.raises(RuntimeError, match="release\\(\\) without acquire\\(\\)"):
        limiter.release()
    assert limiter.stats()["concurrent_requests"] == 0


def test_a_limiter_without_an_event_loop() -> None:
    limiter = RateLimiter(max_concurrent_requests=1)
    with limiter.acquire() as permit:
        assert limiter.stats()["concurrent_requests"] == 1
        with pytest.raises(RateLimitExceededError), limiter.acquire(max_wait=0.01):
            pass
        permit.release()
    limiter.acquire_sync()
    threading.Timer(0.1, limiter.release).start()
    with limiter.acquire(max_wait=5):
        pass
    assert limiter.stats()["concurrent_requests"] == 0


async def test_whoever_waits_can_be_cancelled() -> None:
    limiter = RateLimiter(max_concurrent_requests=1)
    async with limiter.acquire():

        async def wait() -> None:
            async with limiter.acquire(max_wait=60):
                pass

        tasks = [asyncio.create_task(wait()) for _ in range(20)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
    async with limiter.acquire(max_wait=1):
        pass
    assert limiter.stats()["concurrent_requests"] == 0


async def test_a_permit_that_is_dropped_goes_back() -> None:
    limiter = RateLimiter(max_concurrent_requests=1)
    acquisition = limiter.acquire()
    await acquisition.__aenter__()
    assert limiter.stats()["concurrent_requests"] == 1
    del acquisition
    gc.collect()
    assert limiter.stats()["concurrent_requests"] == 0


def test_fewer_than_no_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="tokens is 0 or more; -1 is not"):
        RateLimiter().acquire(tokens=-1)
    with pytest.raises(ValueError, match="tokens is 0 or more; -1 is not"):
        RateLimiter().acquire_sync(tokens=-1)


@pytest.mark.parametrize("wrong", ["max_requests_per_minute", "max_tokens_per_minute", "max_concurrent_requests"])
def test_a_limit_is_at_least_one(wrong: str) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        RateLimiter(**{wrong: 0})  # type: ignore[arg-type]


def test_backoff_follows_the_formula() -> None:
    exact = Backoff(jitter=False)
    assert [exact.delay(at) for at in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    spread = [Backoff().delay(2) for _ in range(200)]
    assert all(4 <= delay <= 8 for delay in spread)
    assert len(set(spread)) > 100
    assert all(0 <= Backoff(jitter="full").delay(3) <= 8 for _ in range(50))
    delays = Backoff(0.5, 3, 3, jitter=False).delays()
    assert [next(delays) for _ in range(4)] == [0.5, 1.5, 3, 3]
    assert repr(exact) == "Backoff(base_delay=1, max_delay=60, exponential_base=2, jitter='none')"
    for wrong in [{"exponential_base": 0.5}, {"base_delay": -1}, {"jitter": "wild"}, {"max_delay": float("nan")}]:
        with pytest.raises(ValueError):
            Backoff(**wrong)  # type: ignore[arg-type]


QUICK = Backoff(0.001, 0.002)


async def test_retrying() -> None:
    tries: list[int] = []
    told: list[tuple[str, int]] = []

    @retrying(attempts=3, on=OSError, backoff=QUICK, before_retry=lambda e, n, _: told.append((str(e), n)))
    async def works_at_last() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(f"{len(tries)}")
        return "done"

    assert await works_at_last() == "done"
    assert told == [("1", 1), ("2", 2)]

    @retrying(attempts=2, on=OSError, backoff=QUICK)
    def never_works() -> None:
        tries.append(1)
        raise OSError

    tries.clear()
    with pytest.raises(OSError):
        never_works()
    assert len(tries) == 2

    @retrying(attempts=5, on=OSError, backoff=QUICK)
    def other() -> None:
        tries.append(1)
        raise KeyError

    tries.clear()
    with pytest.raises(KeyError):
        other()
    assert len(tries) == 1
    with pytest.raises(ValueError):
        retrying(attempts=0)


async def test_retrying_stops_at_an_open_circuit_and_holds_no_permit_while_it_waits() -> None:
    breaker = CircuitBreaker(failure_threshold=2)
    limiter = RateLimiter(max_concurrent_requests=1)
    seen: list[int] = []

    def look(*_: object) -> None:
        seen.append(limiter.stats()["concurrent_requests"])

    @retrying(attempts=9, backoff=QUICK, breaker=breaker, limiter=limiter, tokens=3, before_retry=look)
    async def down() -> None:
        raise OSError

    with pytest.raises(CircuitBreakerError):
        await down()
    assert seen == [0, 0]


async def test_a_hint_is_waited_out() -> None:
    class Busy(Exception):
        retry_after = 0.05

    waits: list[float] = []

    @retrying(attempts=2, on=Busy, backoff=QUICK, before_retry=lambda _e, _n, wait: waits.append(wait))
    async def busy() -> None:
        raise Busy

    with pytest.raises(Busy):
        await busy()
    assert waits == [0.05]
