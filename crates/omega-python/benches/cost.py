"""What a protected call costs from Python, beside others, in one run: processor time, not waiting.

    cargo build --release -p omega-bench --example gateway      # the server: answers at once, streams at a steady pace
    pip install crates/omega-python openai aiohttp pybreaker aiolimiter tenacity      # litellm too, if wanted
    python crates/omega-python/benches/cost.py

Each number is the median over rounds in which the subjects take turns, each in a process of its own. Whoever is not
installed is left out, and said so. Exit code 0: every bar was reached; 1: one was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import importlib.util
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

MODEL = "gpt-5.2"
MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]
CONCURRENT = 64
STREAMS = 20
CHUNKS = 51
"""Pieces of one stream of the bench's server."""

BARS = {"sequential": 8.0, "concurrent": 12.0, "stream": 5.0}
"""How many times more OpenAI's SDK must cost than ours."""

Call = Callable[[], Awaitable[Any]]


# --- Whom to call with ------------------------------------------------------------------------------------------------


def omega(url: str, more: dict[str, Any] = {}) -> tuple[Call, Call]:  # noqa: B006, it is not changed
    from omega_resilience import UnifiedLLMClient

    # Every layer on; limits that are far away, so that nothing waits.
    limits = {
        "max_requests_per_minute": 100_000_000,
        "max_tokens_per_minute": 10**12,
        "max_concurrent_requests": 10_000,
    }
    config = {"rate_limiting": {"openai": limits}}
    client = UnifiedLLMClient(openai_api_key="sk-bench", base_urls={"openai": url}, config={**config, **more})

    async def call() -> None:
        result = await client.chat(MESSAGES, model=MODEL)
        assert result.text

    async def stream() -> None:
        pieces = [chunk.text async for chunk in await client.chat(MESSAGES, model=MODEL, stream=True)]
        assert len(pieces) == CHUNKS

    return call, stream


def omega_unguarded(url: str) -> tuple[Call, Call]:
    """Whole answers asked for as whole answers, as the others do: no clock sees a provider fall silent in one."""
    return omega(url, {"streaming": {"guard_whole_answers": False}})


def openai(url: str) -> tuple[Call, Call]:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key="sk-bench", base_url=url, max_retries=2)

    async def call() -> None:
        result = await client.chat.completions.create(messages=MESSAGES, model=MODEL)
        assert result.choices[0].message.content

    async def stream() -> None:
        stream = await client.chat.completions.create(messages=MESSAGES, model=MODEL, stream=True)
        pieces = [chunk.choices[0].delta.content async for chunk in stream]
        assert len(pieces) == CHUNKS

    return call, stream


def litellm(url: str) -> tuple[Call, Call]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    from litellm import acompletion

    terms = {"messages": MESSAGES, "model": f"openai/{MODEL}", "api_key": "sk-bench", "base_url": url}

    async def call() -> None:
        result = await acompletion(**terms)
        assert result.choices[0].message.content

    async def stream() -> None:
        async for _ in await acompletion(**terms, stream=True):
            pass

    return call, stream


def aiohttp(url: str) -> tuple[Call, Call]:
    from aiohttp import ClientSession, TCPConnector

    sessions: list[ClientSession] = []

    def session() -> ClientSession:
        if not sessions:
            sessions.append(ClientSession(connector=TCPConnector(limit=0)))
        return sessions[0]

    headers = {"authorization": "Bearer sk-bench", "content-type": "application/json"}
    path = f"{url}/chat/completions"

    async def call() -> None:
        body = json.dumps({"messages": MESSAGES, "model": MODEL})
        async with session().post(path, data=body, headers=headers) as answer:
            assert json.loads(await answer.read())["choices"][0]["message"]["content"]

    async def stream() -> None:
        body = json.dumps({"messages": MESSAGES, "model": MODEL, "stream": True}, separators=(",", ":"))
        pieces = 0
        async with session().post(path, data=body, headers=headers) as answer:
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    json.loads(line[6:])
                    pieces += 1
        assert pieces == CHUNKS

    return call, stream


SUBJECTS = {
    "omega": omega,
    "omega-unguarded": omega_unguarded,
    "openai": openai,
    "litellm": litellm,
    "aiohttp": aiohttp,
}
PACKAGES = {"omega": "omega_resilience", "omega-unguarded": "omega_resilience"}


# --- How it is measured -----------------------------------------------------------------------------------------------


async def spent(work: Call, times: int, together: int) -> float:
    """Processor time of this process, all its threads, in microseconds for each."""

    async def worker(share: int) -> None:
        for _ in range(share):
            await work()

    async def run(count: int) -> None:
        await asyncio.gather(*(worker(count // together) for _ in range(together)))

    await run(max(together, times // 10))
    before = time.process_time()
    await run(times)
    return (time.process_time() - before) / (times // together * together) * 1e6


async def one(subject: str, phase: str, url: str, times: int) -> float:
    call, stream = SUBJECTS[subject](url)
    match phase:
        case "sequential":
            return await spent(call, times, 1)
        case "concurrent":
            return await spent(call, times * 2, CONCURRENT)
        case _:
            return await spent(stream, max(times // 10, STREAMS), STREAMS) / CHUNKS


def policies(times: int) -> dict[str, float]:
    """A breaker and a limiter around a function that does nothing, in microseconds for each call."""

    async def nothing() -> None:
        pass

    async def measured(work: Call) -> float:
        return await spent(work, times * 20, 1)

    costs: dict[str, float] = {}
    costs["nothing around it"] = asyncio.run(measured(nothing))
    from omega_resilience import Backoff, CircuitBreaker, RateLimiter, retrying

    breaker = CircuitBreaker("bench")
    limiter = RateLimiter("bench", max_requests_per_minute=100_000_000)

    async def limited() -> None:
        async with limiter.acquire():
            await nothing()

    costs["omega: breaker"] = asyncio.run(measured(breaker(nothing)))
    costs["omega: limiter"] = asyncio.run(measured(limited))
    both = retrying(breaker=breaker, limiter=limiter, backoff=Backoff())(nothing)
    costs["omega: breaker, limiter and retries"] = asyncio.run(measured(both))
    if importlib.util.find_spec("pybreaker"):
        import pybreaker

        other = pybreaker.CircuitBreaker()

        def plain() -> None:
            pass

        async def called() -> None:
            # Its asynchronous calls need Tornado; this is its plain one.
            other.call(plain)

        costs["pybreaker"] = asyncio.run(measured(called))
    if importlib.util.find_spec("aiolimiter"):
        import aiolimiter

        async def aiolimited() -> float:
            bucket = aiolimiter.AsyncLimiter(100_000_000, 60)

            async def work() -> None:
                async with bucket:
                    await nothing()

            return await measured(work)

        costs["aiolimiter"] = asyncio.run(aiolimited())
    if importlib.util.find_spec("tenacity"):
        import tenacity

        tried = tenacity.retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_random_exponential())(nothing)
        costs["tenacity"] = asyncio.run(measured(tried))
    return costs


def installed(subject: str) -> bool:
    return importlib.util.find_spec(PACKAGES.get(subject, subject)) is not None


def version(subject: str) -> str:
    names = {"omega": "omega-resilience", "omega-unguarded": "omega-resilience"}
    try:
        return importlib.metadata.version(names.get(subject, subject))
    except importlib.metadata.PackageNotFoundError:
        return "?"


def measured(arguments: list[str]) -> Any:
    command = [sys.executable, __file__, *arguments]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def serve(server: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen([server, "--upstream", address])
    host, port = address.split(":")
    for _ in range(100):
        try:
            socket.create_connection((host, int(port))).close()
            return process, f"http://{address}"
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not start")


def at(url: str, phase: str) -> str:
    """Where the server answers in the way of this phase: whole answers, asked as a stream or not, come at once."""
    return f"{url}/v1" if phase == "stream" else f"{url}/at-once/v1"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parents[3]
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which the subjects take turns [default: 5]")
    parser.add_argument("--calls", type=int, default=1_000, help="calls of each sequential run [default: 1000]")
    parser.add_argument("--only", default=",".join(SUBJECTS), help="these subjects, by commas")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    server = root / "target/release/examples/gateway"
    parser.add_argument("--server", type=Path, default=server, help="the bench's server [default: as built above]")
    parser.add_argument("--one", nargs=3, metavar=("SUBJECT", "PHASE", "URL"), help=argparse.SUPPRESS)
    parser.add_argument("--policies", action="store_true", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.one:
        print(json.dumps(asyncio.run(one(*told.one, told.calls))))
        return 0
    if told.policies:
        print(json.dumps(policies(told.calls)))
        return 0
    wanted = told.only.split(",")
    for missing in [name for name in wanted if not installed(name)]:
        print(f"{missing} is left out: it is not installed", file=sys.stderr)
    subjects = [name for name in wanted if installed(name)]
    costs: dict[str, dict[str, list[float]]] = {name: {phase: [] for phase in BARS} for name in subjects}
    around: dict[str, list[float]] = {}
    process, url = serve(told.server)
    try:
        for turn in range(told.rounds):
            for name in subjects:
                for phase in BARS:
                    print(f"\rround {turn + 1}/{told.rounds}: {name} {phase:12}", end="", file=sys.stderr)
                    cost = measured(["--one", name, phase, at(url, phase), "--calls", str(told.calls)])
                    costs[name][phase].append(cost)
            for what, cost in measured(["--policies", "--calls", str(told.calls)]).items():
                around.setdefault(what, []).append(cost)
    finally:
        process.kill()
        process.wait()
    print("\r" + " " * 50 + "\r", end="", file=sys.stderr)
    medians = {name: {p: statistics.median(c) for p, c in phases.items()} for name, phases in costs.items()}
    if told.json:
        print(
            json.dumps({"calls": medians, "policies": {w: statistics.median(c) for w, c in around.items()}}, indent=2)
        )
        return 0
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, {told.rounds} rounds; CPU in us")
    print(f"{'':24} {'sequential call':>16} {'64 at once, per call':>22} {'per token of 20 streams':>25}")
    for name, phases in medians.items():
        row = f"{name} {version(name)}"
        print(f"{row:24} {phases['sequential']:16.0f} {phases['concurrent']:22.0f} {phases['stream']:25.1f}")
    print()
    for what, values in around.items():
        print(f"{what:40} {statistics.median(values):8.2f}")
    reached = True
    if {"omega", "openai"} <= medians.keys():
        print()
        for phase, bar in BARS.items():
            times = medians["openai"][phase] / medians["omega"][phase]
            reached &= times >= bar
            print(
                f"{'ok  ' if times >= bar else 'MISS'}  {phase}: openai costs {times:.1f} times as much "
                f"(at least {bar:g})"
            )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
