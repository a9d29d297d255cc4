"""Warnings about a posterior, kept with the run in which they were raised."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from bhnbench.errors import PosteriorWarning
from bhnbench.words import one_line

MAX_WARNINGS = 10  # of one run; a hundred rounds of a task may each have something to say
MAX_LENGTH = 500  # characters of one


class WarningLog:
    """The different texts of the posterior warnings heard so far, in order."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear every ``PosteriorWarning`` of this process.

        No filter silences one or makes an error of it, be it the user's or set by a plugin when it
        was imported. Other warnings go their usual way.
        """
        with warnings.catch_warnings():  # gives filters and hook back at the end
            warnings.simplefilter("always", PosteriorWarning)
            show = warnings.showwarning

            def hear(
                message: Warning | str,
                category: type[Warning],
                filename: str,
                lineno: int,
                file: TextIO | None = None,
                line: str | None = None,
            ) -> None:
                if issubclass(category, PosteriorWarning):
                    self._keep(one_line(message))
                else:
                    show(message, category, filename, lineno, file, line)

            warnings.showwarning = hear
            yield

    def _keep(self, text: str) -> None:
        short = text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."
        if short not in self.texts and len(self.texts) < MAX_WARNINGS:
            self.texts.append(short)
