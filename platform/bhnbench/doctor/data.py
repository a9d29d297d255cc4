"""The data sets that a sweep names: here and whole, or to be had. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence

from bhnbench.contract import DataFile, DataSource
from bhnbench.errors import DataError
from bhnbench.findings import Verdict, failed, ok, warning
from bhnbench.plugins import installed, load_source
from bhnbench.specs import PluginSpec
from bhnbench.sweep.document import Sweep

SECONDS = 4  # that a mirror may take to begin its answer


def names_of(task: PluginSpec) -> list[str]:
    """The installed data sets that a task's settings name."""
    values = [value for value in task.settings.values() if isinstance(value, str)]
    return [value for value in dict.fromkeys(values) if value in installed("dataset")]


def missing(name: str) -> list[DataFile]:
    """The files of a data set that are not on this machine."""
    source = load_source(name)
    return [file for file in source.files if source.locate(file) is None]


def data_sets(sweep: Sweep) -> Verdict:
    """All that the tasks name."""
    tasks = {study.labels[0]: study.task for study in sweep.studies}.values()
    names = list(dict.fromkeys(name for task in tasks for name in names_of(task)))
    broken = [reason for name in names for reason in _broken(load_source(name))]
    if broken:
        return failed("\n".join(broken), "delete what is broken, and fetch it anew")
    absent = {name: files for name in names if (files := missing(name))}
    away = [name for name, files in absent.items() if not _on_a_mirror(load_source(name), files)]
    if away:
        return _out_of_reach(away, absent)
    here = [name for name in names if name not in absent]
    said = [f"here: {', '.join(here)}"] if here else []
    said += [f"the sweep downloads {_size(name, files)}" for name, files in absent.items()]
    return ok("; ".join(said) or "the tasks name none of the installed ones")


def _broken(source: DataSource) -> list[str]:
    """What is wrong with the files that are here."""
    reasons = []
    for file in source.files:
        if source.locate(file) is not None:
            try:
                source.verify(file)
            except DataError as error:
                reasons.append(str(error))
    return reasons


def _out_of_reach(names: Sequence[str], absent: dict[str, list[DataFile]]) -> Verdict:
    found = f"not here, and no mirror answers: {', '.join(names)}"
    fix = (
        f"on a machine with network: bhnbench data fetch {' '.join(names)}; copy what `bhnbench "
        "data where` names, and name the copy in $BHNBENCH_DATA"
    )
    partly = all(len(absent[name]) < len(load_source(name).files) for name in names)
    return (
        warning(f"{found} in part (a task may not need all)", fix)
        if partly
        else failed(found, fix)
    )


def _on_a_mirror(source: DataSource, files: Sequence[DataFile]) -> bool:
    """Whether some mirror begins to send the first of the files."""
    import requests

    name = files[0].path.rpartition("/")[2]
    for mirror in source.mirrors:
        url = mirror + name if mirror.endswith("/") else mirror
        try:
            with requests.get(url, timeout=SECONDS, stream=True) as answer:  # its head alone
                if answer.ok:
                    return True
        except requests.RequestException:
            continue
    return False


def _size(name: str, files: Sequence[DataFile]) -> str:
    sizes = [file.size for file in files]
    known = sum(size for size in sizes if size is not None) / 1e6
    return f"{name} ({known:.1f}{'+' if None in sizes else ''} MB)" if known else name
