"""The laws of tasks."""

from __future__ import annotations

import io
import math
import sys

import numpy as np
import pytest

from bhnbench.contract import Holdout, Metric
from bhnbench.errors import StopRunError
from bhnbench.space import fields_of
from bhnbench.testing import fields
from bhnbench.testing.comparison import (
    content_of_outcome,
    content_of_problem,
    differences,
    same_bits,
    tensors_of,
)
from bhnbench.testing.execution import KilledError, Recording
from bhnbench.testing.fairness import FairnessLaws
from bhnbench.testing.fitting import check_points
from bhnbench.testing.state import other_globals, unchanged_globals

on_both_holdouts = pytest.mark.parametrize("holdout", ["validation", "test"])


class TaskSuite(FairnessLaws):
    """Subclass it, name a task, and let pytest collect it.

    Set ``settings`` to a variant that takes a second or less: it is run some twenty times, with
    networks that are not trained.
    """

    # What is declared

    def test_is_declared_well(self) -> None:
        """A frozen dataclass with valid defaults; settings are never searched over."""
        cls = fields.class_of("task", self.task)
        fields.check_declaration(cls)
        searched = [name for name, field in fields_of(cls).items() if field.search is not None]
        assert not searched, (
            f"{self.name}: settings must have no search space, but {', '.join(searched)} do"
        )

    def test_settings_survive_json(self) -> None:
        """They travel to workers as JSON."""
        fields.check_survives_json(self.bound())

    def test_metrics_are_declared(self) -> None:
        """Each has a name of its own, a direction and a unit."""
        metrics = self.bound().metrics
        assert isinstance(metrics, tuple), f"{self.name}: metrics must be a tuple"
        assert metrics, f"{self.name} must have a metric; the first is the primary one"
        for metric in metrics:
            right = isinstance(metric, Metric) and isinstance(metric.unit, str) and metric.name
            assert right, f"{self.name}: a metric must have a name and a unit, but got {metric}"
            assert metric.direction in ("maximize", "minimize"), (
                f"{self.name}: {metric.name} must be maximized or minimized, but its direction is "
                f"{metric.direction!r}"
            )
        names = [metric.name for metric in metrics]
        assert len(set(names)) == len(names), f"{self.name}: metrics must differ, but got {names}"

    def test_data_digest_is_stable(self) -> None:
        """It is part of the run's key."""
        first, second = self.bound().data_digest, self.bound().data_digest
        assert isinstance(first, str), f"{self.name}: data_digest must be text, but is {first!r}"
        assert first == second, (
            f"{self.name}: data_digest must stay the same, but got {first!r} and {second!r}"
        )

    # What a run finds

    @on_both_holdouts
    def test_scores_are_the_declared_ones(self, holdout: Holdout) -> None:
        """All of them, no others, all finite."""
        scores = self.run(holdout).found.scores
        names = {metric.name for metric in self.bound().metrics}
        assert set(scores) == names, (
            f"{self.name}: scores must be {sorted(names)}, but are {sorted(scores)} ({holdout})"
        )
        infinite = {name: value for name, value in scores.items() if not math.isfinite(value)}
        assert not infinite, f"{self.name}: scores must be finite, but got {infinite} ({holdout})"

    @on_both_holdouts
    def test_columns_of_a_table_have_one_length(self, holdout: Holdout) -> None:
        """Tables hold numbers, one row an entry."""
        for name, table in self.run(holdout).found.tables.items():
            shapes = {column: np.shape(values) for column, values in table.items()}
            right = len(set(shapes.values())) == 1 and all(len(s) == 1 for s in shapes.values())
            assert right, (
                f"{self.name}: columns of table {name} must be vectors of one length, but their "
                f"shapes are {shapes}"
            )
            objects = [column for column, v in table.items() if np.asarray(v).dtype == object]
            assert not objects, f"{self.name}: table {name} must hold no objects, but {objects} do"

    def test_figures_draw(self) -> None:
        """From outcomes of several methods with different numbers of seeds, outside pyplot."""
        from matplotlib.figure import Figure

        runs = [self.run("test", seed=seed).found for seed in (1, 2)]
        open_figures = _pyplot_figures()
        for name, draw in self.bound().figures.items():
            for outcomes in ({"a": runs, "b": runs[:1]}, {"a": runs[:1]}):
                figure = draw(outcomes)
                assert isinstance(figure, Figure), (
                    f"{self.name}: figure {name} must be a matplotlib Figure, but is {figure!r}"
                )
                figure.savefig(io.BytesIO())
        assert _pyplot_figures() == open_figures, (
            f"{self.name}: a figure must not stay in pyplot; make it with matplotlib.figure.Figure"
        )

    @on_both_holdouts
    def test_reports_are_increasing_and_finite(self, holdout: Holdout) -> None:
        """Steps are increasing whole numbers, metrics finite."""
        check_points(self.run(holdout).listener.points, self.name)

    def test_report_can_end_the_run(self) -> None:
        """``StopRunError`` raised by ``report`` goes through."""
        if not self.run("validation").listener.points:
            pytest.skip("the task reports nothing")
        recording = Recording(stop_at=1)
        try:
            recording.run(self.bound(), "validation")
        except StopRunError:
            n = len(recording.listener.points)
            assert n == 1, f"{self.name} must report no more after StopRunError, but made {n}"
            return
        raise AssertionError(f"{self.name} must let StopRunError through, but swallowed it")

    # Randomness and state

    @on_both_holdouts
    def test_same_seed_same_outcome(self, holdout: Holdout) -> None:
        """Bit for bit, whatever the global random streams hold and whatever ran before."""
        found = []
        for global_seed in (1, 2):
            with other_globals(global_seed):
                recording = self.run(holdout)
                self.bound().prepare()  # a driver did, a worker did not
            contents = map(content_of_problem, recording.problems)
            problems = {f"problem {i}": dict(content) for i, content in enumerate(contents)}
            found.append({**content_of_outcome(recording.found), **problems})
        changed = differences(*found)
        assert not changed, (
            f"{self.name}: the same seed must give the same outcome bit for bit, but these "
            f"differ: {', '.join(changed)}; draw from rng, and do not change the data"
        )

    def test_other_seed_other_outcome(self) -> None:
        """The task's own random stream matters, all else being equal."""
        first, second = (self.run("validation", seed=seed).found for seed in (1, 2))
        assert differences(content_of_outcome(first), content_of_outcome(second)), (
            f"{self.name}: another rng must give another outcome, but all scores and tables are "
            f"equal: {dict(first.scores)}; draw data and posterior samples from rng"
        )

    def test_global_state_is_untouched(self) -> None:
        """Random streams, dtype, threads and the like stay as they are."""
        self.run("validation")  # a library that is imported late may set the environment
        with unchanged_globals(self.name):
            self.bound().prepare()
            self.run("validation")

    @on_both_holdouts
    def test_problems_are_untouched(self, holdout: Holdout) -> None:
        """What a method was given stays as it was, for the other methods that share the data."""
        recording = self.run(holdout)
        for live, before in zip(recording.live_problems, recording.problems, strict=True):
            for name, tensor in tensors_of(live).items():
                assert same_bits(tensor, tensors_of(before)[name]), (
                    f"{self.name} must not change its data, but {name} changed after fit"
                )

    def test_killed_run_goes_on(self) -> None:
        """From any state that its checkpoint kept, to the numbers of an uninterrupted run."""
        whole = self.run("test")
        if not whole.n_saves:
            pytest.skip("the task keeps no progress")
        for kill_after in sorted({1, (whole.n_saves + 1) // 2, whole.n_saves}):
            killed = Recording(kill_after=kill_after)
            with pytest.raises(KilledError):
                killed.run(self.bound(), "test")
            rest = Recording(kept=killed.kept).run(self.bound(), "test")
            changed = differences(*(content_of_outcome(run.found) for run in (whole, rest)))
            if whole.listener.points != rest.listener.points:
                changed.append("reports")
            assert not changed, (
                f"{self.name}: a run killed after save {kill_after} of {whole.n_saves} must go on "
                f"to the same numbers, but these differ: {', '.join(changed)}"
            )
            assert rest.n_fits == whole.n_fits, (
                f"{self.name}: a run that goes on must make {whole.n_fits} fits in all, but made "
                f"{rest.n_fits}"
            )


def _pyplot_figures() -> list[int]:
    pyplot = sys.modules.get("matplotlib.pyplot")
    return [] if pyplot is None else list(pyplot.get_fignums())
