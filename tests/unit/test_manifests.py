"""Sweeps as Kubernetes manifests and SLURM scripts."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bhnbench.cluster.manifests import image_for, kubernetes_name, render_manifest
from bhnbench.cluster.shape import MOST_NODES, RAY_GIB, RUNS_A_NODE, shape_of
from bhnbench.errors import BhnbenchError
from bhnbench.sweep.document import Sweep, read_sweep

SWEEP = """\
name: Digits.and_Moons
tasks: [toy_regression]
methods: [mc_dropout, maximum_likelihood]
evaluate: {seeds: 5}
resources: {cpu: 2, gpu: 0}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "it's mine.yaml"
    path.write_text(SWEEP)
    return path


def rendered(kind: str, file: Path, *overrides: str) -> str:
    return render_manifest(kind, read_sweep(file, overrides), file, overrides)


def asking(file: Path, resources: str) -> Sweep:
    file.write_text(SWEEP.replace("{cpu: 2, gpu: 0}", resources))
    return read_sweep(file)


def test_a_rayjob_carries_the_sweep_file_and_the_overrides(file):
    text = "evaluate.seeds=7"
    config, job = yaml.safe_load_all(rendered("kuberay", file, text))
    assert config["data"]["sweep.yaml"] == SWEEP
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (mount,) = head["containers"][0]["volumeMounts"]
    (volume,) = head["volumes"]
    assert volume == {"name": mount["name"], "configMap": {"name": config["metadata"]["name"]}}
    command = shlex.split(job["spec"]["entrypoint"])
    path = f"{mount['mountPath']}/sweep.yaml"
    assert command == ["bhnbench", "sweep", path, "--set", text, "--address", "auto"]


@pytest.mark.parametrize(
    "comment",
    ["# ends in blanks   \n\n\n", "#\ttab\n", "# ü \N{SNOWMAN} \x85\n", "# no end of line"],
)
def test_a_rayjob_keeps_every_character_of_the_file(file, comment):
    file.write_text(SWEEP + comment)
    config, _ = yaml.safe_load_all(rendered("kuberay", file))
    assert config["data"]["sweep.yaml"] == file.read_text()


def test_a_batch_script_names_the_file_where_it_is(file):
    script = rendered("slurm", file, "tasks.0.label=a $(touch b)")
    line = next(line for line in script.splitlines() if line.strip().startswith("bhnbench sweep"))
    words = shlex.split(line.replace("&", ""))
    assert words[2:5] == [str(file), "--set", "tasks.0.label=a $(touch b)"]


@pytest.mark.parametrize("kind", ["kuberay", "slurm"])
def test_secrets_are_named_and_never_given(file, kind, monkeypatch):
    for name in ("BHNBENCH_LEDGER", "MLFLOW_TRACKING_URI", "PGPASSWORD", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, f"postgresql://u:hunter2-{name}@host/db")
    assert "hunter2" not in rendered(kind, file)


def test_an_unknown_kind_is_refused_with_those_there_are(file):
    with pytest.raises(BhnbenchError, match=r"kuberay or slurm, but got 'slrum'.*'slurm'"):
        rendered("slrum", file)


def test_a_file_that_has_gone_is_one_line(file):
    sweep = read_sweep(file)
    file.unlink()
    with pytest.raises(BhnbenchError, match=r"mine\.yaml: cannot be read: No such file"):
        render_manifest("kuberay", sweep, file)


def test_names_are_those_that_kubernetes_takes(file):
    sweep = read_sweep(file)
    assert kubernetes_name(sweep) == f"digits-and-moons-{sweep.digest[:8]}"
    assert len(kubernetes_name(replace(sweep, name="a" * 100))) <= 47


@pytest.mark.parametrize(
    ("resources", "shape"),
    [
        ("{cpu: 2}", (RUNS_A_NODE, 2 * RUNS_A_NODE, 0)),
        ("{gpu: 0.25}", (4, 4, 1)),
        ("{gpu: 0.1}", (10, 10, 1)),
        ("{gpu: 0.3, cpu: 2}", (3, 6, 1)),
        ("{gpu: 2, cpu: 4}", (1, 4, 2)),
    ],
)
def test_nodes_are_filled_without_a_rest(file, resources, shape):
    found = shape_of(asking(file, resources))
    assert (found.runs, found.cpus, found.gpus) == shape


def test_nodes_fit_the_largest_request(file):
    own = "[{name: mc_dropout, resources: {gpu: 0.5, memory: 6}}, maximum_likelihood]"
    file.write_text(SWEEP.replace("[mc_dropout, maximum_likelihood]", own))
    found = shape_of(read_sweep(file))
    assert (found.runs, found.cpus, found.gpus) == (2, 4, 1)
    assert found.memory_gib == 2 * 6 + RAY_GIB


def test_there_are_no_more_nodes_than_runs_fill(file):
    assert shape_of(asking(file, "{}")).n_nodes == 2  # of 10 runs
    assert shape_of(asking(file, "{gpu: 1}")).n_nodes == MOST_NODES


def test_the_image_is_one_with_gpus_where_runs_need_them(file, monkeypatch):
    monkeypatch.delenv("BHNBENCH_IMAGE", raising=False)
    assert image_for(shape_of(asking(file, "{}"))).endswith("-cpu")
    assert image_for(shape_of(asking(file, "{gpu: 0.5}"))).endswith("-gpu")
    monkeypatch.setenv("BHNBENCH_IMAGE", "registry.example/mine:1")
    assert image_for(shape_of(asking(file, "{}"))) == "registry.example/mine:1"


def test_a_shared_folder_is_mounted_where_the_sweep_expects_it(file):
    _, job = yaml.safe_load_all(rendered("kuberay", file, "storage=/shared/progress"))
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
        assert mounts["storage"] == "/shared/progress"
        assert "storage" in [volume["name"] for volume in pod["volumes"]]


def test_an_object_store_is_not_mounted(file):
    with_store = rendered("kuberay", file, "storage=s3://bucket/progress")
    assert "persistentVolumeClaim" not in with_store
