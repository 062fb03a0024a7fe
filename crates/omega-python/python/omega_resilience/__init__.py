"""OMEGA: calls to language models that stay inside their quotas and alive through their failures.

::

    from omega_resilience import UnifiedLLMClient

    llm = UnifiedLLMClient(fallbacks=["claude-opus-5-5"])
    result = await llm.chat(messages=[{"role": "user", "content": "Hello!"}])
    print(result.text, result.provider, result.usage.total_tokens)

Keys come from the environment (``OPENAI_API_KEY``, …), settings from ``config/resilience.yaml``.
"""

from ._client import ChatStream, Priority, ResilienceStats, SyncChatStream, UnifiedLLMClient
from ._errors import (
    AuthenticationError,
    CircuitBreakerError,
    ConfigurationError,
    DeadlineExceededError,
    InvalidRequestError,
    ProviderError,
    QuotaExceededError,
    RateLimitExceededError,
    StreamBrokenError,
    UnifiedLLMClientError,
)
from ._omega import Attempt, ChatChunk, ChatResult, Usage, __version__
from ._policies import Backoff, CircuitBreaker, Permit, RateLimiter, retrying

__all__ = [
    "Attempt",
    "AuthenticationError",
    "Backoff",
    "ChatChunk",
    "ChatResult",
    "ChatStream",
    "CircuitBreaker",
    "CircuitBreakerError",
    "ConfigurationError",
    "DeadlineExceededError",
    "InvalidRequestError",
    "Permit",
    "Priority",
    "ProviderError",
    "QuotaExceededError",
    "RateLimitExceededError",
    "RateLimiter",
    "ResilienceStats",
    "StreamBrokenError",
    "SyncChatStream",
    "UnifiedLLMClient",
    "UnifiedLLMClientError",
    "Usage",
    "__version__",
    "retrying",
]


def _show_as_ours(names: list[str]) -> None:
    """Tracebacks and help() show the names that people import."""
    for name in names:
        shown = globals()[name]
        if isinstance(shown, type) and shown.__module__.startswith(f"{__name__}."):
            shown.__module__ = __name__


_show_as_ours(__all__)
