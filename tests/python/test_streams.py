"""Answers as they are written."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from conftest import QUICK, eventually, held
from omega_resilience import ChatStream, ProviderError, StreamBrokenError, SyncChatStream, UnifiedLLMClient
from omega_resilience.testing import Emulator

MODELS = ["gpt-5.2", "claude-opus-5-5", "gemini-3.5-flash", "grok-4.5"]


@pytest.mark.parametrize("model", MODELS)
async def test_the_pieces_are_the_answer(llm: UnifiedLLMClient, model: str) -> None:
    stream = await llm.chat("one two three four five", model=model, stream=True)
    assert isinstance(stream, ChatStream)
    assert stream.model == model
    pieces = [chunk async for chunk in stream]
    assert "".join(chunk.text for chunk in pieces) == "You said: one two three four five"
    assert [chunk.finish_reason for chunk in pieces if chunk.finish_reason] == ["stop"]
    said = next(chunk for chunk in pieces if chunk.text)
    assert said["choices"][0]["delta"]["content"] == str(said) == said.text
    assert stream.usage is not None
    assert stream.usage.total_tokens > 5
    assert [each.outcome for each in stream.attempts] == ["answered"]
    # Read to its end, it stays at its end.
    assert [chunk async for chunk in stream] == []
    assert held(llm) == 0


@pytest.mark.parametrize("model", MODELS)
def test_without_an_event_loop(llm: UnifiedLLMClient, model: str) -> None:
    stream = llm.chat_sync("one two three", model=model, stream=True)
    assert isinstance(stream, SyncChatStream)
    assert "".join(chunk.text for chunk in stream) == "You said: one two three"
    with llm.chat_sync("again", model=model, stream=True) as other:
        assert other.text() == "You said: again"
    assert list(stream) == []


async def test_the_whole_text_at_once(llm: UnifiedLLMClient) -> None:
    async with await llm.chat("hello", stream=True) as stream:
        assert await stream.text() == "You said: hello"


async def test_a_failure_before_the_first_content_is_not_seen(llm: UnifiedLLMClient, emulator: Emulator) -> None:
    emulator.fail("server-error", first=1)
    stream = await llm.chat("hi", stream=True)
    assert await stream.text() == "You said: hi"
    assert [each.outcome for each in stream.attempts] == ["failed", "answered"]
    emulator.set_scenario([{"fault": "server-error"}])
    with pytest.raises(ProviderError):
        await llm.chat("hi", stream=True)


@pytest.mark.parametrize("fault", ["cut-after:4", "end-after:4", "error-in-stream:4", "malformed-chunk:4"])
async def test_a_stream_that_breaks_never_just_ends(llm: UnifiedLLMClient, emulator: Emulator, fault: str) -> None:
    emulator.fail(fault)
    stream = await llm.chat("one two three four five six seven", stream=True)
    with pytest.raises(StreamBrokenError) as caught:
        await stream.text()
    assert caught.value.provider == "openai"
    assert [chunk async for chunk in stream] == []
    with pytest.raises(StreamBrokenError):
        for _ in llm.chat_sync("one two three four five six seven", stream=True):
            pass
    await eventually(lambda: held(llm) == 0, "every permit is back")


SLOW: dict[str, Any] = {"openai": {"latency": {"base_s": 0.01, "tokens_per_s": 20}}}


async def test_leaving_a_stream_ends_the_call() -> None:
    with Emulator(providers=SLOW) as emulator:
        llm = emulator.client(settings=QUICK)
        async for chunk in await llm.chat("a " * 200, stream=True):
            if chunk.text:
                break
        await eventually(lambda: held(llm) == 0, "the stream that was left is gone")
        stream = await llm.chat("b " * 200, stream=True)
        await anext(stream)
        assert held(llm) == 1
        await stream.aclose()
        await eventually(lambda: held(llm) == 0, "the stream that was closed is gone")
        assert [chunk async for chunk in stream] == []
        stream = await llm.chat("c " * 200, stream=True)
        await anext(stream)
        del stream
        gc.collect()
        await eventually(lambda: held(llm) == 0, "the stream that was dropped is gone")


async def test_a_task_that_reads_can_be_cancelled() -> None:
    with Emulator(providers=SLOW) as emulator:
        llm = emulator.client()

        async def read() -> None:
            async for _ in await llm.chat("a " * 500, stream=True):
                pass

        task = asyncio.create_task(read())
        await eventually(lambda: held(llm) == 1, "the stream runs")
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: held(llm) == 0, "it is gone with its task")


async def test_a_slow_reader_holds_the_stream_up(emulator: Emulator) -> None:
    llm = emulator.client()
    words = " ".join(f"w{at}" for at in range(3_000))
    stream = await llm.chat(words, stream=True, max_tokens=20_000)
    first = await anext(stream)
    await asyncio.sleep(0.2)
    # Only so much is read ahead: the call has not ended, though its provider is quick.
    assert held(llm) == 1
    rest = await stream.text()
    text = first.text + rest
    assert len(text) > 1_000
    assert f"You said: {words}".startswith(text)


async def test_two_tasks_may_read_one_stream() -> None:
    with Emulator(providers=SLOW) as emulator:
        stream = await emulator.client().chat("one two three four five six", stream=True)

        async def read() -> list[str]:
            return [chunk.text async for chunk in stream]

        first, second = await asyncio.wait_for(asyncio.gather(read(), read()), 20)
        assert len("".join(first) + "".join(second)) == len("You said: one two three four five six")
