"""The training loop of all methods: R replicas at once, and what is kept of them.

The objective is per dataset and divided by its size: ``mean nll + weight * penalty / n``, where
the penalty is a KL divergence or a negative log prior in nats. So the batch size changes the
noise of the gradient, not the optimum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch

from bhnbench.contract import Problem, Report
from bhnbench.errors import DivergedError
from bhnbench_methods.kept_samples import KeptStates, SampledModel, Steps
from bhnbench_methods.minibatches import Minibatches
from bhnbench_methods.models import Model, is_stackable
from bhnbench_methods.optimisers import Adam, Langevin, LangevinDynamics, Optimiser
from bhnbench_methods.replicas import Losses, Replicas
from bhnbench_methods.schedules import Schedule, constant
from bhnbench_methods.streams import Streams, seeded
from bhnbench_methods.validation import Validation

N_VALIDATIONS = 20  # of one fit, about: evenly spaced, and at the last epoch
MAX_GRAD_NORM = 10.0  # of the BHN authors' code, for each replica on its own

Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train, and what to keep: the best epoch, the last state, or samples on the way."""

    learning_rate: float
    lr_schedule: Schedule = constant
    kl_schedule: Schedule = constant  # of the penalty's weight
    langevin: Langevin | None = None  # how to sample, instead of Adam
    adversarial_step: float = 0.0  # of adversarial inputs, in ranges of each input dimension
    reports_kl: bool = False
    n_validation_samples: int = 1
    keep_best: bool = True  # restore the epoch of the highest validation log-likelihood
    samples_at: Steps | None = None  # the steps to keep instead; for a SampledModel

    def learning_rate_at(self, step: int, n_steps: int) -> float:
        """Of steps 1 to ``n_steps``; the first one is the start of the schedule."""
        return self.learning_rate * self.lr_schedule((step - 1) / n_steps)

    def kl_weight_at(self, epoch: int, epochs: int) -> float:
        """Of epochs 1 to ``epochs``; the last one, even if the only one, is the schedule's end.

        The first of several is its start.
        """
        return self.kl_schedule(1.0 if epoch == epochs else (epoch - 1) / epochs)


def train(
    models: Sequence[Model],
    problems: Sequence[Problem],
    streams: Sequence[Streams],
    reports: Sequence[Report],
    recipe: Recipe,
) -> None:
    """Train replica ``r`` on ``problems[r]``; afterwards the models are predictives.

    Problems must be alike (see ``alike``). Replicas do not influence one another: each is
    clipped, checkpointed and noised on its own. With fewer reports than replicas, each report
    speaks for an ensemble of consecutive replicas. An exception in one ends the fit of all.

    Every epoch reports ``train_nll``, the mean over its examples as they were trained on; of a
    method with a KL also ``kl`` (nats, of the whole dataset), ``kl_weight``, and ``kl_over_nll =
    kl_weight * kl / n / train_nll``, the ratio of the objective's two terms (left out where the
    nll is zero). About twenty epochs, the last among them, also report the likelihood's scores on
    validation data (see ``Validation``) and the model's own figures. Where samples are kept,
    those scores are of their mixture so far.

    Raises:
        DivergedError: a loss or a validation output is no longer finite.
    """
    _Training(models, problems, streams, reports, recipe).run()


def alike(problems: Sequence[Problem]) -> bool:
    """Whether the problems differ in nothing but the values of their data and the network."""
    first, *others = [_signature(problem) for problem in problems]
    return all(other == first for other in others)


def _signature(problem: Problem) -> tuple[object, ...]:
    splits = (problem.train, problem.validation)
    tensors = [t for split in splits for t in (split.inputs, split.targets)]
    shapes = [(t.shape, t.dtype, t.device) for t in tensors]
    has_prior = problem.prior is not None  # with one, a model is made of other layers
    return (shapes, problem.likelihood, problem.epochs, problem.batch_size, has_prior)


class _Training:
    """The state of one fit."""

    def __init__(
        self,
        models: Sequence[Model],
        problems: Sequence[Problem],
        streams: Sequence[Streams],
        reports: Sequence[Report],
        recipe: Recipe,
    ) -> None:
        self.problems, self.streams, self.reports, self.recipe = problems, streams, reports, recipe
        self.budget = problems[0]  # alike, so the first speaks for all
        self.n_examples = len(self.budget.train)
        self.replicas = Replicas(
            models,
            self.budget.likelihood.log_prob,
            is_stackable=len(models) == 1 or is_stackable(self.budget, draws_its_own=True),
        )
        self.batches = Minibatches([p.train for p in problems], self.budget.batch_size)
        self.step, self.n_steps = 0, self.budget.epochs * len(self.batches.sizes)
        self.optimiser = self._make_optimiser()
        self.adversarial_step: torch.Tensor | None = None
        if recipe.adversarial_step:
            self.adversarial_step = recipe.adversarial_step * self.batches.input_ranges()
        self.validation = Validation(problems, recipe.n_validation_samples)
        self.best = _Best(self.replicas.state())
        self.sample_steps = set(recipe.samples_at(self.n_steps)) if recipe.samples_at else set()
        sampled = cast("Sequence[SampledModel]", models if self.sample_steps else [])
        self.kept = KeptStates(sampled, len(self.sample_steps))
        self.kept_outputs: list[torch.Tensor] = []  # on validation data
        self.last_losses = torch.full((len(models),), math.nan)

    def _make_optimiser(self) -> Optimiser:
        flat, grad = self.replicas.flat, self.replicas.grad
        if self.recipe.langevin is None:
            return Adam(flat, grad)
        rngs = [streams.noise for streams in self.streams]
        return LangevinDynamics(flat, grad, rngs, self.n_examples, self.recipe.langevin)

    def run(self) -> None:
        epochs = self.budget.epochs
        with seeded(self.streams[0].forward, self.replicas.flat.device):
            for epoch in range(1, epochs + 1):
                trained = self._train_epoch(epoch)
                scored = self._validate(epoch) if _is_validated(epoch, epochs) else []
                with torch.random.fork_rng(devices=[]):  # who listens may draw
                    self._report(epoch, trained, scored)
        lost = ~self.replicas.flat.isfinite().all(1)
        if lost.any():
            raise self._diverged(f"epoch {epochs}: every parameter", lost)
        self.best.restore()
        self.kept.hand_over()
        self.replicas.release()

    def _train_epoch(self, epoch: int) -> list[Figures]:
        """One pass over the data; what there is to report of each replica."""
        kl_weight = self.recipe.kl_weight_at(epoch, self.budget.epochs)
        weight = kl_weight / self.n_examples
        steps = []
        for inputs, targets in self.batches.epoch([s.order for s in self.streams]):
            steps.append(torch.stack(self._backward(inputs, targets, weight)))
            self._clip_gradients()
            self._move()
        losses = torch.stack(steps).double().cpu()  # (n_steps, 2, R); one wait for the GPU
        self._check(epoch, losses[:, 0] + weight * losses[:, 1])
        sizes = torch.tensor(self.batches.sizes).double()
        nlls, kls = (torch.tensordot(sizes, losses, dims=1) / self.n_examples).tolist()
        if not self.recipe.reports_kl:
            return [{"train_nll": nll} for nll in nlls]
        pairs = zip(nlls, kls, strict=True)
        return [{"train_nll": nll, "kl": kl, "kl_weight": kl_weight} for nll, kl in pairs]

    def _backward(self, inputs: torch.Tensor, targets: torch.Tensor, weight: float) -> Losses:
        draws = zip(self.replicas.models, inputs, self.streams, strict=True)
        noise = torch.stack([model.draw_noise(x, s.noise) for model, x, s in draws])
        if self.adversarial_step is None:
            return self.replicas.backward(inputs, targets, noise, weight)
        return self.replicas.adversarial_backward(
            inputs, targets, noise, weight, self.adversarial_step
        )

    def _clip_gradients(self) -> None:
        norm = torch.linalg.vector_norm(self.replicas.grad, dim=1, keepdim=True)
        factor = norm.add_(1e-6).reciprocal_().mul_(MAX_GRAD_NORM).clamp_(max=1.0)
        self.replicas.grad.mul_(factor)

    def _move(self) -> None:
        """One step of the optimiser, and a sample where one is due."""
        progress = self.step / self.n_steps
        self.step += 1
        self.optimiser.step(self.recipe.learning_rate_at(self.step, self.n_steps), progress)
        if self.step in self.sample_steps:
            self.kept.keep()
            if len(self.validation):
                self.kept_outputs.append(self.validation.outputs(self.replicas))

    def _check(self, epoch: int, losses: torch.Tensor) -> None:
        """Losses of an epoch, ``(n_steps, R)``, must be finite."""
        steps = self.step - len(losses)  # before the epoch
        for i, lost in enumerate(~losses.isfinite(), start=1):
            if lost.any():
                self.step = steps + i
                raise self._diverged(f"epoch {epoch}, step {i}: the loss", lost)
            self.last_losses = losses[i - 1]

    def _validate(self, epoch: int) -> list[Figures]:
        """What is known of each report's replicas at this epoch; the best are kept."""
        with torch.no_grad():
            own = [model.figures() for model in self.replicas.models]
        figures = [_mean(own[members]) for members in self._members()]
        if not len(self.validation):
            return figures
        outputs = torch.cat(self.kept_outputs, dim=1) if self.kept_outputs else None
        if outputs is None:
            outputs = self.validation.outputs(self.replicas)
        score = self.validation.score(outputs)
        if score.isnan().any():
            raise self._diverged(f"epoch {epoch}: the validation log-likelihood", score.isnan())
        if self.recipe.keep_best and self.recipe.kl_weight_at(epoch, self.budget.epochs) == 1.0:
            self.best.update(score)  # before, the objective is not the ELBO yet
        return [
            self.validation.scores(outputs, members) | more
            for members, more in zip(self._members(), figures, strict=True)
        ]

    def _diverged(self, what: str, lost: torch.Tensor) -> DivergedError:
        """At the present step, in the first of the ``lost`` replicas, ``(R,)``."""
        last = self.last_losses[int(lost.nonzero()[0])].item()
        known = f"last finite loss {last:g}" if math.isfinite(last) else "no loss was finite"
        hint = "try a lower learning rate or check the scale of the inputs"
        return DivergedError(
            f"{what} must be finite, but is not (step {self.step} of {self.n_steps}; {known}); "
            f"{hint}",
            step=self.step,
            last_finite_loss=last if math.isfinite(last) else None,
        )

    def _members(self) -> list[slice]:
        """The replicas that each report speaks for."""
        n_members = len(self.problems) // len(self.reports)
        return [slice(i, i + n_members) for i in range(0, len(self.problems), n_members)]

    def _report(self, epoch: int, trained: list[Figures], scored: list[Figures]) -> None:
        for i, (report, members) in enumerate(zip(self.reports, self._members(), strict=True)):
            figures = _mean(trained[members])
            if figures.get("kl") is not None and figures["train_nll"] != 0:
                kl = figures["kl_weight"] * figures["kl"] / self.n_examples
                figures["kl_over_nll"] = kl / figures["train_nll"]
            report(epoch, (scored[i] if scored else {}) | figures)


def _is_validated(epoch: int, epochs: int) -> bool:
    return epoch % math.ceil(epochs / N_VALIDATIONS) == 0 or epoch == epochs


def _mean(figures: Sequence[Figures]) -> Figures:
    """Of the members of an ensemble."""
    return {name: sum(f[name] for f in figures) / len(figures) for name in figures[0]}


class _Best:
    """The stacked state of every replica at its best validation epoch so far."""

    def __init__(self, state: list[torch.Tensor]) -> None:
        self.state = state
        self.kept: list[torch.Tensor] = []
        self.score = torch.empty(0)

    def update(self, score: torch.Tensor) -> None:
        """Keep the replicas whose score, ``(R,)``, beats their best."""
        if not self.kept:
            self.score, self.kept = score, [tensor.clone() for tensor in self.state]
            return
        better = score > self.score
        self.score = torch.where(better, score, self.score)
        for kept, tensor in zip(self.kept, self.state, strict=True):
            kept[better] = tensor[better]

    def restore(self) -> None:
        """Write what was kept, if anything, back into the models."""
        for tensor, kept in zip(self.state, self.kept, strict=False):
            tensor.copy_(kept)
