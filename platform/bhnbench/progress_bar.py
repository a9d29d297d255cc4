"""How far a download is, on a terminal's standard error."""

from __future__ import annotations

import sys

_WIDTH = 79


def show(path: str, n_bytes: int, n_bytes_in_all: int | None) -> None:
    """A ``contract.Progress`` that draws one line, over and over; silent without a terminal."""
    if not sys.stderr.isatty():
        return
    size = f"{n_bytes / 1e6:.1f}" + (f" of {n_bytes_in_all / 1e6:.1f}" if n_bytes_in_all else "")
    bar = f"{path}: {size} MB"
    room = _WIDTH - len(bar) - 3
    if n_bytes_in_all and room > 10:
        done = room * min(n_bytes, n_bytes_in_all) // n_bytes_in_all
        bar += f" [{'#' * done}{'.' * (room - done)}]"
    # The cursor stays at the line's start, so that whatever is printed next takes its place.
    end = "\n" if n_bytes == n_bytes_in_all else "\r"
    print(f"{bar[:_WIDTH]:<{_WIDTH}}", end=end, file=sys.stderr, flush=True)
