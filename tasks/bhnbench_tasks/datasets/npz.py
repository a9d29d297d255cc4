"""An ``.npz`` file of a user's: found, digested, and its arrays checked."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bhnbench.errors import DataError, did_you_mean
from bhnbench_tasks.datasets.files import FOLDER_VARIABLE, data_folder

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    Part = tuple[Array, Array]  # inputs, targets

SUFFIX = ".npz"
PARTS = ("train", "validation", "test")
WHOLE = "whole"  # the one part of a file that does not deal out its rows


def find(path: str) -> Path:
    """The file: below the working folder, else below the data folder.

    Raises:
        DataError: it is in neither.
    """
    own = data_folder()
    for folder in (Path(), *([own] if own else [])):
        file = (folder / Path(path).expanduser()).absolute()
        if file.is_file():
            return file
    raise DataError(
        f"{path}: no such file, neither below {Path.cwd()} nor below ${FOLDER_VARIABLE} "
        f"({own or 'not set'}); write its whole path"
    )


def digest(path: str) -> str:
    """sha256 of the file, computed again when the file changes.

    Raises:
        DataError: it is not there, or cannot be read.
    """
    file = find(path)
    stat = file.stat()
    return _digest(file, stat.st_mtime_ns, stat.st_size)


@cache
def _digest(file: Path, _mtime: int, _size: int) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}; allow it") from error


def read_parts(path: str, needed: tuple[str, ...]) -> dict[str, Part]:
    """The arrays by part: ``WHOLE`` alone, or those of ``PARTS``.

    Args:
        path: of the file.
        needed: the parts that must be there if the file deals out its rows.

    Raises:
        DataError: arrays are missing, or do not belong together; says what must hold.
    """
    arrays = _read(find(path), path)
    wanted = [WHOLE] if "inputs" in arrays or "targets" in arrays else list(PARTS)
    keys = {part: names_of(part) for part in wanted}
    known = [key for both in keys.values() for key in both]
    for key in arrays:
        if key not in known:
            names = [*names_of(WHOLE), *known]  # either are possible
            raise DataError(f"{path}: unknown array {key!r}; {did_you_mean(key, names)}")
    parts = {}
    for part, (inputs, targets) in keys.items():
        missing = [key for key in (inputs, targets) if key not in arrays]
        if len(missing) == 1 or (missing and part in (WHOLE, *needed)):
            raise DataError(
                f"{path}: must hold inputs and targets, or both for each of "
                f"{', '.join(needed)}, but {' and '.join(missing)} is not there"
            )
        if not missing:
            parts[part] = arrays[inputs], arrays[targets]
    _check_parts(path, parts)
    return parts


def names_of(part: str) -> tuple[str, str]:
    """What the arrays of a part are called in the file."""
    return ("inputs", "targets") if part == WHOLE else (f"{part}_inputs", f"{part}_targets")


def _read(file: Path, path: str) -> dict[str, Array]:
    import numpy as np

    try:
        with file.open("rb") as opened:
            if not zipfile.is_zipfile(opened):
                raise ValueError("it is not one, or it has lost its end")
            opened.seek(0)
            archive = np.load(opened, allow_pickle=False)
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path}: must be a whole .npz file of plain arrays: {reason}; write it with "
            "numpy.savez"
        ) from error


def _check_parts(path: str, parts: dict[str, Part]) -> None:
    first = next(iter(parts.values()))[0]
    for part, (inputs, targets) in parts.items():
        name_of_inputs, name_of_targets = names_of(part)
        if inputs.ndim < 2 or inputs.size == 0:
            raise DataError(
                f"{path}: {name_of_inputs} must be of shape (rows, features) or more, none of "
                f"them 0, but is {inputs.shape}"
            )
        if targets.ndim == 0 or len(inputs) != len(targets):
            raise DataError(
                f"{path}: {name_of_inputs} and {name_of_targets} must have equally many rows, "
                f"but are {inputs.shape} and {targets.shape}"
            )
        if (inputs.shape[1:], inputs.dtype) != (first.shape[1:], first.dtype):
            raise DataError(
                f"{path}: inputs of all parts must be alike, but {name_of_inputs} is "
                f"{inputs.dtype} {inputs.shape} beside {first.dtype} {first.shape}"
            )


def check_finite(path: str, name: str, array: Array) -> None:
    """Refuse NaN and infinity.

    Raises:
        DataError: says how many there are, and where the first one is.
    """
    import numpy as np

    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        first = ", ".join(str(index) for index in bad[0])
        raise DataError(
            f"{path}: {name} must be finite, but {len(bad)} of its values are not; the first is "
            f"{array[tuple(bad[0])]} at [{first}]"
        )
