"""The policies and their exceptions under the specification's name."""

from omega_resilience import (
    Backoff,
    CircuitBreaker,
    CircuitBreakerError,
    RateLimiter,
    RateLimitExceededError,
    retrying,
)

__all__ = [
    "Backoff",
    "CircuitBreaker",
    "CircuitBreakerError",
    "RateLimitExceededError",
    "RateLimiter",
    "retrying",
]
