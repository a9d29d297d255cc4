"""A leaderboard as text: for terminals, Markdown, CSV and JSON."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from itertools import zip_longest

from bhnbench.errors import InvalidSweepError, did_you_mean
from bhnbench.leaderboard import wording
from bhnbench.leaderboard.board import Leaderboard, TaskTable
from bhnbench.leaderboard.exports import to_csv, to_json
from bhnbench.leaderboard.wording import Column

MAX_WIDTH = 100
MIN_TEXT = 8  # of a column of text, where there is little room
GAP = 3  # between columns


def render(board: Leaderboard, format_: str = "table") -> str:
    """The leaderboard as ``table``, ``markdown``, ``csv`` or ``json``, without a last newline.

    Raises:
        InvalidSweepError: there is no such format.
    """
    if format_ not in FORMATS:
        raise InvalidSweepError(
            [f"--format: no format {format_!r}; {did_you_mean(format_, FORMATS)}"]
        )
    return FORMATS[format_](board)


def _terminal(board: Leaderboard) -> str:
    width = min(shutil.get_terminal_size((MAX_WIDTH, 24)).columns, MAX_WIDTH)
    parts = [_terminal_table(board, table, width) for table in board.tables]
    return "\n\n".join([*parts, *_outside(board)])


def _terminal_table(board: Leaderboard, table: TaskTable, width: int) -> str:
    parts = [*wording.headings(board, table), "", _grid(wording.ranking(table), width), ""]
    parts += [textwrap.fill(line, width) for line in wording.rules(board)]
    notes = {"missing": wording.gaps(table), f"warned {wording.MARK}": wording.warnings(table)}
    for title, lines in notes.items():
        if lines:
            parts += ["", f"{title}:", *_items(lines, width)]
    methods = Column("also measured", tuple(row.label for row in table.rows), is_text=True)
    for group in _side_by_side(methods, wording.besides(table), width):
        parts += ["", _grid([methods, *group], width)]
    parts += ["", textwrap.fill(wording.COST, width)]
    evaluated = [f"{label}: {text}" for label, text in wording.configurations(table)]
    if evaluated:
        parts += ["", "evaluated (all about one: bhnbench show RUN):", *_items(evaluated, width)]
    return "\n".join(parts)


def _side_by_side(first: Column, columns: Sequence[Column], width: int) -> list[list[Column]]:
    """The columns in groups that fit beside the first one."""
    groups: list[list[Column]] = []
    used = width
    for column in columns:
        if used + column.width + GAP > width:
            groups.append([])
            used = first.width
        groups[-1].append(column)
        used += column.width + GAP
    return groups


def _items(lines: Sequence[str], width: int) -> list[str]:
    wrapper = textwrap.TextWrapper(
        width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
    )
    return [wrapper.fill(line) for line in lines]


def _grid(columns: Sequence[Column], width: int) -> str:
    """Columns side by side; text that is too long goes on below.

    Not a table of rich's, which takes as long as all else that a large leaderboard needs.
    """
    room = width - sum(column.width + GAP for column in columns) + GAP
    widths = [max(c.width + min(room, 0), MIN_TEXT) if c.is_text else c.width for c in columns]
    head, *body = zip(*((column.title, *column.cells) for column in columns), strict=True)
    lines = [line for cells in body for line in _lines(columns, widths, cells)]
    titles = _lines(columns, widths, head)
    if sys.stdout.isatty():
        titles = [f"\x1b[1m{line}\x1b[0m" for line in titles]
    return "\n".join([*titles, "─" * (sum(widths) + GAP * (len(columns) - 1)), *lines])


def _lines(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> list[str]:
    """One row, in as many lines as it takes."""
    from rich.cells import cell_len, chop_cells

    pieces = [chop_cells(cell, size) or [""] for cell, size in zip(cells, widths, strict=True)]
    lines = []
    for parts in zip_longest(*pieces, fillvalue=""):
        blanks = [" " * (n - cell_len(part)) for n, part in zip(widths, parts, strict=True)]
        padded = [
            part + blank if column.is_text else blank + part
            for column, part, blank in zip(columns, parts, blanks, strict=True)
        ]
        lines.append((" " * GAP).join(padded).rstrip())
    return lines


def _markdown(board: Leaderboard) -> str:
    parts = [_markdown_table(board, table) for table in board.tables]
    return "\n\n".join([*parts, *_outside(board)])


def _markdown_table(board: Leaderboard, table: TaskTable) -> str:
    title, *about = wording.headings(board, table)
    columns = [*wording.ranking(table), *wording.besides(table)]
    rules = ["---" if column.is_text else "---:" for column in columns]
    body = zip(*(column.cells for column in columns), strict=True)
    lines = [f"### {title}", "", "  \n".join(about), ""]
    lines += [_pipes([column.title for column in columns]), _pipes(rules), *map(_pipes, body), ""]
    lines += [f"- missing: {gap}" for gap in wording.gaps(table)]
    lines += [f"- warned {wording.MARK}: {warning}" for warning in wording.warnings(table)]
    lines += [f"- `{label}`: {text}" for label, text in wording.configurations(table)]
    lines += [f"- code: {code}" for code in table.code]
    return "\n".join([*lines, "", *wording.rules(board), wording.COST])


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _outside(board: Leaderboard) -> list[str]:
    """What no table can say."""
    if not board.without_metric:
        return []
    return [f"left out, since they have no such metric: {', '.join(board.without_metric)}"]


FORMATS: dict[str, Callable[[Leaderboard], str]] = {
    "table": _terminal,
    "markdown": _markdown,
    "csv": to_csv,
    "json": to_json,
}
