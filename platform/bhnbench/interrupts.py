"""Ctrl-C, held back where it would break more than it stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Ctrl-C within the block is heard at its end.

    For imports, since a compiled library whose import is broken off may abort the process or leave
    a lock behind, and for the start of Ray, which may crash. Does nothing outside the main thread,
    which alone hears signals.

    Raises:
        KeyboardInterrupt: at the end of the block, if Ctrl-C came within it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            raise KeyboardInterrupt
