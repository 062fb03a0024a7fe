"""What can go wrong, one class for each thing a caller can do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._omega import Attempt

__all__ = [
    "AuthenticationError",
    "CircuitBreakerError",
    "ConfigurationError",
    "DeadlineExceededError",
    "InvalidRequestError",
    "ProviderError",
    "QuotaExceededError",
    "RateLimitExceededError",
    "StreamBrokenError",
    "UnifiedLLMClientError",
]


class UnifiedLLMClientError(Exception):
    """A call that has no answer. Its text names the provider's status, type and code (`429`, `insufficient_quota`).

    Attributes:
        provider: Which provider it is about; ``None`` where it is about none.
        model: Which model was asked for there.
        retry_after: Seconds to wait before it can be different; ``None`` where waiting does not help or nobody knows.
        attempts: Everything that was tried, in order.
        status_code: The provider's HTTP status.
        code: The provider's error code, or its type where it has no code; OMEGA's own word where it has neither.
        error_type: The provider's error type.
        param: The field of the request that it is about.
        request_id: The provider's id of the request, for its support.
        origin: ``"local"`` (OMEGA said no) or ``"provider"``.
    """

    provider: str | None
    model: str | None
    retry_after: float | None
    attempts: list[Attempt]
    status_code: int | None
    code: str | None
    error_type: str | None
    param: str | None
    request_id: str | None
    origin: str

    def __init__(
        self,
        message: str = "",
        *,
        provider: str | None = None,
        model: str | None = None,
        retry_after: float | None = None,
        attempts: list[Attempt] | None = None,
        status_code: int | None = None,
        code: str | None = None,
        error_type: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        origin: str = "local",
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.model = model
        self.retry_after = retry_after
        self.attempts = attempts if attempts is not None else []
        self.status_code = status_code
        self.code = code
        self.error_type = error_type
        self.param = param
        self.request_id = request_id
        self.origin = origin

    def __reduce__(self) -> tuple[Any, ...]:
        # The attempts are this process's; everything else travels (multiprocessing, Celery).
        state = {**self.__dict__, "attempts": []}
        return (type(self), self.args, state)


class CircuitBreakerError(UnifiedLLMClientError):
    """The circuit is open: the provider is down and was not asked. Come back after ``retry_after``."""


class RateLimitExceededError(UnifiedLLMClientError):
    """Too fast. ``origin`` says whether OMEGA refused (``"local"``) or the provider did. Wait ``retry_after``."""


class QuotaExceededError(UnifiedLLMClientError):
    """Credit or a day's allowance is spent: a billing matter. Waiting does not help."""


class AuthenticationError(UnifiedLLMClientError):
    """The key is wrong or may not do this."""


class InvalidRequestError(UnifiedLLMClientError):
    """The request is wrong, too long for the model, refused on policy, or cannot be said in the provider's protocol."""


class ProviderError(UnifiedLLMClientError):
    """The provider failed, or could not be reached, until attempts or budget ran out."""


class StreamBrokenError(UnifiedLLMClientError):
    """A stream was cut, stalled or ended without its terminator. What was delivered is not a whole answer."""


class DeadlineExceededError(UnifiedLLMClientError):
    """Time ran out: the call's own (``origin`` is ``"local"``), or a provider's that stayed silent."""


class ConfigurationError(UnifiedLLMClientError, ValueError):
    """The client's configuration cannot be used: a value, or a missing key. The text says what and where."""


_CLASSES: dict[str, type[UnifiedLLMClientError]] = {
    each.__name__: each
    for each in (
        UnifiedLLMClientError,
        CircuitBreakerError,
        RateLimitExceededError,
        QuotaExceededError,
        AuthenticationError,
        InvalidRequestError,
        ProviderError,
        StreamBrokenError,
        DeadlineExceededError,
        ConfigurationError,
    )
}


def _make(name: str, message: str, facts: dict[str, Any]) -> UnifiedLLMClientError:
    return _CLASSES[name](message, **facts)
