"""The `bhnbench` command. Imports click alone: each command's module is imported when it runs."""

from __future__ import annotations

import importlib
from typing import Any

import click

from bhnbench.errors import BhnbenchError, InvalidSweepError, did_you_mean
from bhnbench.interrupts import INTERRUPTED, interrupts_deferred

COMMANDS = {
    "sweep": ("bhnbench.cli.sweep:sweep", "Run what is left of a sweep."),
    "submit": ("bhnbench.cli.jobs:submit", "Run a sweep as a job of a Ray cluster."),
    "jobs": ("bhnbench.cli.jobs:jobs", "List the sweeps submitted to a cluster."),
    "logs": ("bhnbench.cli.jobs:logs", "Print or follow what a job prints."),
    "stop": ("bhnbench.cli.jobs:stop", "End a job, which saves what it is at."),
    "plan": ("bhnbench.cli.sweep:plan", "Show what a sweep would run."),
    "run": ("bhnbench.cli.run:run", "Run one method on one task, here and now."),
    "status": ("bhnbench.cli.status:status", "Show where each study of a sweep stands."),
    "leaderboard": ("bhnbench.cli.leaderboard:leaderboard", "Rank the methods of a sweep."),
    "plot": ("bhnbench.cli.plot:plot", "Draw the figures of a sweep."),
    "show": ("bhnbench.cli.show:show", "Show everything about one run."),
    "why": ("bhnbench.cli.why:why", "Tell one run's story."),
    "methods": ("bhnbench.cli.plugins:methods", "List the methods, or describe one."),
    "tasks": ("bhnbench.cli.plugins:tasks", "List the tasks, or describe one."),
    "data": ("bhnbench.cli.data:data", "List, fetch, check and find data sets."),
    "schema": ("bhnbench.cli.plugins:schema", "Print the JSON schema of the sweep file."),
    "export": ("bhnbench.cli.transfer:export", "Write a ledger's rows to a file."),
    "merge": ("bhnbench.cli.transfer:merge", "Take in the rows of another home's ledger."),
    "gc": ("bhnbench.cli.gc:gc", "Remove what nothing refers to."),
    "ui": ("bhnbench.cli.tracking:ui", "Open the MLflow UI over this home."),
    "doctor": ("bhnbench.cli.doctor:doctor", "Check that everything is in place for a sweep."),
    "sync": ("bhnbench.cli.tracking:sync", "Send MLflow what it does not have yet."),
}


class _Failure(click.ClickException):
    """A BhnbenchError in click's shape."""

    def __init__(self, error: BhnbenchError) -> None:
        super().__init__(str(error))
        vars(self)["exit_code"] = error.exit_code  # click reads it from the instance
        self._plain = isinstance(error, InvalidSweepError)  # its lines name their place

    def show(self, file: Any = None) -> None:  # noqa: ANN401 - click's signature
        """One line a mistake, on stderr."""
        click.echo(self.message if self._plain else f"error: {self.message}", err=True)


class LazyGroup(click.Group):
    """Knows its commands by name, and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order people need them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        with interrupts_deferred():
            command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name where there is none."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"no command {args[0]!r}; {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Help without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_) for name, (_, help_) in COMMANDS.items()])

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:  # noqa: ANN401 - click's
        """As click does, but Ctrl-C exits as it does in a command."""
        try:
            return super().make_context(*args, **kwargs)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        """Turn our errors into exit codes."""
        try:
            return super().invoke(ctx)
        except BhnbenchError as error:
            raise _Failure(error) from error
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version

        click.echo(f"bhnbench {version('bhnbench')}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Compare Bayesian deep-learning methods fairly.

    Start with `bhnbench sweep FILE`; `bhnbench COMMAND --help` tells more.
    """
