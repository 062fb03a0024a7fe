"""A program that uses everything, for the type checkers: nobody runs it."""

from __future__ import annotations

import dataclasses
from typing import Any

import httpx2
from omega_resilience import (
    Attempt,
    AuthenticationError,
    Backoff,
    ChatChunk,
    ChatResult,
    ChatStream,
    CircuitBreaker,
    CircuitBreakerError,
    DeadlineExceededError,
    InvalidRequestError,
    ProviderError,
    QuotaExceededError,
    RateLimiter,
    RateLimitExceededError,
    ResilienceStats,
    StreamBrokenError,
    SyncChatStream,
    UnifiedLLMClient,
    UnifiedLLMClientError,
    Usage,
    retrying,
)
from omega_resilience.httpx2_transport import AsyncOmegaTransport, OmegaTransport
from omega_resilience.testing import Emulator
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel


@dataclasses.dataclass
class Said:
    role: str
    content: str


class City(BaseModel):
    name: str


def hear(event: dict[str, Any]) -> None:
    print(event["type"])


async def calls() -> None:
    async with UnifiedLLMClient(
        preferred_model="gpt-5.2",
        openai_api_key="k",
        api_keys={"vllm": "k"},
        enable_circuit_breaker=True,
        enable_rate_limiting=True,
        max_retries=3,
        fallbacks=["claude-opus-5-5"],
        timeout=30,
        base_urls={"openai": "http://localhost/v1"},
        providers={"vllm": {"base_url": "http://localhost:8000/v1"}},
        config={"circuit_breaker": {"failure_threshold": 3}},
        state="memory",
        settings={"backoff.base_delay": 0.5},
        tenant_weights={"a": 2},
        on_event=hear,
    ) as llm:
        result: ChatResult = await llm.chat([Said("user", "hi")], response_format=City, priority="high", tenant="a")
        text: str = result.text
        usage: Usage | None = result.usage
        first: Attempt = result.attempts[0]
        print(text, usage and usage.total_tokens, first.outcome, result["choices"], result.get("id"), len(result))
        stream: ChatStream = await llm.chat("hi", stream=True, top_p=0.5)
        async for chunk in stream:
            piece: ChatChunk = chunk
            print(piece.text, piece["choices"])
        sync: SyncChatStream = llm.chat_sync("hi", stream=True)
        for each in sync:
            print(each.finish_reason)
        whole: ChatResult = llm.chat_sync("hi", timeout=3, max_wait=0)
        stats: ResilienceStats = llm.get_resilience_stats()
        print(whole, stats["circuit_breakers"]["openai"]["state"])
        llm.reset_circuit("openai")
        AsyncOpenAI(http_client=httpx2.AsyncClient(transport=AsyncOmegaTransport(llm)))
        OpenAI(http_client=httpx2.Client(transport=OmegaTransport(llm)))


async def errors(llm: UnifiedLLMClient) -> float | None:
    try:
        await llm.chat("hi")
    except (CircuitBreakerError, RateLimitExceededError) as error:
        return error.retry_after
    except (QuotaExceededError, AuthenticationError, InvalidRequestError, StreamBrokenError) as error:
        print(error.code, error.status_code, error.provider)
    except (ProviderError, DeadlineExceededError) as error:
        print(error.attempts)
    except UnifiedLLMClientError as error:
        print(error)
    return None


breaker = CircuitBreaker("search", failure_threshold=3, failures=(OSError,), on_event=hear)
limiter = RateLimiter("search", max_requests_per_minute=60, max_tokens_per_minute=9_000, max_concurrent_requests=3)


@breaker
async def search(query: str, *, limit: int = 3) -> list[str]:
    return [query] * limit


@retrying(attempts=4, on=(OSError, TimeoutError), backoff=Backoff(0.5, jitter="full"), breaker=breaker, limiter=limiter)
def fetch(url: str) -> bytes:
    return url.encode()


async def policies() -> None:
    found: list[str] = await search("x", limit=2)
    body: bytes = fetch("http://localhost")
    length: int = breaker.call(len, "abc")
    async with limiter.acquire(tokens=100) as permit:
        permit.release(tokens=80)
    permit = await limiter.acquire()
    limiter.release()
    with breaker, limiter.acquire():
        pass
    print(found, body, length, breaker.state, breaker.stats()["failure_count"], limiter.stats()["concurrent_requests"])


def tests() -> None:
    with Emulator(providers={"openai": {"quota": {"rpm": 60}}}) as emulator:
        emulator.fail("server-error", first=2)
        print(emulator.client(max_retries=1).chat_sync("hi").text, emulator.requests)
