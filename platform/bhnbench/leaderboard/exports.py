"""A leaderboard for programs: CSV, one line a method, and JSON, which holds everything."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from bhnbench.leaderboard.board import Leaderboard, MethodRow, TaskTable
from bhnbench.statistics import LEVEL, Summary


def to_csv(board: Leaderboard) -> str:
    """One line a method and task, numbers in full."""
    lines = [_line(board, table, row) for table in board.tables for row in table.rows]
    names = dict.fromkeys(name for line in lines for name in line)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(names), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue().removesuffix("\n")


def _line(board: Leaderboard, table: TaskTable, row: MethodRow) -> dict[str, object]:
    versus, chosen = row.versus, row.chosen
    others = {name: summary for name, summary in row.metrics.items() if name != table.metric}
    return {
        "sweep": board.sweep,
        "task": table.label,
        "method": row.label,
        "metric": table.metric,
        "direction": table.direction,
        "unit": table.unit,
        "rank": row.rank,
        **_flat("", row.score),
        "n_planned": board.n_seeds,
        "gap": row.reason or row.gap,
        **_flat("vs_best_", versus.difference if versus else None),
        "vs_best_p_value": versus.p_value if versus else None,
        "validation": chosen.validation if chosen else None,
        "trial": chosen.trial if chosen else None,
        **asdict(row.cost),
        "n_warned": len(row.warned),
        "runs": " ".join(map(str, row.run_ids)),
        "configuration": json.dumps(chosen.configuration, sort_keys=True) if chosen else None,
        **{k: v for name, other in others.items() for k, v in _flat(f"{name}_", other).items()},
    }


def _flat(prefix: str, summary: Summary | None) -> dict[str, object]:
    names = ("mean", "low", "high", "sd", "n")
    return {f"{prefix}{name}": getattr(summary, name, None) for name in names}


def to_json(board: Leaderboard) -> str:
    """Everything: per-seed scores, run keys, configurations, comparisons."""
    content = {
        "sweep": board.sweep,
        "n_seeds": board.n_seeds,
        "n_left": board.n_left,
        "level": LEVEL,
        "without_metric": board.without_metric,
        "tasks": [_task(table) for table in board.tables],
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def _task(table: TaskTable) -> dict[str, Any]:
    content = asdict(table)
    content["methods"] = [
        values | {"gap": row.gap, "run_ids": row.run_ids}
        for row, values in zip(table.rows, content.pop("rows"), strict=True)
    ]
    return content
