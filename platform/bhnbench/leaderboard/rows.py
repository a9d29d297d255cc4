"""One study's row, read from its status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bhnbench.leaderboard.board import Chosen, MethodRow, Search, SeedRun, StudyCost, counts
from bhnbench.ledger.records import RunRecord
from bhnbench.statistics import summarize
from bhnbench.status import StudyStatus
from bhnbench.sweep.parameters import read_parameter

MESSAGE_LENGTH = 160


def read_row(status: StudyStatus, metric: str, fixed: Sequence[str] = ()) -> MethodRow:
    """The row of one study, not ranked yet; ``fixed``: what the sweep file set of the method."""
    seeds = _seed_runs(status)
    search = _search(status)
    names = dict.fromkeys([metric, *(name for run in seeds for name in run.scores)])
    values = {
        name: [run.scores[name] for run in seeds if name in run.scores] for name in names
    }  # fmt: skip
    metrics = {name: summarize(scores) for name, scores in values.items() if scores}
    score = metrics.get(metric)
    return MethodRow(
        label=status.study.labels[1],
        rank=None,
        score=score,
        versus=None,
        metrics=metrics,
        seeds=seeds,
        chosen=_chosen(status, tuple(fixed)),
        search=search,
        cost=_cost(status),
        reason="" if score else _reason(status, search, seeds, metric),
    )


def fixed_settings(document: Mapping[str, Any]) -> list[list[str]]:
    """What a sweep file sets of each of its methods, by name; search spaces are none of it."""
    return [_set_in(entry) for entry in document["methods"]]


def _set_in(entry: str | Mapping[str, Any]) -> list[str]:
    if isinstance(entry, str):
        return []
    beside = [name for name in entry if name not in ("name", "label", "parameters")]
    spaces = entry.get("parameters") or {}
    return [*beside, *(name for name, space in spaces.items() if read_parameter(space)[0] is None)]


def _seed_runs(status: StudyStatus) -> tuple[SeedRun, ...]:
    known = {run.spec.seed: run for run in status.evaluations}
    return tuple(_seed_run(seed, known.get(seed)) for seed in range(1, status.n_seeds + 1))


def _seed_run(seed: int, run: RunRecord | None) -> SeedRun:
    if run is None:
        return SeedRun(seed, "not run", None, None, {}, None, "")
    scores = run.scores if run.state == "done" else {}
    return SeedRun(
        seed, run.state, run.id, run.key, scores, run.failure, run.message, tuple(run.warnings)
    )


def _chosen(status: StudyStatus, fixed: tuple[str, ...]) -> Chosen | None:
    if status.n_trials == 0:
        return Chosen(status.configuration, (), fixed)
    if status.best is None or not status.search_over:
        return None
    best = status.best
    searched = tuple(status.study.space)
    return Chosen(status.configuration, searched, fixed, best.number, best.run_id, best.value)


def _search(status: StudyStatus) -> Search:
    tally = status.search
    failures = Counter[str]()
    for (state, failure), number in sorted(tally.ends.items(), key=str):
        if state == "failed":
            failures[failure or state] += number
    return Search(
        n_trials=status.n_trials,
        n_ended=tally.n_ended,
        failures=dict(failures),
        example=in_words(tally.failed[0].id, tally.failed[0].message) if tally.failed else "",
    )


def _cost(status: StudyStatus) -> StudyCost:
    done = [run.cost for run in status.evaluations if run.state == "done"]
    peaks = [cost.peak_memory_mb for cost in done if cost.peak_memory_mb is not None]
    return StudyCost(
        fit_seconds=summarize([cost.fit_seconds for cost in done]).mean if done else None,
        total_seconds=status.seconds,
        peak_memory_mb=max(peaks, default=None),
    )


def _reason(status: StudyStatus, search: Search, seeds: Sequence[SeedRun], metric: str) -> str:
    """Why a study has no score."""
    if status.hopeless:
        pruned = status.count("pruned", phase="search")
        ends = {**search.failures, **({"pruned": pruned} if pruned else {})}
        return _with_example(
            f"none of {search.n_trials} trials is done ({counts(ends)})", search.example
        )
    if not search.over:
        failed = f", {counts(search.failures)}" if search.failures else ""
        text = f"search unfinished: {search.n_ended} of {search.n_trials} trials{failed}"
        return _with_example(text, search.example)
    if any(run.scores for run in seeds):
        return f"its runs have no {metric}"
    ends = Counter(run.failure or run.state for run in seeds)
    return f"no evaluation run is done ({counts(ends)})"


def _with_example(text: str, example: str) -> str:
    return f"{text}, such as {example}" if example else text


def code_of(statuses: Sequence[StudyStatus]) -> tuple[str, ...]:
    """The packages that the done evaluation runs of these studies executed, each once."""
    done = [run for status in statuses for run in status.evaluations if run.state == "done"]
    plugins = [plugin for run in done for plugin in run.provenance.get("plugins", {}).values()]
    return tuple(sorted({_package(plugin) for plugin in plugins}))


def _package(plugin: Mapping[str, Any]) -> str:
    """Such as "bhnbench 0.1.0 at commit 1a2b3c4d5e6f"."""
    package, git = plugin["package"], plugin["git"]
    if git is None:
        return str(package)
    changes = " with uncommitted changes" if git["dirty"] else ""
    return f"{package} at commit {git['commit'][:12]}{changes}"


def in_words(run_id: int | None, message: str) -> str:
    """A failed run in one line."""
    first = message.partition("\n")[0]
    short = first if len(first) <= MESSAGE_LENGTH else f"{first[: MESSAGE_LENGTH - 3]}..."
    return f"run {run_id}: {short}" if short else f"run {run_id}"
