"""What `bhnbench doctor` finds, and that it finds what was broken and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bhnbench_doubles.command_line import call

Findings = dict[str, dict[str, Any]]  # "group: name" -> finding
AT_FAULT = ("failed", "warning")


def examine(*arguments: object) -> Findings:
    """In this process."""
    result = call("doctor", "--json", *arguments)
    assert result.exit_code in (0, 1, 2), result.output
    return _findings(result.stdout, result.exit_code)


def examine_elsewhere(
    *arguments: object, through: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Findings:
    """In a process of its own, started ``through`` another command."""
    command = [*through, sys.executable, "-m", "bhnbench.cli", "doctor", "--json"]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1, 2), done.stderr
    assert "Traceback" not in done.stderr
    return _findings(done.stdout, done.returncode)


def broken(row: str, findings: Findings, *, also: Sequence[str] = ()) -> dict[str, Any]:
    """The finding of ``row``, which is at fault, and no other is but its consequences."""
    faults = [name for name, finding in findings.items() if finding["state"] in AT_FAULT]
    assert sorted(faults) == sorted([row, *also]), [findings[name] for name in faults]
    assert findings[row]["fix"]
    return findings[row]


def _findings(output: str, exit_code: int) -> Findings:
    content = json.loads(output)
    findings = {f"{row['group']}: {row['name']}": row for row in content["checks"]}
    assert len(findings) == len(content["checks"])
    failed = [row for row in content["checks"] if row["state"] == "failed"]
    assert content["ready"] == (exit_code == 0) == (not failed)
    assert all(bool(row["fix"]) == (row["state"] in AT_FAULT) for row in content["checks"])
    return findings
