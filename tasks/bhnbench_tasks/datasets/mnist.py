"""MNIST: 28x28 handwritten digits, in the original order.

Source: Y. LeCun, C. Cortes, C. J. C. Burges. The training split is the first 50 000 rows of the
training file, validation its last 10 000, test the 10 000 rows of the test file: the split of
deeplearning.net's ``mnist.pkl.gz``, which the papers use.
"""

from __future__ import annotations

from bhnbench.contract import DataFile
from bhnbench_tasks.datasets.idx import IdxPart, mnist_like

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)


def _file(name: str, sha256: str, size: int) -> DataFile:
    return DataFile(f"mnist/{name}", f"sha256:{sha256}", size, decompressed=True)


TRAIN = IdxPart(
    _file(
        "train-images-idx3-ubyte.gz",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        9_912_422,
    ),
    _file(
        "train-labels-idx1-ubyte.gz",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        28_881,
    ),
    MIRRORS,
)
TEST = IdxPart(
    _file(
        "t10k-images-idx3-ubyte.gz",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        1_648_877,
    ),
    _file(
        "t10k-labels-idx1-ubyte.gz",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        4_542,
    ),
    MIRRORS,
)
SOURCE = mnist_like(
    "mnist",
    TRAIN,
    TEST,
    doc="MNIST: 28x28 handwritten digits, 60 000 + 10 000",
    origin="Y. LeCun, C. Cortes and C. J. C. Burges",
)
DIGEST = SOURCE.digest
