"""Distilled: one network that learns the predictive of any other method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from bhnbench.contract import Method, Predictive, Problem, Report, Split
from bhnbench.errors import BhnbenchError
from bhnbench.plugins import load_method
from bhnbench.space import Float, Int, hyperparameter
from bhnbench_methods.distillate import Distillate, Relay, unpack
from bhnbench_methods.fitting import TrainedMethod
from bhnbench_methods.models import Model, PointModel
from bhnbench_methods.settings import read_settings
from bhnbench_methods.soft_targets import SOFTENED

_N_ROWS = 4096  # examples that the teacher predicts at once


@dataclass(frozen=True, kw_only=True)
class Distilled(TrainedMethod):
    """A student network trained on the predictive of a teacher, which is another method.

    Use it where many posterior samples are too slow to predict with: the student needs one
    forward pass and keeps the teacher's predictive on average, but no longer tells epistemic from
    aleatoric uncertainty. Training costs the teacher's fit, ``n_teacher_samples`` passes over
    the training inputs, and the fit of one network. The student maximises, with Adam,

        1/N sum_i E_{t ~ teacher(x_i)} [log p(t | x_i, w)] - weight_decay / (2 N) |w|^2

    where the teacher is the equal mixture of its samples. For classes the expectation is the
    cross-entropy to the mean class probabilities; for Gaussian likelihoods it is, in closed form
    from the mixture's mean m and variance v, the sum over the values of

        log N(m | mean, sd^2) - v / (2 sd^2)

    The paper distils samples of stochastic-gradient Langevin dynamics as they come and feeds the
    student perturbed inputs; here any method teaches, once it is trained, on the training
    inputs. Teacher and student train for the problem's epochs each, first one, then the other:
    what the teacher reports is called ``teacher_...``, and the student's steps go on from its
    last one. Every other setting is the student's. The best epoch is chosen on the validation
    targets.

    Source: Balan, Rathod, Murphy and Welling (2015), "Bayesian dark knowledge", sections 2 and
    3, https://arxiv.org/abs/1506.04416.
    """

    teacher: str = hyperparameter("mc_dropout", "registered name of the method that teaches")
    teacher_settings: str = hyperparameter(
        "", 'hyperparameters of the teacher, such as "rate: 0.2, weight_decay: 1"'
    )
    n_teacher_samples: int = hyperparameter(
        100, "posterior samples that make the student's targets", valid=Int(1, 100_000)
    )
    weight_decay: float = hyperparameter(
        0.0, "precision of the Gaussian prior on the student's weights", valid=Float(0, 1e6)
    )

    def __post_init__(self) -> None:
        """Check the teacher; its version is part of this method's, as its numbers are."""
        super().__post_init__()
        teacher = self.make_teacher()
        version = f"{type(self).version}, {self.teacher} {teacher.version}"
        object.__setattr__(self, "version", version)

    def make_teacher(self) -> Method:
        """The teacher with its settings.

        Raises:
            ValueError: it is not installed, is itself distilled, or has no such settings.
        """
        try:
            cls = load_method(self.teacher)
        except BhnbenchError as error:
            raise ValueError(f"teacher: {error}") from error
        if issubclass(cls, Distilled):
            raise ValueError(f"teacher: must not be distilled itself, but got {self.teacher!r}")
        try:
            return cls(**read_settings(self.teacher_settings, cls, self.teacher))
        except ValueError as error:
            raise ValueError(f"teacher_settings: {error}") from error

    def make_model(self, problem: Problem) -> Model:
        """The student."""
        return PointModel(problem, self.weight_decay)

    def supports(self, problem: Problem) -> str | None:
        """Where the teacher does, for classes and real values."""
        kind = type(problem.likelihood)
        if kind not in SOFTENED:
            known = " or ".join(k.__name__ for k in SOFTENED)
            return f"it needs a {known} likelihood, but the problem has {kind.__name__}"
        reason = self.make_teacher().supports(problem)
        if reason is not None:
            return f"its teacher {self.teacher}: {reason}"
        return super().supports(problem)

    def fit_many(
        self,
        problems: Sequence[Problem],
        *,
        rngs: Sequence[torch.Generator],
        reports: Sequence[Report],
        warm_starts: Sequence[Predictive | None],
    ) -> list[Predictive]:
        """Fit all teachers, then all students."""
        self.check_priors(problems)  # before the teachers have learned, which may take one
        earlier = [unpack(start) for start in warm_starts]
        relays = [Relay(report) for report in reports]
        teachers = self.make_teacher().fit_many(
            problems,
            rngs=rngs,
            reports=[relay.hear_teacher for relay in relays],
            warm_starts=[teacher for teacher, _ in earlier],
        )
        triples = zip(problems, teachers, rngs, strict=True)
        students = super().fit_many(
            [self._lesson(problem, teacher, rng) for problem, teacher, rng in triples],
            rngs=rngs,
            reports=[relay.hear_student for relay in relays],
            warm_starts=[student for _, student in earlier],
        )
        return [Distillate(*pair) for pair in zip(teachers, students, strict=True)]

    def _lesson(self, problem: Problem, teacher: Predictive, rng: torch.Generator) -> Problem:
        """The problem with the teacher's predictive in place of the training targets."""
        likelihood = SOFTENED[type(problem.likelihood)](problem.likelihood)
        seed = int(torch.randint(2**63 - 1, (), generator=rng))
        summaries = []
        with torch.no_grad():
            for start in range(0, len(problem.train), _N_ROWS):
                inputs = problem.train.inputs[start : start + _N_ROWS]
                same = torch.Generator().manual_seed(seed)
                outputs = teacher.sample(inputs, self.n_teacher_samples, rng=same)
                summaries.append(likelihood.summary(outputs))
        train = Split(problem.train.inputs, torch.cat(summaries))
        return replace(problem, train=train, likelihood=likelihood)
