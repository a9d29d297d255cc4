"""`bhnbench run`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict

import click

from bhnbench.cli.options import any_home_option, console, duration, json_option, print_json
from bhnbench.contract import Metric
from bhnbench.errors import BhnbenchError, InvalidSweepError
from bhnbench.plugins import Kind
from bhnbench.runs import Point
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

    names: dict[Kind, str] = {"task": task, "method": method}
    settings = _read_overrides(overrides, names)
    plugins, mistakes = {}, []
    for kind, name in names.items():
        try:
            plugins[kind] = bind(kind, name, settings[kind])
        except ValueError as error:
            mistakes += [
                _place(kind, name, settings[kind], line) for line in str(error).splitlines()
            ]
    if mistakes:
        raise InvalidSweepError(mistakes)
    phase: Phase = "search" if holdout == "validation" else "evaluate"
    spec = RunSpec(plugins["task"], plugins["method"], phase, seed)
    result = execute(spec, n_threads=threads)
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    if result.outcome is None:
        raise BhnbenchError(f"the run failed ({result.failure}): {result.message}")
    reported = _last_reported(result.points)
    if as_json:
        content = {"key": spec.key, "scores": dict(result.outcome.scores), "reported": reported}
        print_json(content | {"warnings": list(result.warnings), "cost": asdict(result.cost)})
        return
    _print_scores(load_task(spec.task).metrics, result.outcome.scores)
    if reported:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in reported.items())
        click.echo(f"last reported while it ran: {figures}")
    seconds = duration(result.cost.fit_seconds), duration(result.cost.score_seconds)
    click.echo(f"scored on {holdout}, seed {seed}; fitting {seconds[0]}, scoring {seconds[1]}")


def _place(kind: Kind, name: str, settings: Collection[str], mistake: str) -> str:
    """A mistake with the option that made it; of several together, with the plugin."""
    key = mistake.partition(": ")[0]
    return f"--set {kind}.{mistake}" if key in settings else f"{kind} {name}: {mistake}"


def _read_overrides(
    overrides: Iterable[str], names: Mapping[Kind, str]
) -> dict[str, dict[str, object]]:
    from bhnbench.sweep.yaml_file import parse_value

    settings: dict[str, dict[str, object]] = {"task": {}, "method": {}}
    mistakes = []
    for text in overrides:
        key, equals, raw = text.partition("=")
        owner, _, name = key.partition(".")
        if not equals or not name or owner not in settings:
            rule = f"must be task.X=VALUE or method.X=VALUE{_whose(key, names)}"
            mistakes.append(f"--set {text}: {rule}")
            continue
        try:
            settings[owner][name] = parse_value(raw)
        except ValueError as error:
            mistakes.append(f"--set {text}: {error}")
    if mistakes:
        raise InvalidSweepError(mistakes)
    return settings


def _whose(key: str, names: Mapping[Kind, str]) -> str:
    """The owners of a setting that was given without one."""
    from bhnbench.plugins import find_plugin
    from bhnbench.space import fields_of

    setting = key.rpartition(".")[2]
    loaded = {kind: find_plugin(kind, name).load() for kind, name in names.items()}
    owners = [f"{kind}.{setting}" for kind, cls in loaded.items() if setting in fields_of(cls)]
    return f"; did you mean {' or '.join(owners)}?" if owners else ""


def _last_reported(points: Sequence[Point]) -> dict[str, float]:
    """The last value of everything that was reported."""
    return {name: value for _, metrics in points for name, value in metrics.items()}


def _print_scores(metrics: Iterable[Metric], scores: Mapping[str, float]) -> None:
    from rich.table import Table

    table = Table("metric", "score", "unit", "better")
    for metric in metrics:
        better = "higher" if metric.direction == "maximize" else "lower"
        table.add_row(metric.name, f"{scores[metric.name]:.6g}", metric.unit, better)
    console().print(table)
