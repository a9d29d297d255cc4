"""Attacks against closed forms and against each other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch.nn import functional as F

from bhnbench.contract import Split
from bhnbench.seeds import make_rng
from bhnbench_tasks import attacks
from bhnbench_tasks.adversary import PAPERS_STEPS, Adversary, parse_steps
from bhnbench_tasks.attacks import (
    MixtureLoss,
    Target,
    fast_gradient_sign,
    log_odds,
    projected_gradient,
)
from bhnbench_tasks.datasets import load_dataset
from bhnbench_tasks.plain_network import train_plain_network

N, N_PIXELS, N_CLASSES = 40, 12, 3


@dataclass
class Linear:
    """Logits linear in the pixels, with Gaussian weights of this standard deviation."""

    sd: float = 0.0
    n_classes: int = N_CLASSES
    scale: float = 1.0

    def __post_init__(self) -> None:
        shape = (N_PIXELS, self.n_classes)
        self.weights = self.scale * torch.randn(shape, generator=make_rng(w=1)).double()

    def sample(self, inputs, n_samples, *, rng):
        noise = torch.randn(n_samples, *self.weights.shape, generator=rng).double()
        return inputs @ (self.weights + self.sd * noise)


class Constant:
    """Does not look at the image."""

    def sample(self, inputs, n_samples, *, rng):
        return torch.randn(n_samples, 1, N_CLASSES, generator=rng).expand(-1, len(inputs), -1)


def images(n_classes: int = N_CLASSES) -> Split:
    rng = make_rng(images=1)
    inputs = torch.rand(N, N_PIXELS, generator=rng, dtype=torch.float64)
    return Split(inputs, torch.randint(n_classes, (N,), generator=rng))


def target(predictive, n_samples=1, **bounds) -> Target:
    split = images(getattr(predictive, "n_classes", N_CLASSES))
    return Target(split, MixtureLoss(predictive, n_samples), n_samples, **bounds)


@pytest.fixture(scope="module")
def trained() -> Target:
    """A network trained on digits, attacked on validation images."""
    dataset = load_dataset("digits")
    problem = Adversary(epochs=10).problem(dataset)
    network = train_plain_network(problem, make_rng(seed=1))
    return Target(
        dataset.validation,
        lambda inputs, targets, rng: log_odds(network(inputs).unsqueeze(0), targets),
    )


@pytest.mark.parametrize("step", [0.001, 0.3, 2.0])
def test_fgs_on_a_linear_model_is_its_closed_form(step):
    """The gradient of the log loss is W (p - onehot), of the log odds that over 1 - p_target."""
    linear, split = Linear(), images()
    probs = (split.inputs @ linear.weights).softmax(-1)
    gradient = (probs - F.one_hot(split.targets, N_CLASSES)) @ linear.weights.T
    attack = fast_gradient_sign(target(linear), make_rng(seed=1))
    assert torch.equal(attack(step), split.inputs + step * gradient.sign())
    found = target(linear).gradient(split.inputs, make_rng(seed=1))
    doubt = 1 - probs.gather(1, split.targets.unsqueeze(1))
    torch.testing.assert_close(found, gradient / doubt, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("kind", ["fgs", "pgd"])
def test_two_classes_lose_a_margin_of_the_step_times_the_l1_norm(kind):
    """Nothing in the box does more to a linear margin (Goodfellow et al., 2015, section 3)."""
    linear = Linear(n_classes=2)
    attacked = target(linear)
    rng = make_rng(seed=1)
    if kind == "fgs":
        moved = fast_gradient_sign(attacked, rng)(0.1)
    else:
        moved = projected_gradient(attacked, rng, n_steps=5)(0.1)
    difference = linear.weights[:, 0] - linear.weights[:, 1]
    sign = 1 - 2.0 * attacked.split.targets
    margin = sign * (attacked.split.inputs @ difference) - 0.1 * difference.abs().sum()
    losses = attacked.losses(moved, make_rng(seed=2))
    torch.testing.assert_close(losses, -margin, rtol=1e-10, atol=1e-12)


def test_the_mixtures_gradient_is_that_of_finite_differences():
    """Of the log odds of the mean probability over samples, not of the samples' mean."""
    attacked = target(Linear(sd=1.0), n_samples=7)
    inputs, h = attacked.split.inputs, 1e-6
    gradient = attacked.gradient(inputs, make_rng(seed=1))
    for pixel in range(N_PIXELS):
        move = h * F.one_hot(torch.tensor(pixel), N_PIXELS).double()
        up, down = (attacked.losses(inputs + d, make_rng(seed=1)) for d in (move, -move))
        torch.testing.assert_close(gradient[:, pixel], (up - down) / (2 * h), rtol=1e-5, atol=1e-8)
    noise = torch.randn(7, N_PIXELS, N_CLASSES, generator=make_rng(seed=1)).double()
    probs = (inputs @ (Linear().weights + noise)).softmax(-1).mean(0)
    right = probs.gather(1, attacked.split.targets.unsqueeze(1)).squeeze(1)
    expected = (1 - right).log() - right.log()
    torch.testing.assert_close(attacked.losses(inputs, make_rng(seed=1)), expected)


def test_a_prediction_that_ignores_the_image_cannot_be_attacked():
    attacked = target(Constant())
    assert torch.equal(attacked.gradient(attacked.split.inputs, make_rng(seed=1)).unique(), zero())
    moved = fast_gradient_sign(attacked, make_rng(seed=1))(0.5)
    assert torch.equal(moved, attacked.split.inputs)


def zero() -> torch.Tensor:
    return torch.zeros(1, dtype=torch.float64)


def test_all_confidence_does_not_hide_the_gradient():
    """Logits so far apart that a gradient of probabilities or of the log loss is 0."""
    confident = target(Linear(scale=1000.0))
    inputs, targets = confident.split.inputs.clone().requires_grad_(), confident.split.targets
    logits = confident.loss.predictive.sample(inputs, 1, rng=make_rng(s=1)).squeeze(0)
    (vanished,) = torch.autograd.grad(F.cross_entropy(logits, targets), inputs)
    assert (vanished == 0).all(-1).any()
    direction = confident.gradient(inputs, make_rng(seed=1)).sign()
    assert (direction != 0).all()
    found = logits.argmax(-1) != targets
    assert torch.equal(direction[found], vanished.sign()[found])


@pytest.mark.parametrize("n_samples", [1, 5])
def test_batches_do_not_change_an_attack(n_samples, monkeypatch):
    attacked = target(Linear(sd=1.0), n_samples)
    whole = projected_gradient(attacked, make_rng(seed=1), n_steps=3)(0.1)
    monkeypatch.setattr(attacks, "MAX_FORWARD", 7)
    parts = projected_gradient(attacked, make_rng(seed=1), n_steps=3)(0.1)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("step", parse_steps(PAPERS_STEPS))
def test_pgd_is_never_weaker_than_fgs(trained, step):
    """For no image, at no step size."""
    rng = make_rng(seed=1)
    single = trained.losses(fast_gradient_sign(trained, rng)(step), rng)
    many = trained.losses(projected_gradient(trained, rng, n_steps=10)(step), rng)
    assert (many >= single - 1e-4).all()
    if step >= 0.1:  # below, the network is as good as linear
        assert many.mean() > single.mean() + 0.1


def test_more_steps_are_stronger(trained):
    means = [
        trained.losses(projected_gradient(trained, make_rng(s=1), n)(0.2), make_rng(s=2)).mean()
        for n in (2, 10, 40)
    ]
    assert means == sorted(means)


def test_attacks_raise_the_loss(trained):
    clean = trained.losses(trained.split.inputs, make_rng(seed=1)).mean()
    attack = fast_gradient_sign(trained, make_rng(seed=1))
    losses = [trained.losses(attack(step), make_rng(seed=1)).mean() for step in (0.01, 0.05, 0.2)]
    assert clean < losses[0] < losses[1] < losses[2]


@pytest.mark.parametrize("bounds", [{}, {"low": 0.0, "high": 1.0}])
@pytest.mark.parametrize("step", [0.01, 0.5])
def test_images_stay_in_their_box(trained, bounds, step):
    bounded = replace(trained, **bounds)
    for attack in (
        fast_gradient_sign(bounded, make_rng(seed=1)),
        projected_gradient(bounded, make_rng(seed=1), n_steps=4),
    ):
        moved = attack(step)
        assert (moved - trained.split.inputs).abs().max() <= step + 1e-6
        assert (moved.min() >= 0 and moved.max() <= 1) == bool(bounds)
    assert torch.equal(trained.split.inputs, load_dataset("digits").validation.inputs)


def test_each_step_has_fresh_posterior_samples():
    """The single step, its comparison and every other step; not each step size, though."""
    seen = []

    class Watched(Linear):
        def sample(self, inputs, n_samples, *, rng):
            seen.append(rng.initial_seed())
            return super().sample(inputs, n_samples, rng=rng)

    attack = projected_gradient(target(Watched(sd=1.0)), make_rng(seed=1), n_steps=4)
    first = attack(0.1)
    assert len(seen) == 1 + 4 + 2
    assert len(set(seen)) == 1 + 4 + 1
    assert torch.equal(attack(0.1), first)


def test_samples_average_out_of_the_gradient():
    """With many of them an attack of a noisy classifier is that of its mean."""
    exact = target(Linear()).gradient(images().inputs, make_rng(seed=1)).sign()
    agreement = [
        (target(Linear(sd=1.0), n).gradient(images().inputs, make_rng(seed=1)).sign() == exact)
        .double()
        .mean()
        for n in (1, 300)
    ]
    assert agreement[0] < 0.85 < agreement[1]


def test_a_plain_network_depends_on_its_stream_alone():
    dataset = load_dataset("digits")
    problem = Adversary(epochs=2, n_train=100).problem(dataset)
    state = torch.get_rng_state()
    one, same, other = (train_plain_network(problem, make_rng(seed=s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    outputs = [network(dataset.validation.inputs) for network in (one, same, other)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
