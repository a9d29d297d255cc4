"""`bhnbench run`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import click

from bhnbench.cli.options import any_home_option, console, duration, json_option, print_json
from bhnbench.contract import Metric
from bhnbench.errors import BhnbenchError, InvalidSweepError
from bhnbench.plugins import Kind
from bhnbench.specs import Phase


@click.command()
@click.argument("task")
@click.argument("method")
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="task.X=V or method.X=V: a setting or hyperparameter. Repeatable.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--holdout",
    type=click.Choice(["validation", "test"]),
    default="validation",
    show_default=True,
    help="What to score on.",
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@json_option
@any_home_option
def run(
    task: str,
    method: str,
    overrides: Sequence[str],
    seed: int,
    holdout: str,
    threads: int,
    as_json: bool,
) -> None:
    """Run METHOD on TASK once in this process and print the scores; nothing is recorded."""
    from bhnbench.runner import execute, load_task
    from bhnbench.specs import RunSpec
    from bhnbench.sweep.entries import bind

    settings = _read_overrides(overrides)
    plugins, mistakes = {}, []
    names: dict[Kind, str] = {"task": task, "method": method}
    for kind, name in names.items():
        try:
            plugins[kind] = bind(kind, name, settings[kind])
        except ValueError as error:
            mistakes += [f"--set {kind}.{line}" for line in str(error).splitlines()]
    if mistakes:
        raise InvalidSweepError(mistakes)
    phase: Phase = "search" if holdout == "validation" else "evaluate"
    spec = RunSpec(plugins["task"], plugins["method"], phase, seed)
    result = execute(spec, n_threads=threads)
    if result.outcome is None:
        raise BhnbenchError(f"the run failed ({result.failure}): {result.message}")
    if as_json:
        scores = dict(result.outcome.scores)
        print_json({"key": spec.key, "scores": scores, "cost": asdict(result.cost)})
        return
    _print_scores(load_task(spec.task).metrics, result.outcome.scores)
    seconds = duration(result.cost.fit_seconds), duration(result.cost.score_seconds)
    click.echo(f"scored on {holdout}, seed {seed}; fitting {seconds[0]}, scoring {seconds[1]}")


def _read_overrides(overrides: Iterable[str]) -> dict[str, dict[str, object]]:
    from bhnbench.sweep.yaml_file import parse_value

    settings: dict[str, dict[str, object]] = {"task": {}, "method": {}}
    mistakes = []
    for text in overrides:
        key, equals, raw = text.partition("=")
        owner, _, name = key.partition(".")
        if not equals or not name or owner not in settings:
            mistakes.append(f"--set {text}: must be task.X=VALUE or method.X=VALUE")
            continue
        try:
            settings[owner][name] = parse_value(raw)
        except ValueError as error:
            mistakes.append(f"--set {text}: {error}")
    if mistakes:
        raise InvalidSweepError(mistakes)
    return settings


def _print_scores(metrics: Iterable[Metric], scores: Mapping[str, float]) -> None:
    from rich.table import Table

    table = Table("metric", "score", "unit", "better")
    for metric in metrics:
        better = "higher" if metric.direction == "maximize" else "lower"
        table.add_row(metric.name, f"{scores[metric.name]:.6g}", metric.unit, better)
    console().print(table)
