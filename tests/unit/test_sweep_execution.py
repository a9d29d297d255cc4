"""How a sweep is executed, as its file says: what runs occupy, and how often they are retried."""

from __future__ import annotations

from pathlib import Path

import pytest

from bhnbench.errors import InvalidSweepError
from bhnbench.specs import digest
from bhnbench.sweep.document import Sweep, read_sweep
from bhnbench.sweep.execution import Resources, Retries
from bhnbench.sweep.yaml_file import read_document

TOP = "name: demo\ntasks: [guess]\nmethods: [constant]\n"
OWN = """\
name: demo
tasks:
  - guess
  - {name: guess, label: large, resources: {cpu: 2, memory: 8}}
methods:
  - constant
  - {name: constant, label: shared, x: 0.5, resources: {gpu: 0.25, memory: 512MiB}}
  - {name: constant, label: whole, x: 0.6, resources: {cpu: 3, gpu: 2}}
"""


def read(tmp_path: Path, text: str, *overrides: str) -> Sweep:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return read_sweep(path, overrides)


def test_without_a_word_a_run_takes_one_processor(tmp_path: Path) -> None:
    sweep = read(tmp_path, TOP)
    assert sweep.resources == Resources(cpu=1, gpu=0.0, memory=0.0)
    assert sweep.resources_of(sweep.studies[0]) == sweep.resources
    assert sweep.retries == Retries(infra=5, out_of_memory=1, diverged=0, error=0)


@pytest.mark.parametrize(
    ("written", "n_bytes"),
    [
        ("4", 4 * 2**30),
        ("0.5", 2**29),
        ("4GiB", 4 * 2**30),
        ("512 MiB", 2**29),
        ("0.001TiB", 1.024 * 2**30),
    ],
)
def test_memory_is_gib_or_text_with_its_unit(tmp_path: Path, written: str, n_bytes: float) -> None:
    sweep = read(tmp_path, f"{TOP}resources: {{memory: {written}}}")
    assert sweep.resources.memory_bytes == round(n_bytes)


def test_a_study_takes_the_larger_request_of_its_task_and_method(tmp_path: Path) -> None:
    sweep = read(tmp_path, OWN, "resources.gpu=1", "resources.cpu=4")
    found = {study.labels: sweep.resources_of(study) for study in sweep.studies}
    assert found == {
        ("guess", "constant"): Resources(4, 1.0, 0.0),
        ("guess", "shared"): Resources(4, 0.25, 0.5),  # less than the sweep's: it says so itself
        ("guess", "whole"): Resources(3, 2.0, 0.0),
        ("large", "constant"): Resources(2, 1.0, 8.0),
        ("large", "shared"): Resources(2, 0.25, 8.0),
        ("large", "whole"): Resources(3, 2.0, 8.0),
    }


def test_retries_are_counted_for_each_failure(tmp_path: Path) -> None:
    sweep = read(tmp_path, TOP + "retries: {infra: 20, error: 1}")
    assert sweep.retries == Retries(infra=20, out_of_memory=1, diverged=0, error=1)


@pytest.mark.parametrize(
    "more",
    [
        "retries: {infra: 9}\n",
        "resources: {memory: 4}\n",
        "resources: {cpu: 2, memory: 4GiB}\n",
    ],
)
def test_how_a_sweep_is_executed_changes_no_identity(tmp_path: Path, more: str) -> None:
    plain = read(tmp_path, TOP + ("resources: {cpu: 2}\n" if "cpu" in more else ""))
    told = read(tmp_path, TOP + more)
    assert told.digest == plain.digest
    assert [study.key for study in told.studies] == [study.key for study in plain.studies]


def test_what_an_entry_asks_for_changes_no_identity(tmp_path: Path) -> None:
    text = """\
name: demo
tasks: [{name: guess, resources: {cpu: 2}}]
methods: [{name: constant, x: 0.5, resources: {memory: 1}}]
"""
    plain = read(tmp_path, text.replace("{name: guess, resources: {cpu: 2}}", "guess").replace(
        ", resources: {memory: 1}", ""))  # fmt: skip
    told = read(tmp_path, text)
    assert told.digest == plain.digest
    assert told.studies == plain.studies


@pytest.mark.parametrize("path", sorted(Path("sweeps").glob("*learning.yaml")))
def test_the_digest_of_a_document_that_ledgers_know_is_as_it_was(path: Path) -> None:
    assert read_sweep(path).digest == digest(read_document(path).content)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("resources: {memory: 4GB}",
         "resources.memory: must be a number of GiB, or text such as 4GiB or 512MiB, but got "
         "'4GB'"),
        ("resources: {memory: true}",
         "resources.memory: must be a number of GiB, or text such as 4GiB or 512MiB, but got "
         "true"),
        ("resources: {memory: -1}", "resources.memory: must be at least 0, but got -1"),
        ("resources: {gpu: 1.5}",
         "resources.gpu: must be whole above 1, as only one GPU can be shared, but got 1.5"),
        ("resources: {gpus: 1}", "resources.gpus: unknown key; did you mean 'gpu'?"),
        ("retries: {infra: -1}", "retries.infra: must be at least 0, but got -1"),
        ("retries: {infra: 1.5}", "retries.infra: must be a whole number, but got 1.5"),
        ("retries: {oom: 1}", "retries.oom: unknown key; did you mean 'out_of_memory'?"),
        ("retries: 3",
         "retries: must be a mapping with infra, out_of_memory, diverged and error, but got 3"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(tmp_path: Path, more: str, line: str) -> None:
    with pytest.raises(InvalidSweepError) as caught:
        read(tmp_path, TOP + more)
    assert caught.value.mistakes == [f"{tmp_path}/sweep.yaml:4: {line}"]


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ("{gpuu: 1}", ".gpuu: unknown key; did you mean 'gpu'?"),
        ("{cpu: 0}", ".cpu: must be at least 1, but got 0"),
        ("3", ": must be a mapping with cpu, gpu and memory, but got 3"),
    ],
)
@pytest.mark.parametrize(("kind", "name"), [("tasks", "guess"), ("methods", "constant")])
def test_a_mistake_in_an_entry_is_one_line(
    tmp_path: Path, kind: str, name: str, asked: str, line: str
) -> None:
    text = TOP.replace(f"[{name}]", f"[{{name: {name}, resources: {asked}}}]")
    with pytest.raises(InvalidSweepError) as caught:
        read(tmp_path, text)
    number = 2 if kind == "tasks" else 3
    expected = f"{tmp_path}/sweep.yaml:{number}: {kind}[0].resources{line}"
    assert caught.value.mistakes == [expected]
