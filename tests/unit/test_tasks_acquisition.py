"""BatchBALD against its definition, by brute force, and where BALD goes wrong."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
import torch

from bhnbench import uncertainty
from bhnbench.errors import DivergedError
from bhnbench.seeds import make_rng
from bhnbench_tasks.acquisition import batch_bald, choose_points


def random_logits(n_samples, n, n_classes, *, scale=2.0, seed=1):
    shape = (n_samples, n, n_classes)
    return scale * torch.randn(shape, generator=make_rng(seed=seed), dtype=torch.float64)


def joint_information(logits, places):
    """``I(y_1 ... y_n; w)`` as it is defined: a sum over all labellings."""
    probs = torch.softmax(logits, -1).numpy()
    n_samples, _, n_classes = probs.shape
    marginal = conditional = 0.0
    for labels in product(range(n_classes), repeat=len(places)):
        joint = np.prod([probs[:, p, c] for p, c in zip(places, labels, strict=True)], axis=0)
        marginal -= joint.mean() * np.log(joint.mean())
        conditional -= (joint * np.log(joint)).mean()
    assert len(joint) == n_samples
    return marginal - conditional


def test_the_joint_information_is_that_of_the_definition():
    logits = random_logits(5, 6, 3)
    batch = batch_bald(logits, 4, rng=make_rng(), n_labellings=10_000)
    for k in range(1, 5):
        assert batch.gains[:k].sum().item() == pytest.approx(
            joint_information(logits, batch.places[:k].tolist()), abs=1e-5
        )


@pytest.mark.parametrize("seed", range(1, 6))
def test_every_choice_is_the_greedy_one(seed):
    logits = random_logits(4, 7, 3, seed=seed)
    batch = batch_bald(logits, 4, rng=make_rng(), n_labellings=10_000)
    chosen: list[int] = []
    for place in batch.places.tolist():
        rest = [p for p in range(7) if p not in chosen]
        values = [joint_information(logits, [*chosen, p]) for p in rest]
        assert place == rest[int(np.argmax(values))]
        chosen.append(place)


def test_a_greedy_batch_is_nearly_the_best_one():
    """At least 1 - 1/e of the best (Nemhauser, Wolsey and Fisher, 1978)."""
    logits = random_logits(6, 7, 3, seed=3)
    best = max(joint_information(logits, places) for places in combinations(range(7), 3))
    found = batch_bald(logits, 3, rng=make_rng()).gains.sum().item()
    assert (1 - 1 / np.e) * best < found <= best + 1e-5


def test_one_point_is_the_one_of_bald():
    logits = random_logits(20, 250, 10)
    batch = batch_bald(logits, 1, rng=make_rng())
    bald = uncertainty.bald(uncertainty.class_probabilities(logits))
    assert batch.places.tolist() == [bald.argmax().item()]
    assert batch.gains.item() == pytest.approx(bald.max().item(), abs=1e-6)


def test_points_that_are_passed_over_would_not_have_been_chosen():
    """More candidates than are looked at together: bounds decide which are left alone."""
    logits = random_logits(10, 450, 3, scale=1.0)
    batch = batch_bald(logits, 5, rng=make_rng(), n_labellings=10_000)
    for k in range(5):
        chosen = batch.places[:k].tolist()
        known = joint_information(logits, chosen) if chosen else 0.0
        rest = [p for p in range(0, 450, 9) if p not in chosen]
        gains = [joint_information(logits, [*chosen, p]) - known for p in rest]
        assert max(gains) <= batch.gains[k].item() + 2e-6


def test_sampled_labellings_agree_with_all_of_them():
    """Gains with few labellings scatter around the exact ones, without bias."""
    logits = random_logits(6, 7, 3, scale=1.5)  # all are chosen, in whatever order
    exact = batch_bald(logits, 7, rng=make_rng(), n_labellings=3**7).gains.sum().item()
    assert exact == pytest.approx(joint_information(logits, range(7)), abs=1e-5)
    sums = [
        batch_bald(logits, 7, rng=make_rng(seed=seed), n_labellings=50).gains.sum().item()
        for seed in range(100)
    ]
    assert 0 < np.std(sums) < 0.05 * exact
    # Choosing the largest of noisy gains flatters each of them a little, as does the bound.
    assert abs(np.mean(sums) - exact) < 0.01 * exact


def test_a_large_batch_does_not_underflow():
    """A labelling of 300 points has a probability of about 1e-300."""
    logits = random_logits(10, 300, 10, scale=0.3)
    batch = batch_bald(logits, 300, rng=make_rng(), n_labellings=100)
    assert sorted(batch.places.tolist()) == list(range(300))
    assert batch.gains.isfinite().all()
    assert 0 < batch.gains.sum() < np.log(10) + 0.3  # ten samples are told apart, and no more


def planted(n_duplicates=8):
    """Samples differ in two bits; the first is asked by many candidates, the second by one.

    Candidates 0 to n_duplicates - 1 are copies that tell the first bit; the next one tells the
    second bit less clearly; the others tell nothing.
    """
    first, second = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    logits = torch.zeros(4, n_duplicates + 10, 2)
    logits[:, :n_duplicates, 1] = (20.0 * first - 10).unsqueeze(-1)
    logits[:, n_duplicates, 1] = 4.0 * second - 2
    return logits


def test_bald_buys_duplicates_and_batch_bald_does_not():
    chosen = {
        name: choose_points(name, planted(), 3, rng=make_rng()).tolist()
        for name in ("bald", "batch_bald")
    }
    assert chosen["bald"] == [0, 1, 2]
    assert chosen["batch_bald"][:2] == [0, 8]


def test_the_gains_of_independent_bits_add_up():
    gains = batch_bald(planted(), 4, rng=make_rng()).gains
    bald = uncertainty.bald(uncertainty.class_probabilities(planted()))
    assert gains[:2].tolist() == pytest.approx(bald[[0, 8]].tolist(), abs=1e-3)
    assert gains[2:].tolist() == pytest.approx([0, 0], abs=1e-3)


def test_samples_that_agree_leave_the_order_as_it_is():
    logits = random_logits(1, 30, 5).expand(16, -1, -1)
    batch = batch_bald(logits, 4, rng=make_rng())
    assert batch.places.tolist() == [0, 1, 2, 3]
    assert batch.gains.tolist() == [0] * 4


def test_impossible_labels_do_no_harm():
    logits = random_logits(6, 8, 3)
    logits[:, :, 2] = -2000  # probability 0 in float64
    with_impossible = batch_bald(logits, 8, rng=make_rng(), n_labellings=50)
    without = batch_bald(logits[:, :, :2], 8, rng=make_rng(), n_labellings=50)
    assert with_impossible.gains.isfinite().all()
    assert with_impossible.places[:5].tolist() == without.places[:5].tolist()


@pytest.mark.parametrize("name", ["bald", "batch_bald", "max_entropy"])
def test_as_many_as_there_are(name):
    chosen = choose_points(name, random_logits(5, 6, 3), 10, rng=make_rng())
    assert sorted(chosen.tolist()) == list(range(6))


def test_the_size_of_the_papers_is_one_call():
    """10 points of 2000 candidates, 10 classes, 100 samples."""
    confidence = torch.rand(2000, 1, generator=make_rng(seed=2)) * 30
    logits = random_logits(100, 2000, 10).float()
    logits[..., :1] += confidence
    batch = batch_bald(logits, 10, rng=make_rng())
    assert len(set(batch.places.tolist())) == 10
    assert (batch.gains.diff() <= 0.01).all()  # information is submodular


@pytest.mark.parametrize("name", ["bald", "batch_bald", "entropy"])
def test_candidates_whose_outputs_are_no_numbers_have_no_order(name):
    logits = random_logits(10, 20, 3)
    logits[3, 7, 0] = torch.nan
    with pytest.raises(DivergedError, match="must be finite, but some are not"):
        choose_points(name, logits, 4, rng=make_rng(seed=0))
