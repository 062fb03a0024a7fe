"""Event loops, threads, forks, cancellation and the end of the interpreter."""

from __future__ import annotations

import asyncio
import contextvars
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import uvloop
from conftest import QUICK, eventually, held
from omega_resilience import UnifiedLLMClient
from omega_resilience.testing import Emulator

SLOW: dict[str, Any] = {"openai": {"latency": {"base_s": 0.05, "tokens_per_s": 200}}}


async def test_a_thousand_cancelled_tasks_leave_nothing_behind() -> None:
    with Emulator(providers=SLOW) as emulator:
        limits = {
            "rate_limiting.openai.max_requests_per_minute": 100_000,
            "rate_limiting.openai.max_tokens_per_minute": 100_000_000,
            "rate_limiting.openai.max_concurrent_requests": 50,
        }
        llm = emulator.client(settings={**QUICK, **limits})
        chance = random.Random(7)

        async def call(at: int) -> None:
            if at % 3:
                await llm.chat("word " * 20)
            else:
                async for _ in await llm.chat("word " * 20, stream=True):
                    pass

        async def one(at: int) -> bool:
            await asyncio.sleep(chance.random() * 0.5)
            task = asyncio.create_task(call(at))
            await asyncio.sleep(chance.random() * 0.4)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                return True
            return False

        cancelled = await asyncio.gather(*(one(at) for at in range(1_000)))
        assert sum(cancelled) > 500
        await eventually(lambda: held(llm) == 0, "every permit is back")
        assert llm.get_resilience_stats()["rate_limiters"]["openai"]["concurrent_requests"] == 0
        assert (await llm.chat("still there")).text == "You said: still there"


def alone(code: str, *, ok: bool = True, **environment: str) -> str:
    """Runs it in an interpreter of its own, with every warning an error; what it printed on both."""
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment}, check=False
    )
    assert not ok or done.returncode == 0, done.stderr
    return done.stdout + done.stderr


BEGIN = """
import asyncio, logging, os, signal, sys, threading, time
logging.disable()
from omega_resilience import UnifiedLLMClient
from omega_resilience.testing import Emulator
slow = {"openai": {"latency": {"base_s": 0.05, "tokens_per_s": 50}}}
"""


def test_cancelled_tasks_leave_no_warning_at_the_end() -> None:
    code = """
async def main():
    llm = Emulator(providers=slow).client()
    tasks = [asyncio.create_task(llm.chat("word " * 50)) for _ in range(200)]
    await asyncio.sleep(0.2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
asyncio.run(main())
print("end")
"""
    assert alone(BEGIN + code) == "end\n"


def test_the_end_of_the_interpreter_waits_for_nobody() -> None:
    code = """
llm = Emulator(providers=slow).client()
thread = threading.Thread(target=lambda: llm.chat_sync("word " * 5000), daemon=True)
thread.start()
async def main():
    asyncio.get_running_loop().create_task(llm.chat("word " * 5000))
    stream = await llm.chat("word " * 5000, stream=True)
    await anext(stream)
    print(time.monotonic())
asyncio.run(main())
"""
    before = time.monotonic()
    alone(BEGIN + code)
    assert time.monotonic() - before < 20


def test_ctrl_c_in_the_middle_of_a_stream_ends_cleanly() -> None:
    in_a_loop = """
async def main():
    llm = Emulator(providers=slow).client()
    async for chunk in await llm.chat("word " * 5000, stream=True):
        if chunk.text:
            os.kill(os.getpid(), signal.SIGINT)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    without = """
llm = Emulator(providers=slow).client()
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    for chunk in llm.chat_sync("word " * 5000, stream=True):
        pass
except KeyboardInterrupt:
    print("interrupted")
"""
    whole = """
llm = Emulator(providers=slow).client()
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    llm.chat_sync("word " * 5000)
except KeyboardInterrupt:
    print("interrupted")
    for _ in range(100):
        permits = llm.get_resilience_stats()["details"]["providers"]["openai"]["permits_in_flight"]
        if permits == 0:
            print("nothing held")
            break
        time.sleep(0.02)
"""
    assert alone(BEGIN + in_a_loop) == "interrupted\n"
    assert alone(BEGIN + without) == "interrupted\n"
    assert alone(BEGIN + whole) == "interrupted\nnothing held\n"


def test_a_fork_after_use_works() -> None:
    code = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads: what is tested here
events = []
url = sys.argv[1] if len(sys.argv) > 1 else os.environ["EMULATED"]
llm = UnifiedLLMClient(openai_api_key="k", base_urls={"openai": url}, on_event=events.append)
async def main():
    return [(await llm.chat(f"{at}")).text for at in range(3)]
assert asyncio.run(main())[2] == "You said: 2"
stream = llm.chat_sync("word " * 20, stream=True)
next(stream)
child = os.fork()
if child == 0:
    try:
        assert llm.chat_sync("child").text == "You said: child"
        assert asyncio.run(main())[1] == "You said: 1"
        grandchild = os.fork()
        if grandchild == 0:
            assert llm.chat_sync("grandchild").text == "You said: grandchild"
            os._exit(0)
        assert os.waitpid(grandchild, 0)[1] == 0
        os._exit(0)
    finally:
        os._exit(1)
assert os.waitpid(child, 0)[1] == 0
assert "word" in stream.text()
assert llm.chat_sync("parent").text == "You said: parent"
print("all three")
"""
    with Emulator() as emulator:
        assert alone(BEGIN + code, EMULATED=emulator.base_url("openai")) == "all three\n"


def test_multiprocessing_by_fork_works() -> None:
    code = """
import multiprocessing, warnings
warnings.simplefilter("ignore", DeprecationWarning)
llm = UnifiedLLMClient(openai_api_key="k", base_urls={"openai": os.environ["EMULATED"]})
def work(at):
    return llm.chat_sync(f"{at}").text
assert work(0)
with multiprocessing.get_context("fork").Pool(3) as pool:
    print(pool.map(work, range(6)))
"""
    with Emulator() as emulator:
        printed = alone(BEGIN + code, EMULATED=emulator.base_url("openai"))
    assert printed == f"{[f'You said: {at}' for at in range(6)]}\n"


def test_one_client_serves_several_loops_and_threads(emulator: Emulator) -> None:
    llm = emulator.client(enable_rate_limiting=False)

    async def calls(name: str) -> list[str]:
        results = await asyncio.gather(*(llm.chat(f"{name}{at}") for at in range(20)))
        return [result.text for result in results]

    def run(at: int) -> list[str]:
        if at % 3 == 2:
            return [llm.chat_sync(f"{at}/{each}").text for each in range(20)]
        return asyncio.run(calls(f"{at}/"))

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(run, range(12)))
    assert answers == [[f"You said: {at}/{each}" for each in range(20)] for at in range(12)]
    # One loop after the other in this thread.
    for _ in range(3):
        assert len(asyncio.run(calls("x"))) == 20


def test_uvloop(emulator: Emulator) -> None:
    llm = emulator.client(enable_rate_limiting=False)

    async def main() -> None:
        assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
        results = await asyncio.gather(*(llm.chat(f"{at}") for at in range(50)))
        assert results[49].text == "You said: 49"
        stream = await llm.chat("one two", stream=True)
        assert await stream.text() == "You said: one two"
        task = asyncio.create_task(llm.chat("x"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_a_loop_that_was_closed_in_the_middle_of_a_call_harms_nobody() -> None:
    with Emulator(providers=SLOW) as emulator:
        llm = emulator.client()
        loop = asyncio.new_event_loop()
        task = loop.create_task(llm.chat("word " * 20))
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        task.get_coro().close()  # type: ignore[union-attr]
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        time.sleep(0.3)
        assert llm.chat_sync("hi").text == "You said: hi"


async def test_context_variables_are_the_callers(llm: UnifiedLLMClient) -> None:
    request = contextvars.ContextVar("request", default="none")

    async def call(name: str) -> tuple[str, str]:
        request.set(name)
        result = await llm.chat(name)
        return request.get(), result.text

    answers = await asyncio.gather(*(call(f"{at}") for at in range(8)))
    assert answers == [(f"{at}", f"You said: {at}") for at in range(8)]
    assert request.get() == "none"


def test_other_threads_run_while_a_call_waits() -> None:
    with Emulator(providers={"openai": {"latency": {"base_s": 0.5, "tokens_per_s": 1000}}}) as emulator:
        llm = emulator.client()
        steps = 0
        done = threading.Event()

        def count() -> None:
            nonlocal steps
            while not done.is_set():
                steps += 1
                time.sleep(0.001)

        thread = threading.Thread(target=count)
        thread.start()
        llm.chat_sync("hi")
        done.set()
        thread.join()
        assert steps > 50


async def test_a_loop_that_cannot_watch_a_socket_hears_what_to_do(
    llm: UnifiedLLMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_fd: int, _callback: Callable[[], object]) -> None:
        raise NotImplementedError

    def main() -> None:
        loop = asyncio.new_event_loop()
        monkeypatch.setattr(loop, "add_reader", refuse)
        try:
            with pytest.raises(RuntimeError, match=r"cannot watch a socket.*SelectorEventLoop or uvloop"):
                loop.run_until_complete(llm.chat("hi"))
        finally:
            loop.close()

    await asyncio.to_thread(main)


def test_signals_are_pythons_own() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
