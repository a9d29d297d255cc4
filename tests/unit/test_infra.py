"""What `infra/` holds is as published schemas ask, and as the program prints it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from bhnbench.cluster.manifests import render_manifest
from bhnbench.sweep.document import read_sweep
from tests.infra_files import (
    INFRA,
    ROOT,
    SCRIPTS,
    clusters,
    compose,
    documents,
    groups,
    kuberay_fields,
    launcher,
    manifests,
)

SHELLCHECK = Path(sys.executable).with_name("shellcheck")
KUBERNETES = "1.34"
EXAMPLES = {  # file: how it is made
    "kubernetes/rayjob.yaml": ("kuberay", "sweeps/active_learning.yaml"),
    "kubernetes/rayjob-gpu.yaml": ("kuberay", "sweeps/mnist_5000.yaml", "resources.gpu=0.25"),
    "slurm/sweep.sbatch": ("slurm", "sweeps/active_learning.yaml"),
    "slurm/sweep-gpu.sbatch": ("slurm", "sweeps/mnist_5000.yaml", "resources.gpu=0.25"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_what_the_program_prints(name, monkeypatch):
    """Else: bhnbench submit SWEEP --set ... --to KIND --print > infra/FILE."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("BHNBENCH_IMAGE", raising=False)
    kind, file, *overrides = EXAMPLES[name]
    sweep = read_sweep(Path(file), overrides)
    assert (INFRA / name).read_text() == render_manifest(kind, sweep, Path(file), overrides)


def test_examples_are_all_there_are_of_their_kind():
    rendered = [*INFRA.glob("slurm/*"), *INFRA.glob("kubernetes/rayjob*")]
    assert sorted(str(path.relative_to(INFRA)) for path in rendered) == sorted(EXAMPLES)


@pytest.mark.parametrize(("name", "document"), manifests())
def test_manifests_are_as_kubernetes_asks(name, document):
    if document["apiVersion"] != "ray.io/v1":
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        return
    jsonschema.validate(document, kuberay_fields())
    for group in groups(document["spec"].get("rayClusterSpec", document["spec"])):
        metadata = group["template"]["metadata"] | {"name": "pod"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
        pod["spec"] = group["template"]["spec"]
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_a_misspelt_field_would_be_found():
    *_, document = documents(INFRA / "kubernetes" / "postgres.yaml")
    document["spec"]["template"]["spec"]["autoMountServiceAccountToken"] = False
    with pytest.raises(kubernetes_validate.ValidationError, match="autoMountService"):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    document = clusters()[0]
    document["workerGroupSpecs"][0]["maxReplica"] = 3
    manifest = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {}, "spec": document}
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(manifest, kuberay_fields())


def test_the_workers_of_the_lasting_cluster_are_those_of_jobs():
    lasting = next(documents(INFRA / "kubernetes" / "raycluster.yaml"))["spec"]
    _, job = documents(INFRA / "kubernetes" / "rayjob-gpu.yaml")
    once = job["spec"]["rayClusterSpec"]
    head = once["headGroupSpec"]["template"]["spec"]
    (volume,) = head.pop("volumes")
    (mount,) = head["containers"][0].pop("volumeMounts")
    assert volume["name"] == mount["name"] == "sweep"
    assert lasting["headGroupSpec"] == once["headGroupSpec"]
    (worker,) = once["workerGroupSpecs"]
    on_demand, spot = lasting["workerGroupSpecs"]
    assert on_demand["template"] == worker["template"]
    own = spot["template"]["spec"]
    assert own.pop("nodeSelector") == {"karpenter.sh/capacity-type": "spot"}
    own["tolerations"].pop()
    assert spot["template"] == worker["template"]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kubectl_puts_the_manifests_together(tmp_path):
    folder = tmp_path / "kubernetes"
    shutil.copytree(INFRA / "kubernetes", folder, ignore=shutil.ignore_patterns("secrets"))
    subprocess.run([INFRA / "secrets.sh", folder / "secrets"], check=True, capture_output=True)
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    built = list(yaml.safe_load_all(done.stdout))
    for document in built:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "bhnbench"
    (secret,) = [document for document in built if document["kind"] == "Secret"]
    assert set(secret["data"]) == {"BHNBENCH_LEDGER", "MLFLOW_TRACKING_URI", "PGPASSWORD"}


@pytest.mark.parametrize("name", ["compose.yaml", "gpu.yaml"])
def test_compose_files_are_as_the_specification_asks(name):
    vendored = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(
        yaml.safe_load((INFRA / "compose" / name).read_text()), json.loads(vendored.read_text())
    )


def test_compose_names_nothing_that_it_does_not_have():
    content = compose()
    for service in content["services"].values():
        assert set(service.get("secrets", [])) <= set(content["secrets"])
        assert set(service.get("depends_on", [])) <= set(content["services"])
        named = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        assert named <= set(content["volumes"])
    overriding = next(documents(INFRA / "compose" / "gpu.yaml"))["services"]
    assert set(overriding) <= set(content["services"])


@pytest.mark.skipif(
    subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0
    if shutil.which("docker")
    else True,
    reason="docker compose is not installed",
)
def test_docker_takes_the_compose_files():
    both = [f"--file={INFRA / 'compose' / name}" for name in ("compose.yaml", "gpu.yaml")]
    subprocess.run(["docker", "compose", *both, "config", "--quiet"], check=True)


def test_the_launcher_file_is_as_ray_asks():
    (ray,) = find_spec("ray").submodule_search_locations
    schema = json.loads((Path(ray) / "autoscaler" / "ray-schema.json").read_text())
    content = launcher()
    jsonschema.validate(content, schema)
    assert content["head_node_type"] in content["available_node_types"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(path):
    subprocess.run(["bash", "-n", path], check=True)
    done = subprocess.run([SHELLCHECK, path], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_the_image_is_made_of_what_is_there():
    text = (INFRA / "image" / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.*)", text, re.M) for word in line.split()[:-1]]
    allowed = (INFRA / "image" / "Dockerfile.dockerignore").read_text().splitlines()
    assert sorted(copied) == sorted(line[1:] for line in allowed if line.startswith("!"))
    assert all((ROOT / name).exists() for name in copied)
    assert text.count("--constraint constraints.txt") == text.count("RUN pip install")
