"""Transports for HTTPX 1, that put OMEGA under an SDK inside the process.

::

    import httpx
    from openai import AsyncOpenAI
    from omega_resilience import UnifiedLLMClient
    from omega_resilience.httpx_transport import AsyncOmegaTransport

    llm = UnifiedLLMClient(fallbacks=["claude-opus-5-5"])
    openai = AsyncOpenAI(http_client=httpx.AsyncClient(transport=AsyncOmegaTransport(llm)))

Calls of a model (chat completions, responses, embeddings, messages, Gemini's generation and token counts) go through
the client, with its keys, limits, circuits, retries and fallbacks; the SDK's own key and address do not matter for
them. Everything else the SDK asks for goes where it would have gone.

The official SDKs of today use HTTPX 2: see `omega_resilience.httpx2_transport`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from ._transport import AsyncTransport, SyncTransport

if TYPE_CHECKING:
    from ._client import UnifiedLLMClient

__all__ = ["AsyncOmegaTransport", "OmegaTransport"]


class AsyncOmegaTransport(AsyncTransport, httpx.AsyncBaseTransport):
    """A transport for `httpx.AsyncClient`.

    Args:
        client: Through which calls of a model go. It is not closed with the transport.
        other: Takes every other request. Default: the library's own.
    """

    _library = httpx

    def __init__(self, client: UnifiedLLMClient, *, other: httpx.AsyncBaseTransport | None = None) -> None:
        self._client = client
        self._other = other or httpx.AsyncHTTPTransport()


class OmegaTransport(SyncTransport, httpx.BaseTransport):
    """A transport for `httpx.Client`. See `AsyncOmegaTransport`."""

    _library = httpx

    def __init__(self, client: UnifiedLLMClient, *, other: httpx.BaseTransport | None = None) -> None:
        self._client = client
        self._other = other or httpx.HTTPTransport()
