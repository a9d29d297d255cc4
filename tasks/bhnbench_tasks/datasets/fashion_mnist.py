"""Fashion-MNIST: 28x28 pictures of clothes in ten classes, in the original order.

Source: H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking
machine learning algorithms" (2017). Split as MNIST is: 50 000, 10 000 and 10 000.
"""

from __future__ import annotations

from bhnbench.contract import DataFile
from bhnbench_tasks.datasets.idx import IdxPart, mnist_like
from bhnbench_tasks.datasets.source import on_github

MIRRORS = (
    "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    *on_github("zalandoresearch/fashion-mnist", "master", "data/fashion/"),
)


def _file(name: str, sha256: str, size: int) -> DataFile:
    return DataFile(f"fashion_mnist/{name}", f"sha256:{sha256}", size)


TRAIN = IdxPart(
    _file(
        "train-images-idx3-ubyte.gz",
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        26_421_880,
    ),
    _file(
        "train-labels-idx1-ubyte.gz",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        29_515,
    ),
    MIRRORS,
)
TEST = IdxPart(
    _file(
        "t10k-images-idx3-ubyte.gz",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        4_422_102,
    ),
    _file(
        "t10k-labels-idx1-ubyte.gz",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        5_148,
    ),
    MIRRORS,
)
SOURCE = mnist_like(
    "fashion_mnist",
    TRAIN,
    TEST,
    doc="Fashion-MNIST: 28x28 pictures of clothes, 60 000 + 10 000",
    origin="H. Xiao, K. Rasul and R. Vollgraf (2017), MIT licence",
)
