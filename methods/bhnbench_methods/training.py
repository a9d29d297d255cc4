"""The training loop of all methods: Adam on R replicas at once, best validation epoch kept.

The objective is per dataset and divided by its size: ``mean nll + weight * penalty / n``, where
the penalty is a KL divergence or a negative log prior in nats. So the batch size changes the
noise of the gradient, not the optimum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from bhnbench.contract import Problem, Report, Split
from bhnbench.errors import DivergedError
from bhnbench_methods.adam import Adam
from bhnbench_methods.models import Model
from bhnbench_methods.replicas import Replicas
from bhnbench_methods.streams import Streams, seeded

Batch = tuple[torch.Tensor, torch.Tensor]  # inputs, targets
N_REPORTS = 20
MAX_GRAD_NORM = 10.0  # of the BHN authors' code, for each replica on its own


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train."""

    learning_rate: float
    lr_decay: bool = False  # by a factor of ten over the fit
    kl_annealing: bool = False  # the penalty's weight rises to one in the first half
    reports_kl: bool = False
    n_validation_samples: int = 1
    keep_best: bool = True  # restore the epoch of the highest validation log-likelihood

    def learning_rate_at(self, epoch: int, epochs: int) -> float:
        """``lr * 10 ** (-e / (epochs - 1))`` with ``e`` from 0."""
        decay = (epoch - 1) / max(epochs - 1, 1) if self.lr_decay else 0.0
        return self.learning_rate * math.pow(10, -decay)

    def kl_weight_at(self, epoch: int, epochs: int) -> float:
        """``min(1, 0.001 + e / (epochs / 2))`` with ``e`` from 0."""
        return min(1.0, 0.001 + 2 * (epoch - 1) / epochs) if self.kl_annealing else 1.0


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
    return (shapes, problem.likelihood, problem.epochs, problem.batch_size)


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
        self.replicas = Replicas(models, self.budget.likelihood.log_prob)
        self.batches = _Minibatches([p.train for p in problems], self.budget.batch_size)
        self.best = _Best(self.replicas.state())
        self.adam = Adam(self.replicas.flat, self.replicas.grad)
        self.last_loss = math.nan

    def run(self) -> None:
        epochs = self.budget.epochs
        every = math.ceil(epochs / N_REPORTS)
        with seeded(self.streams[0].forward, self.replicas.flat.device):
            for epoch in range(1, epochs + 1):
                figures = self._train_epoch(epoch)
                if epoch % every == 0 or epoch == epochs:
                    self._validate_and_report(epoch, figures)
        if not self.replicas.flat.isfinite().all():
            raise _diverged(f"epoch {epochs}: every parameter", self.last_loss)
        if self.recipe.keep_best:
            self.best.restore()
        self.replicas.release()

    def _train_epoch(self, epoch: int) -> list[dict[str, float]]:
        """One pass over the data; what there is to report of each replica."""
        kl_weight = self.recipe.kl_weight_at(epoch, self.budget.epochs)
        weight = kl_weight / len(self.budget.train)
        learning_rate = self.recipe.learning_rate_at(epoch, self.budget.epochs)
        steps, sizes = [], []
        for inputs, targets in self.batches.epoch([s.order for s in self.streams]):
            draws = zip(self.replicas.models, inputs, self.streams, strict=True)
            noise = torch.stack([model.draw_noise(x, s.noise) for model, x, s in draws])
            steps.append(torch.stack(self.replicas.backward(inputs, targets, noise, weight)))
            sizes.append(inputs.shape[1])
            self._clip_gradients()
            self.adam.step(learning_rate)
        losses = torch.stack(steps).double().cpu()  # (n_steps, 2, R); one wait for the GPU
        self._check(epoch, losses[:, 0] + weight * losses[:, 1])
        nlls, kls = torch.tensordot(torch.tensor(sizes).double(), losses, dims=1) / sum(sizes)
        if not self.recipe.reports_kl:
            return [{"train_nll": nll} for nll in nlls.tolist()]
        pairs = zip(nlls.tolist(), kls.tolist(), strict=True)
        return [{"train_nll": nll, "kl": kl, "kl_weight": kl_weight} for nll, kl in pairs]

    def _clip_gradients(self) -> None:
        norm = torch.linalg.vector_norm(self.replicas.grad, dim=1, keepdim=True)
        factor = norm.add_(1e-6).reciprocal_().mul_(MAX_GRAD_NORM).clamp_(max=1.0)
        self.replicas.grad.mul_(factor)

    def _check(self, epoch: int, losses: torch.Tensor) -> None:
        """Losses of an epoch, ``(n_steps, R)``, must be finite."""
        totals = losses.mean(1).tolist()
        for step, total in enumerate(totals, start=1):
            if not math.isfinite(total):
                raise _diverged(f"epoch {epoch}, step {step}: the loss", self.last_loss)
            self.last_loss = total

    def _validate_and_report(self, epoch: int, figures: list[dict[str, float]]) -> None:
        """Keep the best parameters of each replica, and tell what is known at this epoch."""
        outputs = self._validate(epoch) if len(self.budget.validation) else []
        n_members = len(self.problems) // len(self.reports)
        for i, report in enumerate(self.reports):
            members = slice(i * n_members, (i + 1) * n_members)
            means = {
                name: sum(f[name] for f in figures[members]) / n_members for name in figures[0]
            }
            if outputs:
                targets = self.problems[i * n_members].validation.targets
                mixture = torch.cat(outputs[members])
                means = self.budget.likelihood.scores(mixture, targets) | means
            report(epoch, means)

    def _validate(self, epoch: int) -> list[torch.Tensor]:
        outputs, scores = [], []
        replicas = zip(self.replicas.models, self.problems, self.streams, strict=True)
        for model, problem, streams in replicas:
            split = problem.validation
            with torch.no_grad():
                model.eval()
                n_samples = self.recipe.n_validation_samples
                rng = torch.Generator().manual_seed(streams.validation)
                outputs.append(model.sample(split.inputs, n_samples, rng=rng))
                model.train()
                log_prob = self.budget.likelihood.log_prob(outputs[-1], split.targets)
            scores.append((log_prob.logsumexp(0) - math.log(n_samples)).mean())
        score = torch.stack(scores)
        if score.isnan().any():
            raise _diverged(f"epoch {epoch}: the validation log-likelihood", self.last_loss)
        if self.recipe.kl_weight_at(epoch, self.budget.epochs) == 1.0:
            self.best.update(score)  # before, the objective is not the ELBO yet
        return outputs


def _diverged(what: str, last_loss: float) -> DivergedError:
    hint = "try a lower learning rate or check the scale of the inputs"
    return DivergedError(f"{what} must be finite, but is not (last loss {last_loss:g}); {hint}")


class _Minibatches:
    """Minibatches of R training splits, each in an order of its own."""

    def __init__(self, splits: Sequence[Split], batch_size: int) -> None:
        self.n = len(splits[0])
        self.sizes = _batch_sizes(self.n, batch_size)
        distinct = {id(split): split for split in splits}  # ensemble members share one
        rows = {key: row for row, key in enumerate(distinct)}
        self.offsets = torch.tensor([[rows[id(split)] * self.n] for split in splits])
        stacked = list(distinct.values())
        if len(stacked) == 1:
            self.inputs, self.targets = stacked[0].inputs, stacked[0].targets
        else:
            self.inputs = torch.cat([split.inputs for split in stacked])
            self.targets = torch.cat([split.targets for split in stacked])

    def epoch(self, rngs: Sequence[torch.Generator]) -> Iterator[Batch]:
        """All examples once, ``(R, batch_size, ...)`` at a time; the last batch may be smaller."""
        orders = torch.stack([torch.randperm(self.n, generator=rng) for rng in rngs])
        orders = (orders + self.offsets).to(self.inputs.device)
        for index in orders.split_with_sizes(self.sizes, dim=1):
            rows = index.reshape(-1)
            inputs = self.inputs.index_select(0, rows)
            targets = self.targets.index_select(0, rows)
            yield (
                inputs.view(*index.shape, *inputs.shape[1:]),
                targets.view(*index.shape, *targets.shape[1:]),
            )


def _batch_sizes(n: int, batch_size: int) -> list[int]:
    """Full batches and the rest; a rest of one joins the batch before, for batch norm's sake."""
    full, rest = divmod(n, batch_size)
    sizes = [batch_size] * full + ([rest] if rest else [])
    if rest == 1 and full and batch_size > 1:
        sizes[-2:] = [batch_size + 1]
    return sizes


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
