"""`UnifiedLLMClient` under the specification's name."""

from omega_resilience import (
    AuthenticationError,
    ChatChunk,
    ChatResult,
    ChatStream,
    CircuitBreakerError,
    ConfigurationError,
    DeadlineExceededError,
    InvalidRequestError,
    ProviderError,
    QuotaExceededError,
    RateLimitExceededError,
    StreamBrokenError,
    SyncChatStream,
    UnifiedLLMClient,
    UnifiedLLMClientError,
)

__all__ = [
    "AuthenticationError",
    "ChatChunk",
    "ChatResult",
    "ChatStream",
    "CircuitBreakerError",
    "ConfigurationError",
    "DeadlineExceededError",
    "InvalidRequestError",
    "ProviderError",
    "QuotaExceededError",
    "RateLimitExceededError",
    "StreamBrokenError",
    "SyncChatStream",
    "UnifiedLLMClient",
    "UnifiedLLMClientError",
]
