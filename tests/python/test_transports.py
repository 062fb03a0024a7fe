"""The official SDKs with OMEGA under them, inside the process."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2 as httpx
import openai
import pytest
from conftest import QUICK, eventually, held
from omega_resilience import UnifiedLLMClient
from omega_resilience.httpx2_transport import AsyncOmegaTransport, OmegaTransport
from omega_resilience.testing import Emulator

HI: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture
def protected(llm: UnifiedLLMClient) -> openai.AsyncOpenAI:
    # Neither its address nor its key matter.
    http = httpx.AsyncClient(transport=AsyncOmegaTransport(llm))
    return openai.AsyncOpenAI(api_key="none", base_url="http://nowhere.invalid/v1", http_client=http)


@pytest.mark.parametrize("model", ["gpt-5.2", "claude-opus-5-5", "gemini-3.5-flash", "grok-4.5"])
async def test_openai(protected: openai.AsyncOpenAI, model: str) -> None:
    answer = await protected.chat.completions.create(model=model, messages=HI)
    assert answer.choices[0].message.content == "You said: hi"
    assert answer.model == model
    stream = await protected.chat.completions.create(model=model, messages=HI, stream=True)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert "".join(pieces) == "You said: hi"


async def test_failures_are_retried_underneath(
    llm: UnifiedLLMClient, protected: openai.AsyncOpenAI, emulator: Emulator
) -> None:
    emulator.fail("server-error", first=2)
    raw = await protected.chat.completions.with_raw_response.create(model="gpt-5.2", messages=HI)
    assert raw.headers["x-omega-attempts"] == "3"
    assert llm.get_resilience_stats()["rate_limiters"]["openai"]["requests_last_minute"] == 3
    emulator.set_scenario([{"fault": "server-error"}])
    emulator.clear_requests()
    with pytest.raises(openai.InternalServerError):
        await protected.chat.completions.create(model="gpt-5.2", messages=HI)
    # The SDK does not try again what was tried three times below it.
    assert len(emulator.requests) == 3


async def test_fallbacks_of_the_client_hold(emulator: Emulator) -> None:
    llm = emulator.client(fallbacks=["claude-opus-5-5"], max_retries=1, settings=QUICK)
    sdk = openai.AsyncOpenAI(api_key="none", http_client=httpx.AsyncClient(transport=AsyncOmegaTransport(llm)))
    emulator.fail("server-error", provider="openai")
    answer = await sdk.chat.completions.create(model="gpt-5.2", messages=HI)
    assert (answer.model, answer.choices[0].message.content) == ("claude-opus-5-5", "You said: hi")


async def test_a_stream_that_breaks_is_an_error(protected: openai.AsyncOpenAI, emulator: Emulator) -> None:
    emulator.fail("cut-after:2")
    with pytest.raises((openai.APIError, httpx.RemoteProtocolError)):
        async for _ in await protected.chat.completions.create(
            model="gpt-5.2", messages=[{"role": "user", "content": "a b c d e f g"}], stream=True
        ):
            pass


async def test_leaving_a_stream_ends_the_call() -> None:
    slow = {"openai": {"latency": {"base_s": 0.01, "tokens_per_s": 20}}}
    with Emulator(providers=slow) as emulator:
        llm = emulator.client()
        sdk = openai.AsyncOpenAI(api_key="none", http_client=httpx.AsyncClient(transport=AsyncOmegaTransport(llm)))
        stream = await sdk.chat.completions.create(
            model="gpt-5.2", messages=[{"role": "user", "content": "a " * 300}], stream=True
        )
        async for _ in stream:
            break
        assert held(llm) == 1
        await stream.close()
        await eventually(lambda: held(llm) == 0, "the permit is back")


async def test_anthropic(llm: UnifiedLLMClient) -> None:
    sdk = anthropic.AsyncAnthropic(api_key="none", http_client=httpx.AsyncClient(transport=AsyncOmegaTransport(llm)))
    for model in ("claude-opus-5-5", "gpt-5.2"):
        answer = await sdk.messages.create(model=model, max_tokens=100, messages=HI)
        assert answer.content[0].text == "You said: hi"  # type: ignore[union-attr]
        async with sdk.messages.stream(model=model, max_tokens=100, messages=HI) as stream:
            assert await stream.get_final_text() == "You said: hi"


def test_without_an_event_loop(llm: UnifiedLLMClient, emulator: Emulator) -> None:
    sdk = openai.OpenAI(api_key="none", http_client=httpx.Client(transport=OmegaTransport(llm)))
    answer = sdk.chat.completions.create(model="gpt-5.2", messages=HI)
    assert answer.choices[0].message.content == "You said: hi"
    stream = sdk.chat.completions.create(model="claude-opus-5-5", messages=HI, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == "You said: hi"
    vectors = sdk.embeddings.create(model="text-embedding-3-small", input="hi")
    assert len(vectors.data) == 1
    said = sdk.responses.create(model="gpt-5.2", input="hi")
    assert said.output_text == "You said: hi"


async def test_what_is_no_call_of_a_model_goes_its_own_way(llm: UnifiedLLMClient) -> None:
    asked: list[str] = []

    async def other(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url}")
        return httpx.Response(200, json={"object": "list", "data": []})

    transport = AsyncOmegaTransport(llm, other=httpx.MockTransport(other))
    sdk = openai.AsyncOpenAI(api_key="k", http_client=httpx.AsyncClient(transport=transport))
    await sdk.models.list()
    await sdk.files.list()
    assert asked == ["GET https://api.openai.com/v1/models", "GET https://api.openai.com/v1/files"]


async def test_keys_for_callers_from_outside_are_not_asked_for(emulator: Emulator) -> None:
    keys = {"team": {"hash": f"sha256:{'0' * 64}"}}
    llm = emulator.client(config={"keys": keys})
    sdk = openai.AsyncOpenAI(api_key="none", http_client=httpx.AsyncClient(transport=AsyncOmegaTransport(llm)))
    assert (await sdk.chat.completions.create(model="gpt-5.2", messages=HI)).choices


async def test_httpx_1(llm: UnifiedLLMClient) -> None:
    import httpx
    from omega_resilience import httpx_transport

    body = {"model": "gpt-5.2", "messages": HI}
    async with httpx.AsyncClient(transport=httpx_transport.AsyncOmegaTransport(llm)) as http:
        answer = await http.post("http://nowhere.invalid/v1/chat/completions", json=body)
        assert answer.json()["choices"][0]["message"]["content"] == "You said: hi"
        url = "http://nowhere.invalid/v1/chat/completions"
        async with http.stream("POST", url, json={**body, "stream": True}) as stream:
            lines = [line async for line in stream.aiter_lines() if line]
        assert lines[-1] == "data: [DONE]"
    with httpx.Client(transport=httpx_transport.OmegaTransport(llm)) as plain:
        answer = plain.post("http://nowhere.invalid/v1/messages", json={**body, "max_tokens": 9})
        assert answer.json()["content"][0]["text"] == "You said: hi"
        wrong = plain.post("http://nowhere.invalid/v1/messages", json={"model": "gpt-5.2", "messages": 3})
        assert wrong.status_code == 400
