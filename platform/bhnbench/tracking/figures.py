"""Figures of a sweep's tasks, kept with every study of the task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from bhnbench.ledger.records import SweepRecord
from bhnbench.specs import digest
from bhnbench.status import StudyStatus
from bhnbench.tracking.content import study_identity
from bhnbench.tracking.experiment import Experiment, Known
from bhnbench.words import as_file_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DrawFigures = Callable[[SweepRecord], Mapping[str, Mapping[str, "Figure"]]]
"""Draws the figures of a sweep: task's label -> figure's name -> figure."""

TAG = "bhnbench.figures"  # digest of the runs that the figures show
log = logging.getLogger(__name__)


def send_figures(
    experiment: Experiment,
    sweep: SweepRecord,
    statuses: Sequence[StudyStatus],
    draw: DrawFigures,
) -> None:
    """Draw and send where new runs have come in. A figure that fails fails nothing else."""
    marks = _marks(statuses)
    outdated = [
        (experiment.parents[study_identity(status.study)], status.study.labels[0])
        for status in statuses
        if study_identity(status.study) in experiment.parents and status.study.labels[0] in marks
    ]
    outdated = [(known, task) for known, task in outdated if known.tags.get(TAG) != marks[task]]
    if not outdated:
        return
    try:
        figures = draw(sweep)
        for known, task in outdated:
            _send(experiment, known, figures.get(task, {}), marks[task])
    except Exception as error:  # plugins draw, and numbers matter more than pictures
        log.warning("figures are missing in MLflow: %s: %s", type(error).__name__, error)


def _send(experiment: Experiment, known: Known, figures: Mapping[str, Figure], mark: str) -> None:
    for name, figure in figures.items():
        experiment.log_figure(known, figure, f"figures/{as_file_name(name)}.png")
    experiment.log(known, time=0, params={}, tags={TAG: mark})


def _marks(statuses: Sequence[StudyStatus]) -> dict[str, str]:
    """For each task with something to show, what its figures are drawn from."""
    keys: dict[str, list[str]] = {}
    for status in statuses:
        done = [run.key for run in status.evaluations if run.state == "done"]
        keys.setdefault(status.study.labels[0], []).extend(done)
    return {task: digest(sorted(found)) for task, found in keys.items() if found}
