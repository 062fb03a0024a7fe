"""The one wheel on every Python of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MINORS = (10, 11, 12, 13, 14)

PROGRAM = """
import asyncio, sys, warnings
warnings.simplefilter("error")
from omega_resilience import CircuitBreaker, ProviderError, RateLimiter, UnifiedLLMClient
from omega_resilience.testing import Emulator

async def main(emulator):
    async with emulator.client(settings={"backoff.base_delay": 0.01}) as llm:
        result = await llm.chat([{"role": "user", "content": "hi"}])
        assert result.text == result["choices"][0]["message"]["content"] == "You said: hi", result
        pieces = [chunk.text async for chunk in await llm.chat("one two", stream=True)]
        assert "".join(pieces) == "You said: one two", pieces
        results = await asyncio.gather(*(llm.chat(f"{at}") for at in range(8)))
        assert results[7].text == "You said: 7"
        emulator.fail("server-error")
        try:
            await llm.chat("hi", max_attempts=1)
        except ProviderError as error:
            assert "500" in str(error)
        emulator.set_scenario(None)
        task = asyncio.create_task(llm.chat("cancelled"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        limiter, breaker = RateLimiter(max_concurrent_requests=1), CircuitBreaker()
        async with limiter.acquire(), breaker:
            pass
        assert llm.chat_sync("hi").text == "You said: hi"

with Emulator() as emulator:
    asyncio.run(main(emulator))
print("%d.%d" % sys.version_info[:2])
"""


def interpreter(minor: int) -> str | None:
    """One that works: a version manager's stand-in may only say that it has none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [*pyenv.glob(f"versions/3.{minor}.*/bin/python"), shutil.which(f"python3.{minor}")]
    for each in filter(None, found):
        done = subprocess.run([each, "-m", "pip", "--version"], capture_output=True, check=False)
        if done.returncode == 0:
            return str(each)
    return None


@pytest.mark.parametrize("minor", MINORS)
def test_the_wheel_runs_on(minor: int, tmp_path: Path) -> None:
    python = interpreter(minor)
    if python is None:
        pytest.skip(f"there is no Python 3.{minor} here")
    wheel = os.environ["WHEEL_UNDER_TEST"]
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path, wheel]
    subprocess.run(install, check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([python, "-c", PROGRAM], capture_output=True, text=True, check=False, env=environment)
    assert (done.stdout, done.returncode) == (f"3.{minor}\n", 0), done.stderr
