"""Omniglot: handwritten characters of 15 alphabets without look-alikes of digits, as 28x28 images.

Source: B. M. Lake, R. Salakhutdinov and J. B. Tenenbaum, "Human-level concept learning through
probabilistic program induction" (2015), the background set. The alphabets are those with which
D. Hendrycks and K. Gimpel, "A baseline for detecting misclassified and out-of-distribution
examples in neural networks" (2017), detect outliers to MNIST: 460 characters, drawn 20 times each.
They name the alphabets by their places in the set's MATLAB file, which was not at hand here: the
places are taken to follow the characters' running numbers, since this gives the 9200 drawings that
their base rate implies, and the alphabetical order 9760.
The images are inverted, so that strokes are light, and made smaller by averaging areas.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

from bhnbench.contract import DataFile, Split
from bhnbench.errors import DataError
from bhnbench_tasks.datasets import files
from bhnbench_tasks.datasets.dataset import Dataset, ImageSource
from bhnbench_tasks.datasets.order import deal
from bhnbench_tasks.datasets.resize import resize
from bhnbench_tasks.datasets.source import on_github

if TYPE_CHECKING:
    import torch

MIRRORS = on_github("brendenlake/omniglot", "master", "python/")
FILE = DataFile(
    "omniglot/images_background.zip",
    "sha256:ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
    9_464_212,
)
ALPHABETS = {  # the running numbers of their characters, with which the files' names begin
    "Arcadian": range(1, 27),
    "Asomtavruli (Georgian)": range(68, 108),
    "Blackfoot": range(178, 192),
    "Braille": range(192, 218),
    "Early Aramaic": range(251, 273),
    "Grantha": range(351, 394),
    "Greek": range(394, 418),
    "Gujarati": range(418, 466),
    "Hebrew": range(466, 488),
    "Japanese (hiragana)": range(488, 540),
    "Inuktitut": range(540, 556),
    "Malay (Jawi)": range(556, 596),
    "Japanese (katakana)": range(596, 643),
    "Latin": range(683, 709),
    "Ojibwe": range(837, 851),
}
IMAGE_SHAPE = (28, 28)
N_DRAWINGS = 20  # of each character, by as many people
_N_CHARACTERS = sum(len(numbers) for numbers in ALPHABETS.values())
_CHUNK = 1000  # images that are made smaller together: all of them would take 400 MB


def load() -> Dataset:
    """The images with their alphabets as classes, dealt out by hash, 60 : 20 : 20."""
    images, alphabets = read_images()
    train, validation, test = deal(Split(images.flatten(1), alphabets))
    return Dataset(
        "omniglot", train, validation, len(ALPHABETS), IMAGE_SHAPE, read_test=lambda: test
    )


def read_images() -> tuple[torch.Tensor, torch.Tensor]:
    """Images ``(n, 28, 28)`` float32 in [0, 1], and the numbers of their alphabets ``(n,)``."""
    import torch

    owners = {number: i for i, numbers in enumerate(ALPHABETS.values()) for number in numbers}
    with zipfile.ZipFile(io.BytesIO(files.read(FILE, MIRRORS))) as archive:
        names = {name.rpartition("/")[2]: name for name in archive.namelist()}  # 0709_20.png
        chosen = sorted(
            name for name in names if name.endswith(".png") and int(name[:4]) in owners
        )
        if len(chosen) != N_DRAWINGS * _N_CHARACTERS:
            raise DataError(
                f"{FILE.path}: must hold {N_DRAWINGS * _N_CHARACTERS} drawings of the alphabets, "
                f"but holds {len(chosen)}; delete it and run again to download it"
            )
        parts = [chosen[i : i + _CHUNK] for i in range(0, len(chosen), _CHUNK)]
        images = [_read_chunk(archive, [names[name] for name in part]) for part in parts]
    return torch.cat(images), torch.tensor([owners[int(name[:4])] for name in chosen])


def _read_chunk(archive: zipfile.ZipFile, names: list[str]) -> torch.Tensor:
    import numpy as np
    import torch
    from PIL import Image

    papers = [np.asarray(Image.open(io.BytesIO(archive.read(name))), bool) for name in names]
    return resize(1 - torch.from_numpy(np.stack(papers)).float(), IMAGE_SHAPE)


SOURCE = ImageSource(
    doc="Omniglot: characters of 15 alphabets, unlike digits, 9200 as 28x28",
    origin="B. M. Lake, R. Salakhutdinov and J. B. Tenenbaum (2015), MIT licence",
    load=load,
    files=(FILE,),
    mirrors=MIRRORS,
    n_train=5520,
    image_shape=IMAGE_SHAPE,
    n_classes=len(ALPHABETS),
)
