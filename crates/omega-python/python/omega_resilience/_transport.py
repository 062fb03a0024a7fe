"""What the transports for HTTPX and for HTTPX 2 have in common: requests of a model's go through the client."""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import _bridge

if TYPE_CHECKING:
    from . import _omega
    from ._client import UnifiedLLMClient

_MODEL_CALL = re.compile(
    r"(/v1/(?:chat/completions|responses|embeddings|messages|messages/count_tokens)"
    r"|/v1(?:beta)?/models/[^/]+:(?:generateContent|streamGenerateContent|countTokens))$"
)


def _protected(request: Any) -> str | None:
    """The path under which the client knows it; ``None``: it is no call of a model."""
    if request.method != "POST":
        return None
    found = _MODEL_CALL.search(request.url.path)
    if found is None:
        return None
    query: bytes = request.url.query
    return found[1] + (f"?{query.decode('ascii')}" if query else "")


class _Body:
    """An answer's body as it comes."""

    library: ModuleType

    def __init__(self, answer: _omega.RelayAnswer, request: Any) -> None:
        self._answer = answer
        self._request = request

    def _take(self) -> Any:
        try:
            return self._answer.take()
        except EOFError as error:
            raise self.library.RemoteProtocolError(str(error), request=self._request) from None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := self._take()) is not False:
            if piece is None:
                await _bridge.until_ready(self._answer)
            else:
                yield piece

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self._take()) is not False:
            if piece is None:
                self._answer.wait_here()
            else:
                yield piece

    async def aclose(self) -> None:
        self._answer.close()

    def close(self) -> None:
        self._answer.close()


@functools.cache
def _body_of(library: ModuleType) -> type[Any]:
    """The body as a stream of that library's, which looks at the class."""
    return type("_Body", (_Body, library.AsyncByteStream, library.SyncByteStream), {"library": library})


def _response(library: ModuleType, request: Any, answer: _omega.RelayAnswer) -> Any:
    return library.Response(answer.status, headers=answer.headers, stream=_body_of(library)(answer, request))


class AsyncTransport:
    """What a transport does, apart from its library."""

    _library: ModuleType
    _other: Any
    _client: UnifiedLLMClient

    async def handle_async_request(self, request: Any) -> Any:
        """Sends a request. Called by the library."""
        target = _protected(request)
        if target is None:
            return await self._other.handle_async_request(request)
        body = await request.aread()
        relay = self._client._in_process()
        loop, queue = _bridge.here()
        future = loop.create_future()
        ticket = relay.call(queue, future, request.method, target, request.headers.raw, body)
        try:
            answer: _omega.RelayAnswer = await future
        except BaseException:
            ticket.cancel()
            raise
        return _response(self._library, request, answer)

    async def aclose(self) -> None:
        """Closes the transport of the other requests."""
        await self._other.aclose()


class SyncTransport:
    """What a transport does, apart from its library."""

    _library: ModuleType
    _other: Any
    _client: UnifiedLLMClient

    def handle_request(self, request: Any) -> Any:
        """Sends a request. Called by the library."""
        target = _protected(request)
        if target is None:
            return self._other.handle_request(request)
        body = request.read()
        answer = self._client._in_process().call_here(request.method, target, request.headers.raw, body)
        return _response(self._library, request, answer)

    def close(self) -> None:
        """Closes the transport of the other requests."""
        self._other.close()
