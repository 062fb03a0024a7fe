"""Log lines and events of the Rust side, told here: to `logging`, and to whoever listens with ``on_event``.

Event loops tell them before they hand over results; a thread of its own tells those that come while nothing is handed
over. One lock keeps their order.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import weakref
from collections.abc import Callable
from itertools import count
from typing import Any

from . import _omega

Event = dict[str, Any]

logger = logging.getLogger("omega_resilience")

# Re-entrant: a handler may itself make a call.
_lock = threading.RLock()
_listeners: dict[int, Callable[[Event], object]] = {}
_numbers = count(1)
_thread: threading.Thread | None = None
_starting = threading.Lock()


def flush() -> None:
    """Tells everything there is to tell."""
    with _lock:
        notes, lost = _omega.take_notes()
        try:
            if lost:
                logger.warning("%d log lines and events came faster than they were told, and were lost", lost)
            for number, text, event in notes:
                if event is None:
                    logger.log(number, text)
                else:
                    _hear(number, event)
        finally:
            _omega.told(len(notes))


def _hear(listener: int, event: str) -> None:
    on_event = _listeners.get(listener)
    if on_event is None:
        return
    try:
        on_event(json.loads(event))
    except Exception:
        logger.exception("on_event failed")


def listen(owner: object, on_event: Callable[[Event], object] | None) -> int | None:
    """A number under which ``on_event`` hears, for as long as its owner lives."""
    start()
    if on_event is None:
        return None
    number = next(_numbers)
    _listeners[number] = on_event
    weakref.finalize(owner, _listeners.pop, number, None)
    return number


def start() -> None:
    """Starts the thread, once for each process."""
    global _thread
    if _thread is not None:
        return
    with _starting:
        if _thread is None:
            _thread = threading.Thread(target=_tell, name="omega-notes", daemon=True)
            _thread.start()


def _tell() -> None:
    while _omega.wait_for_notes():
        flush()


def stop() -> None:
    """Waits for the last lines. The Rust side has ended."""
    thread = _thread
    if thread is not None and thread is not threading.current_thread():
        thread.join(timeout=1)
    flush()


def _after_fork() -> None:
    global _lock, _starting, _thread
    _lock, _starting, _thread = threading.RLock(), threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
