"""Pieces of English that several modules say."""

from __future__ import annotations

import re

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # what may name a sweep, and so a folder
MAX_BYTES = 200  # of a file's name; 255 is what file systems take, suffix and all


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number of things, such as "1 run" or "2 studies"."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def mebibytes(size: int) -> str:
    """A number of bytes, such as "1.5 MiB"."""
    return f"{size / 2**20:.1f} MiB"


def as_file_name(text: str) -> str:
    """Text as one name in a folder: no separator or odd character, neither hidden nor too long."""
    name = re.sub(r"[^\w.=-]+", "_", text).lstrip("._-")
    return name.encode()[:MAX_BYTES].decode(errors="ignore") or "unnamed"


def one_line(text: object) -> str:
    """Text in one line that every database and terminal can hold."""
    words = " ".join(str(text).replace("\0", "").split())
    return words.encode(errors="replace").decode()
