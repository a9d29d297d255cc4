"""Seconds of `leaderboard`, `status` and `plan` on a ledger of 10^5 runs and 10^6 scores.

Makes the ledger where there is none (half a minute), then times whole commands. Most of the runs
are one sweep's, which all three commands are about. Run, once a database:

    python -m tests.benchmarks.big_ledger sqlite:////tmp/big.db
    python -m tests.benchmarks.big_ledger postgresql+psycopg://user@host/empty_database
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import create_engine, func, select

from bhnbench.errors import NoLedgerError
from bhnbench.ledger.ledger import Ledger
from bhnbench.ledger.models import Base
from tests.benchmarks._cases import show

sys.path.insert(0, str(Path(__file__).parents[1] / "doubles"))

from bhnbench_doubles.big_ledgers import Size, big_document, fill

REPEATS = 5


def ensure(address: str, size: Size, share: float) -> None:
    """Fill the ledger unless it is there."""
    try:
        Ledger(address).close()
    except NoLedgerError:
        fill(address, size, share)


def count_rows(address: str) -> dict[str, int]:
    """Rows by table."""
    engine = create_engine(address)
    with engine.connect() as connection:
        counts = {
            table.name: connection.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }
    engine.dispose()
    return counts | {"together": sum(counts.values())}


def measure(address: str, size: Size) -> dict[str, list[float]]:
    """Seconds of whole commands, from the shell and back, and of an empty one beside them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sweep.yaml"
        path.write_text(json.dumps(big_document(size)))
        commands = {
            "python -c 'import click'": [sys.executable, "-c", "import click"],
            **{
                f"bhnbench {words[0]}": [sys.executable, "-m", "bhnbench.cli", *words]
                for words in (["leaderboard"], ["status"], ["plan", str(path)])
            },
        }
        found: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(REPEATS):
            for name, command in commands.items():
                found[name].append(_seconds(command, os.environ | {"BHNBENCH_LEDGER": address}))
    return found


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=environment, capture_output=True, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print rows and seconds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("address", help="a database URL")
    parser.add_argument("--trials", type=int, default=Size.trials, help="a study of the big sweep")
    parser.add_argument("--share", type=float, default=1.0, help="of its trials that were run")
    arguments = parser.parse_args()
    size = Size(trials=arguments.trials)
    ensure(arguments.address, size, arguments.share)
    rows = count_rows(arguments.address).items()
    show("rows", ["table", "rows"], [[name, f"{count:,}"] for name, count in rows])
    found = measure(arguments.address, size)
    show(
        "seconds of whole commands (leaderboard: at most 1 wanted)",
        ["command", "fastest", "median"],
        [[name, f"{min(s):.2f}", f"{sorted(s)[REPEATS // 2]:.2f}"] for name, s in found.items()],
    )


if __name__ == "__main__":
    main()
