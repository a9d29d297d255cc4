"""notMNIST: 28x28 letters A to J in many typefaces, the small set of 10 000.

Source: Y. Bulatov, "notMNIST dataset" (2011), converted to MNIST's layout in
davidflanagan/notMNIST-to-MNIST. That is the test part of the conversion, which has no training
rows: as a data set for classification its 9804 different images (some letters are there twice and
more) are dealt out by hash, 60 : 20 : 20.
"""

from __future__ import annotations

from bhnbench.contract import DataFile
from bhnbench_tasks.datasets.dataset import Dataset, ImageSource
from bhnbench_tasks.datasets.idx import IMAGE_SHAPE, IdxPart
from bhnbench_tasks.datasets.order import deal, distinct
from bhnbench_tasks.datasets.source import on_github

MIRRORS = on_github("davidflanagan/notMNIST-to-MNIST", "17823f4d4a3acd8317c07866702d2eb2ac79c7a0")


def _file(name: str, sha256: str) -> DataFile:
    return DataFile(f"notmnist/{name}", f"sha256:{sha256}", decompressed=True)


TEST = IdxPart(
    _file(
        "t10k-images-idx3-ubyte.gz",
        "8e7f38ae95cc8f48e0986175ffc9137e5007ebcf3d8fdf6656c904eb9dab198b",
    ),
    _file(
        "t10k-labels-idx1-ubyte.gz",
        "5f8e6012f2ce730700d8d05fca098bc47f71d25b890e4bec7ac5ebfd614a4001",
    ),
    MIRRORS,
)


def load() -> Dataset:
    """Read the letters and deal them out."""
    train, validation, test = deal(distinct(TEST.read()))
    return Dataset("notmnist", train, validation, 10, IMAGE_SHAPE, read_test=lambda: test)


SOURCE = ImageSource(
    doc="notMNIST: 28x28 letters A to J, 10 000 of the small set",
    origin="Y. Bulatov (2011); converted by D. Flanagan",
    load=load,
    files=(TEST.images, TEST.labels),
    mirrors=MIRRORS,
    n_train=5882,
    edition="distinct images",
    image_shape=IMAGE_SHAPE,
)
