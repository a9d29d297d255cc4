"""`bhnbench run`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict

import click

from bhnbench.cli.options import any_home_option, console, duration, json_option, print_json
from bhnbench.contract import Metric
from bhnbench.errors import BhnbenchError, InvalidSweepError
from bhnbench.plugins import Kind
from bhnbench.runs import RunResult
from bhnbench.specs import Phase, PluginSpec, RunSpec


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
    names: dict[Kind, str] = {"task": task, "method": method}
    plugins = _bind(names, _read_overrides(overrides, names))
    phase: Phase = "search" if holdout == "validation" else "evaluate"
    spec = RunSpec(plugins["task"], plugins["method"], phase, seed)
    result = _execute(spec, threads)
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    if result.outcome is None:
        raise BhnbenchError(f"the run failed ({result.failure}): {result.message}")
    _print_result(spec, result, result.outcome.scores, as_json=as_json)


def _bind(
    names: Mapping[Kind, str], settings: Mapping[str, Mapping[str, object]]
) -> dict[Kind, PluginSpec]:
    """Task and method with their settings, checked."""
    from bhnbench.sweep.entries import bind

    plugins: dict[Kind, PluginSpec] = {}
    mistakes = []
    for kind, name in names.items():
        try:
            plugins[kind] = bind(kind, name, settings[kind])
        except ValueError as error:
            lines = str(error).splitlines()
            mistakes += [_place(kind, name, settings[kind], line) for line in lines]
    if mistakes:
        raise InvalidSweepError(mistakes)
    return plugins


def _execute(spec: RunSpec, n_threads: int) -> RunResult:
    """The run, with its progress on a terminal's standard error."""
    from bhnbench.cli.live import RunProgress, shown
    from bhnbench.runner import execute, load_task

    load_task(spec.task).prepare()  # a download shows its own progress
    progress = RunProgress(f"{spec.task.name} / {spec.method.name}")
    with shown(console(stderr=True), progress.line):
        return execute(spec, listen=progress.listen, n_threads=n_threads)


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


def _print_result(
    spec: RunSpec, result: RunResult, scores: Mapping[str, float], *, as_json: bool
) -> None:
    from bhnbench.cli.live import figures, last_reported
    from bhnbench.runner import load_task

    reported = last_reported(result.points)
    if as_json:
        content = {"key": spec.key, "scores": dict(scores), "reported": reported}
        print_json(content | {"warnings": list(result.warnings), "cost": asdict(result.cost)})
        return
    _print_scores(load_task(spec.task).metrics, scores)
    if reported:
        click.echo(f"last reported while it ran: {figures(reported)}")
    fitting, scoring = duration(result.cost.fit_seconds), duration(result.cost.score_seconds)
    where = f"scored on {spec.holdout}, seed {spec.seed}"
    click.echo(f"{where}; fitting {fitting}, scoring {scoring}")


def _print_scores(metrics: Iterable[Metric], scores: Mapping[str, float]) -> None:
    from rich.table import Table

    table = Table("metric", "score", "unit", "better")
    for metric in metrics:
        better = "higher" if metric.direction == "maximize" else "lower"
        table.add_row(metric.name, f"{scores[metric.name]:.6g}", metric.unit, better)
    console().print(table)
