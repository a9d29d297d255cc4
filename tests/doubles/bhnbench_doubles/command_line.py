"""The command line in this process, and the sweep of the tests' home."""

from __future__ import annotations

from click.testing import CliRunner, Result

from bhnbench.cli.main import main

DOCUMENT = """\
name: demo
tasks: [guess]
methods: [constant, {name: constant, x: 0.1}, {name: failing, x: 0.5}]
search: {sampler: random, trials: 3}
evaluate: {seeds: 2}
"""
SUSPECT = ("posterior samples must differ", "posterior samples must be finite")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="bhnbench")
