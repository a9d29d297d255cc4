"""Corruptions of images, against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from bhnbench.seeds import make_rng
from bhnbench_tasks.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    as_images,
    blur,
    occlude,
    rotate,
    shear,
    translate,
)
from bhnbench_tasks.datasets import load_dataset
from bhnbench_tasks.distribution_shift import DistributionShift
from bhnbench_tasks.rotated_digit import RotatedDigit


@pytest.fixture(params=[(8, 8), (9, 14), (28, 28)], ids=str)
def images(request) -> torch.Tensor:
    return torch.rand(3, 2, *request.param, generator=make_rng(images=1), dtype=torch.float64)


@pytest.mark.parametrize("degrees", [0, 10, 45, 90, 137, 180, -30])
def test_rotation_is_scipys(images, degrees):
    """About the centre, the same way round, bilinearly; black outside."""
    for image, turned in zip(images, rotate(images, degrees), strict=True):
        expected = [
            ndimage.rotate(channel, degrees, reshape=False, order=1, mode="grid-constant")
            for channel in image
        ]
        np.testing.assert_allclose(turned, expected, atol=1e-10)


def test_each_image_may_have_an_angle_of_its_own(images):
    together = rotate(images, torch.tensor([0.0, 30.0, 90.0], dtype=torch.float64))
    for image, turned, degrees in zip(images, together, [0.0, 30.0, 90.0], strict=True):
        assert torch.allclose(turned, rotate(image.unsqueeze(0), degrees)[0])


def test_a_quarter_turn_is_counter_clockwise():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.allclose(rotate(image, 90.0), torch.rot90(image, 1, (2, 3)), atol=1e-5)


def test_translation_is_scipys(images):
    right, down = torch.tensor([[1.0, -2.5, 0.3], [0.0, 1.25, -3.0]], dtype=torch.float64)
    for image, moved, x, y in zip(
        images, translate(images, right, down), right.tolist(), down.tolist(), strict=True
    ):
        expected = ndimage.shift(image, (0, y, x), order=1, mode="grid-constant")
        np.testing.assert_allclose(moved, expected, atol=1e-10)


def test_shear_is_scipys(images):
    height, width = images.shape[-2:]
    slopes = torch.tensor([0.5, -0.7, 0.0], dtype=torch.float64)
    for image, leaning, slope in zip(images, shear(images, slopes), slopes.tolist(), strict=True):
        matrix = np.array([[1, 0], [slope, 1]])
        centre = np.array([height - 1, width - 1]) / 2
        expected = [
            ndimage.affine_transform(
                channel, matrix, centre - matrix @ centre, order=1, mode="grid-constant"
            )
            for channel in image
        ]
        np.testing.assert_allclose(leaning, expected, atol=1e-10)


def test_shear_leans_to_the_right_for_positive_slopes():
    """The upper rows move to the right."""
    image = torch.zeros(1, 1, 5, 5)
    image[..., 2] = 1
    leaning = shear(image, torch.tensor([1.0]))
    assert torch.allclose(leaning[0, 0], torch.eye(5).flip(1), atol=1e-6)


@pytest.mark.parametrize("sd", [0.16, 1.0, 2.8])
def test_blur_is_scipys(images, sd):
    expected = ndimage.gaussian_filter(images, (0, 0, sd, sd), mode="constant", truncate=4.0)
    np.testing.assert_allclose(blur(images, sd), expected, atol=1e-10)


def test_occlusion_blackens_a_square(images):
    top, left = torch.tensor([0, 2, 5]), torch.tensor([1, 0, 5])
    covered = occlude(images, 3, top, left)
    for before, after, row, column in zip(
        images, covered, top.tolist(), left.tolist(), strict=True
    ):
        expected = before.clone()
        expected[:, row : row + 3, column : column + 3] = 0
        assert torch.equal(after, expected)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixels_stay_pixels(name, severity, images):
    before, single = images.clone(), images.float()
    corrupted = CORRUPTIONS[name](single, severity, make_rng(seed=1))
    assert corrupted.shape == single.shape
    assert corrupted.dtype == single.dtype
    assert corrupted.min() >= -1e-6
    assert corrupted.max() <= 1 + 1e-6
    assert not torch.equal(corrupted, single)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severities_differ_in_nothing_but_their_size(name):
    """So that a corruption takes an image further and further away from what it was."""
    digits = as_images(load_dataset("digits").validation.inputs, (8, 8))
    distances = [
        (CORRUPTIONS[name](digits, severity, make_rng(seed=1)) - digits).square().mean().item()
        for severity in SEVERITIES
    ]
    assert distances == sorted(distances)
    assert distances[0] > 0


@pytest.mark.parametrize("name", ["noise", "occlusion", "translation", "salt_and_pepper"])
def test_another_seed_is_another_corruption(name, images):
    one, same, other = (CORRUPTIONS[name](images, 3, make_rng(seed=s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_noise_has_its_standard_deviation():
    grey = torch.full((40, 1, 28, 28), 0.5)
    noisy = CORRUPTIONS["noise"](grey, 1, make_rng(seed=1))
    n = grey.numel()
    assert noisy.std().item() == pytest.approx(0.1, abs=4 * 0.1 / (2 * n) ** 0.5)


def test_salt_and_pepper_hit_their_share():
    grey = torch.full((40, 1, 28, 28), 0.5)
    hit = CORRUPTIONS["salt_and_pepper"](grey, 2, make_rng(seed=1))
    se = (0.1 * 0.9 / grey.numel()) ** 0.5
    assert (hit != 0.5).float().mean().item() == pytest.approx(0.1, abs=4 * se)
    assert set(hit.unique().tolist()) == {0, 0.5, 1}


def test_occlusion_covers_its_share_and_every_place():
    white = torch.ones(2000, 1, 8, 8)
    covered = CORRUPTIONS["occlusion"](white, 5, make_rng(seed=1)) == 0
    assert set(covered.sum((1, 2, 3)).tolist()) == {16}
    assert covered.any(0).all()


def test_columns_become_images():
    inputs = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 60)
    images = as_images(inputs, (4, 5))
    assert images.shape == (2, 3, 4, 5)
    assert torch.equal(images.flatten(1), inputs)


@pytest.mark.parametrize("task", [RotatedDigit, DistributionShift])
def test_vectors_are_no_images(task, tmp_path):
    file = tmp_path / "vectors.npz"
    rng = np.random.default_rng(1)
    np.savez(file, inputs=rng.random((30, 5)), targets=np.arange(30) % 3)
    with pytest.raises(ValueError, match=r"must hold images, but .*vectors.npz has 1x5 features"):
        task(dataset=str(file))
