"""The place that a sweep names for the progress of its runs."""

from __future__ import annotations

from pathlib import Path

from bhnbench.files import why_not_writable
from bhnbench.findings import Verdict, failed, ok, skipped
from bhnbench.storage import place_at
from bhnbench.sweep.document import Sweep
from bhnbench.words import one_line

NAME = "bhnbench-doctor"  # nothing is kept by that name


def reached(sweep: Sweep) -> Verdict:
    """A folder that can be written, or a store that answers; in a store nothing is tried out."""
    storage = sweep.storage
    if storage is None:
        return skipped("none is named: the home keeps the progress of runs")
    if "://" not in storage:
        reason = why_not_writable(Path(storage))
        fix = "allow it, or name another folder under storage:"
        return failed(f"{storage} cannot be written: {reason}", fix) if reason else ok(storage)
    try:
        place_at(f"{storage}/{NAME}").read()
    except OSError as error:
        fix = (
            "correct storage:, or what the environment says of it, such as AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL"
        )
        return failed(f"{storage}: {one_line(error)[:300]}", fix)
    return ok(f"{storage} answers")
