"""Event loops: each has a queue, through which the Rust side finishes its futures."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from typing import Any

from . import _notes, _omega


class _Last(threading.local):
    """The loop that this thread asked for last, so that nearly every call finds its queue without a search."""

    loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
    queue: _omega.Queue | None = None


_last = _Last()
_queues: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _omega.Queue] = weakref.WeakKeyDictionary()


_generation = 0


def generation() -> int:
    """A number that a fork changes: what was made under another one is the parent's."""
    return _generation


def here() -> tuple[asyncio.AbstractEventLoop, _omega.Queue]:
    """The running loop and its queue."""
    loop = asyncio.get_running_loop()
    last = _last.loop
    if last is not None and last() is loop:
        queue = _last.queue
        assert queue is not None
        return loop, queue
    queue = _queues.get(loop)
    if queue is None:
        queue = _omega.Queue()
        try:
            loop.add_reader(queue.fileno(), queue.drain)
        except NotImplementedError:
            raise RuntimeError(
                f"{type(loop).__name__} cannot watch a socket of another thread's, which OMEGA's asyncio calls need; "
                "use asyncio's SelectorEventLoop or uvloop, or the *_sync methods"
            ) from None
        _queues[loop] = queue
    _last.loop, _last.queue = weakref.ref(loop), queue
    return loop, queue


async def until_ready(flow: Any) -> None:
    """Waits until something can be taken from a stream of the Rust side."""
    loop, queue = here()
    future = loop.create_future()
    ticket = flow.wait(queue, future)
    if ticket is not None:
        try:
            await future
        except BaseException:
            ticket.cancel()
            raise


def _after_fork() -> None:
    global _generation, _last, _queues
    _generation += 1
    # Their pipes and futures are the parent's; closing them here is harmless, using them is not.
    _last, _queues = _Last(), weakref.WeakKeyDictionary()
    _omega.after_fork()


def _at_exit() -> None:
    _omega.shutdown()
    _notes.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
