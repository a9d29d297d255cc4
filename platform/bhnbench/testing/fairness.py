"""The laws of fairness: equal problems for all methods, and test data out of reach."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, cast

import torch

from bhnbench.contract import Holdout, Problem, Task
from bhnbench.space import Value
from bhnbench.testing import fields
from bhnbench.testing.comparison import content_of_problem, differences, raw, rows_of
from bhnbench.testing.execution import Recording


class FairnessLaws:
    """The task under test, and the laws of what it hands to methods."""

    task: ClassVar[str | type[Task] | Task]
    settings: ClassVar[Mapping[str, Value]] = {}

    @property
    def name(self) -> str:
        """The task, in messages."""
        return fields.class_of("task", self.task).__name__

    def bound(self) -> Task:
        """The task with the suite's settings."""
        cls: Any = fields.class_of("task", self.task)
        return cast("Task", cls(**{**fields.given_settings(self.task), **self.settings}))

    def run(self, holdout: Holdout, **options: Any) -> Recording:  # noqa: ANN401
        """One recorded run."""
        return Recording(**options).run(self.bound(), holdout)

    # Problems: fair, and test data out of reach

    def test_first_problem_does_not_depend_on_method(self) -> None:
        """All methods start from the same data, and get the same amount and budget after."""
        first = self.run("validation", fit_seed=1, noise_sd=0.1).problems
        second = self.run("validation", fit_seed=2, noise_sd=3.0).problems
        changed = differences(content_of_problem(first[0]), content_of_problem(second[0]))
        assert not changed, (
            f"{self.name}: two methods must get the same first problem, but differ in "
            f"{', '.join(changed)}"
        )
        assert [*map(_size, first)] == [*map(_size, second)], (
            f"{self.name}: two methods must get equal amounts of data and budget, but one got "
            f"{[*map(_size, first)]}, the other {[*map(_size, second)]}"
        )

    def test_problems_do_not_depend_on_holdout(self) -> None:
        """The method is the same in search and evaluation."""
        seen = [self.run(holdout).problems for holdout in ("validation", "test")]
        counts = [len(problems) for problems in seen]
        assert counts[0] == counts[1] > 0, (
            f"{self.name} must fit equally often on both holdouts, at least once, but did {counts}"
        )
        for i, (first, second) in enumerate(zip(*seen, strict=True)):
            changed = differences(content_of_problem(first), content_of_problem(second))
            assert not changed, (
                f"{self.name}: problem {i} must be the same for both holdouts, but differs in "
                f"{', '.join(changed)}"
            )

    def test_train_and_validation_are_disjoint(self) -> None:
        """No example is in both."""
        for i, problem in enumerate(self.run("validation").problems):
            shared = rows_of(problem.train.inputs) & rows_of(problem.validation.inputs)
            assert not shared, (
                f"{self.name}: train and validation must share no example, but in problem {i} "
                f"they share {len(shared)} inputs"
            )

    def test_test_data_never_reach_a_fit(self) -> None:
        """What is scored on test alone is in no problem, neither to train nor to validate."""
        search, evaluation = self.run("validation"), self.run("test")
        test_rows = self._test_rows(search, evaluation)
        for phase, recording in (("search", search), ("evaluation", evaluation)):
            for i, problem in enumerate(recording.problems):
                for split in ("train", "validation"):
                    leaked = test_rows & rows_of(getattr(problem, split).inputs)
                    assert not leaked, (
                        f"{self.name}: test data must not reach fit, but {len(leaked)} inputs "
                        f"of the test split are in {split} of problem {i} in {phase}"
                    )

    def test_search_never_samples_test_data(self) -> None:
        """Batches that only an evaluation scores hold no example that a search samples."""
        search, evaluation = self.run("validation"), self.run("test")
        self._test_rows(search, evaluation)
        common = {raw(batch) for batch in search.sampled}
        test_rows = _rows(batch for batch in evaluation.sampled if raw(batch) not in common)
        leaked = test_rows & _rows(search.sampled)
        assert not leaked, (
            f"{self.name}: a search must not sample test data, but {len(leaked)} inputs of the "
            "test batches are sampled on holdout='validation'; points of a figure, a pool and the "
            "like belong into calls of sample of their own"
        )

    def _test_rows(self, search: Recording, evaluation: Recording) -> set[bytes]:
        rows = _rows(evaluation.sampled) - _rows(search.sampled)
        assert rows, (
            f"{self.name}: holdout='test' must score examples that holdout='validation' never "
            "samples, but all its inputs are sampled in both"
        )
        return rows


def _rows(batches: Iterable[torch.Tensor]) -> set[bytes]:
    return set().union(*map(rows_of, batches))


def _size(problem: Problem) -> tuple[int, ...]:
    return (len(problem.train), len(problem.validation), problem.epochs, problem.batch_size)
