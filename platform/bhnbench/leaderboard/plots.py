"""Figures of a sweep: those that its tasks know to draw, and one that fits every task.

Only matplotlib's objects are used, never its global state; importing this module imports none of
it. Colours: Okabe and Ito (2008), told apart by colour-blind people too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from bhnbench import plugins
from bhnbench.contract import Metric, Outcome, Table
from bhnbench.errors import BhnbenchError, ContractError
from bhnbench.leaderboard.board import MethodRow, TaskTable
from bhnbench.leaderboard.ranking import build_leaderboard
from bhnbench.leaderboard.wording import ARROWS
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.records import SweepRecord
from bhnbench.words import as_file_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, GREY = "#0072B2", "#7F7F7F"
DPI = 150
LETTERS = 13  # of a title, an inch


def draw_figures(ledger: Ledger, sweep: SweepRecord) -> dict[str, dict[str, Figure]]:
    """``{task label: {figure name: figure}}``, from the done evaluation runs.

    Every task has "scores"; a task's own figures stand beside it, or replace it. A task without
    a done run has none.

    Raises:
        ContractError: a task's figure cannot be drawn.
    """
    board = build_leaderboard(ledger, sweep)
    methods = list(dict.fromkeys(study.spec.labels[1] for study in sweep.studies))
    return {table.label: _draw(ledger, table, methods) for table in board.tables}


def save_figures(
    ledger: Ledger, sweep: SweepRecord, folder: Path, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write the figures as ``folder/TASK-FIGURE.png`` and the like; returns the files.

    Raises:
        ContractError: a task's figure cannot be drawn; then nothing is written.
        BhnbenchError: a file cannot be written.
    """
    drawn = draw_figures(ledger, sweep)
    try:
        return _save(drawn, folder, formats)
    except OSError as error:
        raise BhnbenchError(
            f"{folder}: figures cannot be written: {error.strerror}; name another folder"
        ) from error


def _save(
    drawn: Mapping[str, Mapping[str, Figure]], folder: Path, formats: Sequence[str]
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for task, figures in drawn.items():
        for name, figure in figures.items():
            for format_ in formats:
                path = _free_path(folder, f"{task}-{name}", format_, paths)
                figure.savefig(path, format=format_, dpi=DPI)
                paths.append(path)
    return paths


def _free_path(folder: Path, title: str, suffix: str, taken: Sequence[Path]) -> Path:
    """A file name without odd characters; labels that differ in those alone get a number."""
    stem = as_file_name(title)
    path, number = folder / f"{stem}.{suffix}", 1
    while path in taken:
        number += 1
        path = folder / f"{stem}-{number}.{suffix}"
    return path


def _draw(ledger: Ledger, table: TaskTable, methods: Sequence[str]) -> dict[str, Figure]:
    """One task's figures; methods come in the sweep's order, so that they keep their colours."""
    rows = sorted((row for row in table.rows if row.score), key=lambda r: methods.index(r.label))
    if not rows:
        return {}
    task = plugins.load_task(table.plugin)
    metric = next((m for m in task.metrics if m.name == table.metric), None)
    figures = {"scores": draw_scores(table, metric or Metric(table.metric, table.direction, ""))}
    outcomes = {row.label: list(_outcomes(ledger, row)) for row in rows} if task.figures else {}
    for name, draw in task.figures.items():
        try:
            figures[name] = _named(draw(outcomes), table.label)
        except Exception as error:
            rule = f"figure {name!r} must be drawable from its runs' tables"
            problem = f"{type(error).__name__}: {error}"
            raise ContractError(f"task {table.plugin}: {rule}, but got {problem}") from error
    return figures


def _named(figure: Figure, label: str) -> Figure:
    """The figure with the task's label in its title: a sweep may have a task several times."""
    title = ": ".join(filter(None, [label, figure.get_suptitle()]))
    width = int(LETTERS * figure.get_figwidth())
    lines = [fill(line, width) for line in title.splitlines()]
    figure.suptitle("\n".join(lines), fontsize="medium")
    return figure


def _outcomes(ledger: Ledger, row: MethodRow) -> Iterator[Outcome]:
    """The done evaluation runs, by seed."""
    for run in row.seeds:
        if run.scores and run.run_id is not None:
            tables = ledger.tables(run.run_id)
            yield Outcome(run.scores, {name: _arrays(table) for name, table in tables.items()})


def _arrays(table: Mapping[str, Sequence[Any]]) -> Table:
    """Columns as arrays; the ledger keeps what is not finite as None."""
    import numpy as np

    return {
        column: np.asarray([math.nan if value is None else value for value in values])
        for column, values in table.items()
    }


def draw_scores(table: TaskTable, metric: Metric) -> Figure:
    """Each method's scores: a dot a seed, the mean, and its 95 % interval; best on top.

    Methods that share the first rank are blue.
    """
    from matplotlib.figure import Figure

    rows = [row for row in table.rows if row.score]
    figure = Figure(figsize=(7, 1.6 + 0.45 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for position, row in enumerate(rows):
        _draw_row(axes, position, row, table.metric)
    axes.set_yticks(range(len(rows)), [_tick(row) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.08)
    if metric.unit == "%":
        _clip(axes, [score for row in rows for score in row.scores(table.metric).values()])
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0, pad=9)  # clear of a score at the edge
    unit = f" ({metric.unit})" if metric.unit else ""
    better = "higher" if metric.direction == "maximize" else "lower"
    arrow = ARROWS[metric.direction]
    axes.set_xlabel(f"{metric.name}{unit} on test data, {arrow} {better} is better")
    axes.set_ylabel("method and rank")
    figure.suptitle("seeds (dots), mean and 95 % interval")
    return _named(figure, table.label)


def _clip(axes: Axes, scores: Sequence[float]) -> None:
    """An interval may leave 0 to 100 %; the axis does only where a score does."""
    low, high = axes.get_xlim()
    low = max(low, min(0, *scores))
    high = min(high, max(100, *scores))
    axes.set_xlim(low, high)


def _tick(row: MethodRow) -> str:
    done = f" ({len(row.run_ids)}/{len(row.seeds)} seeds)" if row.gap else ""
    return f"{row.label}{done}  {row.rank}"


def _draw_row(axes: Axes, position: int, row: MethodRow, metric: str) -> None:
    if row.score is None:
        return
    colour = BLUE if row.rank == 1 else GREY
    scores = list(row.scores(metric).values())
    above = [position - 0.2] * len(scores)  # the interval would hide them
    axes.plot(scores, above, "o", color=colour, alpha=0.45, ms=5, mew=0, clip_on=False)
    axes.errorbar(
        row.score.mean,
        position,
        xerr=row.score.half_width,
        fmt="none",
        ecolor=colour,
        elinewidth=1.8,
        capsize=4,
    )
    mean = [row.score.mean], [position]
    axes.plot(*mean, "D", color=colour, ms=7, mec="white", clip_on=False, zorder=3)
