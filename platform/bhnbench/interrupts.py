"""Signals that end a sweep, held back where they would break more than they stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

PREEMPTIONS = (signal.SIGTERM, signal.SIGUSR1)  # from a cloud, a job's stop, SLURM
INTERRUPTED = 130
PREEMPTED = 75  # "temporary failure": whoever sent the signal may start it again


class Listener:
    """Raises KeyboardInterrupt at Ctrl-C and at the first SIGTERM or SIGUSR1.

    A second one of those is not heard: what the first began is short, and is not to be broken off.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        """Nothing is heard yet.

        Args:
            say: hears the signal's name at once, before anything is ended.
        """
        self._say = say
        self._heard: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """What a command that was interrupted exits with."""
        return PREEMPTED if self._heard in PREEMPTIONS else INTERRUPTED

    def listen(self) -> None:
        """From now on, in place of whoever else has begun to since."""
        for number in (signal.SIGINT, *PREEMPTIONS):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nobody wants it to be heard
                signal.signal(number, self.hear)

    def hear(self, number: int, _frame: FrameType | None) -> None:
        """The handler.

        Raises:
            KeyboardInterrupt: always.
        """
        self._heard = signal.Signals(number)
        for preemption in PREEMPTIONS:
            signal.signal(preemption, signal.SIG_IGN)
        self._say(self._heard.name)
        raise KeyboardInterrupt


_listeners: list[Listener] = []


@contextmanager
def preemptions_heard(say: Callable[[str], None]) -> Iterator[Listener]:
    """Within the block a machine that wants its place back interrupts, as Ctrl-C does."""
    listener = Listener(say)
    if not _hears_signals():
        yield listener
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *PREEMPTIONS)}
    listener.listen()
    _listeners.append(listener)
    try:
        yield listener
    finally:
        _listeners.remove(listener)
        for number, handler in before.items():
            signal.signal(number, handler)


def listen_again() -> None:
    """For whoever has called a library that listens for itself, as Ray Tune does for SIGUSR1."""
    if _listeners and _hears_signals():
        _listeners[-1].listen()


def preempt() -> None:
    """As if SIGUSR1 had been heard.

    Raises:
        KeyboardInterrupt: always.
    """
    if _listeners:
        _listeners[-1].hear(signal.SIGUSR1, None)
    raise KeyboardInterrupt


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Ctrl-C, and a preemption that is listened for, are heard at the end of the block.

    For imports, since a compiled library whose import is broken off may abort the process or leave
    a lock behind, and for the start of Ray, which may crash. Does nothing outside the main thread,
    which alone hears signals.

    Raises:
        KeyboardInterrupt: at the end of the block, if a signal came within it.
    """
    if not _hears_signals():
        yield
        return
    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *PREEMPTIONS)}
    held = {number: handler for number, handler in before.items() if callable(handler)}
    try:
        for number in held:
            signal.signal(number, lambda number, frame: heard.append(number))
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        if heard:
            held[signal.Signals(heard[0])](heard[0], None)


def _hears_signals() -> bool:
    return threading.current_thread() is threading.main_thread()
