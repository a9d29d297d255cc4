"""Mirrors of data files on this machine, which also fail, stall, break off and serve nonsense."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """What a mirror answers."""

    body: bytes = b""
    status: int = 200
    ranges: bool = True  # whether a part can be asked for
    breaks: list[int] = field(default_factory=list)  # so many bytes, then the line goes dead
    stalls: int | None = None  # at this byte, with the line open
    seconds: float = 0.0  # to wait before anything is sent
    location: str = ""  # where it has moved


class Mirrors:
    """A real HTTP server: the first part of a path chooses the answer."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, str | None]] = []  # path, range
        self.closed = threading.Event()
        self._http = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"mirrors": self})
        )
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def add(self, name: str, body: bytes = b"", **answer: object) -> str:
        """A mirror of that name; returns its address."""
        self.answers[name] = Answer(body, **answer)  # type: ignore[arg-type]
        return f"http://127.0.0.1:{self._http.server_port}/{name}/"

    @property
    def ranges(self) -> list[str | None]:
        """The ranges that were asked for, None for the whole."""
        return [asked for _, asked in self.requests]

    @property
    def asked(self) -> Sequence[str]:
        """The mirrors that were asked, in order."""
        return [path.split("/")[1] for path, _ in self.requests]

    def close(self) -> None:
        """Stop serving; whoever is kept waiting is let go."""
        self.closed.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    mirrors: Mirrors

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.mirrors.requests.append((self.path, asked))
        answer = self.mirrors.answers.get(self.path.split("/")[1], Answer(status=404))
        self.mirrors.closed.wait(answer.seconds)
        begin = int(asked[len("bytes=") : -1]) if asked and answer.ranges else 0
        if answer.status == 200 and begin and begin >= len(answer.body):
            self._head(416, 0)
        elif answer.status != 200:
            self._head(answer.status, 0, answer.location)
        else:
            self._head(206 if begin else 200, len(answer.body) - begin)
            self._send(answer, answer.body[begin:])

    def _head(self, status: int, length: int, location: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if location:
            self.send_header("Location", location)
        self.end_headers()

    def _send(self, answer: Answer, body: bytes) -> None:
        if answer.stalls is not None:
            sent = len(answer.body) - len(body)
            self._write(body[: max(answer.stalls - sent, 0)])
            self.mirrors.closed.wait()
        elif answer.breaks:
            self._write(body[: answer.breaks.pop(0)])
        else:
            self._write(body)

    def _write(self, body: bytes) -> None:
        with suppress(ConnectionError):  # whoever asked waits no longer
            self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        pass
