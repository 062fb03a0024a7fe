"""One process of `cargo run --release -p omega-bench --example fleet`, in Python: told what to do in its argument."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

from omega_resilience import RateLimitExceededError, UnifiedLLMClient


async def work(orders: dict[str, Any]) -> dict[str, Any]:
    limits = {
        "max_requests_per_minute": orders["requests_per_minute"],
        "max_tokens_per_minute": orders["requests_per_minute"] * 1_000,
        "max_concurrent_requests": 10_000,
        "burst_seconds": orders["burst_seconds"],
        "max_wait_seconds": orders["max_wait_seconds"],
    }
    client = UnifiedLLMClient(
        openai_api_key="sk-fleet",
        base_urls={"openai": orders["base_url"]},
        config={"state": orders["state"], "rate_limiting": {"openai": limits}},
    )
    met: dict[str, Any] = {"answered": 0, "refused": 0, "failed": 0, "failure": None, "took_ms": []}

    async def call() -> None:
        sent = time.perf_counter()
        try:
            await client.chat("Why is the sky blue?", model="gpt-5.2", max_tokens=100, timeout=120.0)
        except RateLimitExceededError as error:
            if error.status_code is None:
                met["refused"] += 1
            else:
                met["failed"] += 1
                met["failure"] = str(error)
        except Exception as error:
            met["failed"] += 1
            met["failure"] = str(error)
        else:
            met["answered"] += 1
            met["took_ms"].append((time.perf_counter() - sent) * 1e3)

    chance = random.Random(orders["seed"])
    began = time.perf_counter()
    at, calls = 0.0, set()
    while (at := at + chance.expovariate(orders["rate"])) < orders["seconds"]:
        await asyncio.sleep(max(0.0, began + at - time.perf_counter()))
        task = asyncio.ensure_future(call())
        calls.add(task)
        task.add_done_callback(calls.discard)
    while calls:
        await asyncio.wait(set(calls))
    shared = client.get_resilience_stats()["details"]["providers"]["openai"]["shared"]
    met["exchanges"], met["lost"] = (shared["exchanges_total"], shared["lost_total"]) if shared else (0, 0)
    return met


print(json.dumps(asyncio.run(work(json.loads(sys.argv[1])))))
