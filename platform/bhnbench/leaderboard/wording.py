"""What a table says around its numbers: headings, cells, rule, gaps, configurations."""

from __future__ import annotations

from dataclasses import dataclass

from bhnbench.leaderboard import numbers
from bhnbench.leaderboard.board import Leaderboard, MethodRow, TaskTable
from bhnbench.leaderboard.rows import in_words
from bhnbench.words import counted

MARK = "(!)"  # of a method whose evaluation runs carry warnings
ARROWS = {"maximize": "↑", "minimize": "↓"}
RULE = (
    "rank: shared with the best by all methods that are not found worse (p < 0.05); the others "
    "are ranked the same way among themselves. ±: half the 95 % t interval of the mean over "
    "seeds. vs best: mean difference on common seeds; p: its paired t test, Holm-corrected."
)
COST = (
    "fit: mean of an evaluation run. study: all its runs, search included. memory: highest peak."
)
ONE_SEED = "one seed: no intervals, and no two methods can be told apart; raise evaluate.seeds."


@dataclass(frozen=True)
class Column:
    """One column of a table for people."""

    title: str
    cells: tuple[str, ...]
    is_text: bool = False  # text stands left, numbers right

    @property
    def width(self) -> int:
        """Of its longest line, on a terminal."""
        from rich.cells import cell_len

        return max(cell_len(text) for text in (self.title, *self.cells))


def headings(board: Leaderboard, table: TaskTable) -> list[str]:
    """What the table is about, in two lines."""
    better = "higher" if table.direction == "maximize" else "lower"
    unit = f" in {table.unit}" if table.unit else ""
    lines = [
        f"{board.sweep} · {table.label} · {counted(board.n_seeds, 'seed')} on test data",
        f"{table.metric}{unit}, {ARROWS[table.direction]} {better} is better{_chosen_by(table)}",
    ]
    if board.n_left:
        lines.append(f"unfinished: {counted(board.n_left, 'run')} left; `bhnbench sweep` goes on")
    return lines


def _chosen_by(table: TaskTable) -> str:
    if not any(row.search.n_trials for row in table.rows):
        return ""
    return f" · configurations chosen by {table.chosen_by} on validation data"


def ranking(table: TaskTable) -> list[Column]:
    """Who is best, and how sure that is."""
    rows = table.rows
    return [
        Column("rank", tuple(str(row.rank or "–") for row in rows)),
        Column("method", tuple(_marked(row) for row in rows), is_text=True),
        Column(metric_title(table), tuple(_score(row, table.metric) for row in rows)),
        Column("vs best", tuple(_difference(row, row is rows[0]) for row in rows)),
        Column("p", tuple(_p_value(row) for row in rows)),
        Column("seeds", tuple(f"{len(row.run_ids)}/{len(row.seeds)}" for row in rows)),
    ]


def _marked(row: MethodRow) -> str:
    return f"{row.label} {MARK}" if row.warned else row.label


def besides(table: TaskTable) -> list[Column]:
    """What was measured besides: the other metrics, and the cost."""
    rows = table.rows
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    names.pop(table.metric, None)
    return [
        *(Column(name, tuple(_score(row, name) for row in rows)) for name in names),
        Column("fit", tuple(numbers.duration(row.cost.fit_seconds) for row in rows)),
        Column("study", tuple(numbers.duration(row.cost.total_seconds) for row in rows)),
        Column("memory", tuple(numbers.memory(row.cost.peak_memory_mb) for row in rows)),
    ]


def metric_title(table: TaskTable) -> str:
    """The metric with its unit and an arrow to the better side."""
    unit = f" ({table.unit})" if table.unit else ""
    return f"{table.metric}{unit} {ARROWS[table.direction]}"


def _score(row: MethodRow, metric: str) -> str:
    summary = row.metrics.get(metric)
    return numbers.estimate(summary) if summary else "–"


def _difference(row: MethodRow, is_first: bool) -> str:
    if row.versus is not None:
        return numbers.estimate(row.versus.difference, signed=True)
    return "" if row.rank is None else "best" if is_first else "?"


def _p_value(row: MethodRow) -> str:
    return numbers.p_value(row.versus.p_value) if row.versus is not None else ""


def rules(board: Leaderboard) -> list[str]:
    """How to read the ranking."""
    return [RULE, ONE_SEED] if board.n_seeds == 1 else [RULE]


def gaps(table: TaskTable) -> list[str]:
    """What is missing and why, a line a method."""
    return [_gap(row) for row in table.rows if row.reason or row.gap]


def _gap(row: MethodRow) -> str:
    head = f"{row.label}: no rank, {row.reason}" if row.reason else f"{row.label} {row.gap}"
    examples = {run.failure: run for run in reversed(row.seeds) if run.state == "failed"}
    said = [
        f"seed {run.seed} is {in_words(run.run_id, run.message)}"
        for run in sorted(examples.values(), key=lambda run: run.seed)
    ]
    return "; ".join([head, *said])


def warnings(table: TaskTable) -> list[str]:
    """The footnotes of the marked methods, a line each."""
    return [_warning(row) for row in table.rows if row.warned]


def _warning(row: MethodRow) -> str:
    first = row.warned[0]
    runs = f"{len(row.warned)} of {counted(len(row.seeds), 'evaluation run')}"
    return f"{row.label}: {runs}, such as {in_words(first.run_id, first.warnings[0])}"


def configurations(table: TaskTable) -> list[tuple[str, str]]:
    """Each method's configuration: (label, what was chosen, how, and where its runs are)."""
    return [(row.label, _configuration(row)) for row in table.rows if row.chosen is not None]


def _configuration(row: MethodRow) -> str:
    chosen = row.chosen
    if chosen is None:
        return ""
    fixed = numbers.settings({name: chosen.configuration[name] for name in chosen.fixed})
    if not chosen.searched:
        return f"{fixed or 'defaults'} (nothing searched; {_runs(row)})"
    values = numbers.settings({name: chosen.configuration[name] for name in chosen.searched})
    validation = "" if chosen.validation is None else f", validation {chosen.validation:.4g}"
    best = f"best of {counted(row.search.n_trials, 'trial')}: number {chosen.trial}{validation}"
    failed = sum(row.search.failures.values())
    failures = f", {failed} failed" if failed else ""
    also = f"; fixed: {fixed}" if fixed else ""
    return f"{values}{also} ({best}{failures}; {_runs(row)})"


def _runs(row: MethodRow) -> str:
    if row.run_ids:
        return f"runs {numbers.id_ranges(row.run_ids)}"
    failed = sum(run.state == "failed" for run in row.seeds)
    return f"no run done, {failed} failed" if failed else "no runs yet"
