"""Waiting for facts: each has a condition and a deadline, none is a nap.

TEST_PATIENCE says how many times as late each deadline is, for where everything is slower.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["PATIENCE", "in_thread", "until"]

PATIENCE = float(os.environ.get("TEST_PATIENCE", "1"))

T = TypeVar("T")


def until(fact: Callable[[], T], what: str, *, limit: float = 10.0) -> T:
    """Return the first true value of *fact*, asked every 10 ms; after *limit* seconds, fail."""
    deadline = time.monotonic() + limit * PATIENCE
    while True:
        value = fact()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit:g} s: {what}")
        time.sleep(0.01)


def in_thread(call: Callable[[], T]) -> Future[T]:
    """Run *call*, which may block, in a thread of its own; its value or error is the future's."""
    future: Future[T] = Future()

    def body() -> None:
        try:
            value = call()
        except BaseException as error:  # noqa: BLE001 - the future's reader raises it
            future.set_exception(error)
        else:
            future.set_result(value)

    threading.Thread(target=body, daemon=True).start()
    return future
