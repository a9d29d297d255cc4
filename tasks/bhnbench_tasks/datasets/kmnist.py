"""KMNIST: 28x28 cursive Japanese characters in ten classes, in the original order.

Source: T. Clanuwat, M. Bober-Irizar, A. Kitamoto, A. Lamb, K. Yamamoto and D. Ha, "Deep learning
for classical Japanese literature" (2018). Split as MNIST is: 50 000, 10 000 and 10 000.
"""

from __future__ import annotations

from bhnbench.contract import DataFile
from bhnbench_tasks.datasets.idx import IdxPart, mnist_like
from bhnbench_tasks.datasets.source import on_github

MIRRORS = (
    "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    *on_github(
        "namanlab/CVCNN_Paper", "0f30b9c852904dc63a7902c1d2a2f5c61d0547e4", "data/KMNIST/raw/"
    ),
)


def _file(name: str, sha256: str, size: int) -> DataFile:
    return DataFile(f"kmnist/{name}", f"sha256:{sha256}", size)


TRAIN = IdxPart(
    _file(
        "train-images-idx3-ubyte.gz",
        "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        18_165_135,
    ),
    _file(
        "train-labels-idx1-ubyte.gz",
        "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        29_497,
    ),
    MIRRORS,
)
TEST = IdxPart(
    _file(
        "t10k-images-idx3-ubyte.gz",
        "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        3_041_136,
    ),
    _file(
        "t10k-labels-idx1-ubyte.gz",
        "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        5_120,
    ),
    MIRRORS,
)
SOURCE = mnist_like(
    "kmnist",
    TRAIN,
    TEST,
    doc="KMNIST: 28x28 cursive Japanese characters, 60 000 + 10 000",
    origin="T. Clanuwat et al., ROIS-CODH (2018), CC BY-SA 4.0",
)
