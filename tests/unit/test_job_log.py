"""A job's log that comes in pieces, and from its beginning again where the stream broke off."""

from __future__ import annotations

from bhnbench.engine.jobs import _Echo


def test_what_came_twice_is_written_once() -> None:
    written: list[str] = []
    echo = _Echo(written.append)
    for start, text in [(0, "one\n"), (4, "two\n"), (0, "one\ntwo\nth"), (10, "ree\n"), (0, "")]:
        echo.take(text, start)
    echo.take("one\ntwo\nthree\nfour", 0)
    assert written == ["one\n", "two\n", "th", "ree\n", "four"]
