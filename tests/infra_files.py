"""What `infra/` holds, read for tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
INFRA = ROOT / "infra"
SCRIPTS = sorted([*INFRA.rglob("*.sh"), *INFRA.rglob("*.sbatch")])


def pinned(package: str) -> str:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    (version,) = [line.split("==")[1] for line in lines if line.startswith(f"{package}==")]
    return version


def documents(path: Path) -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load_all(path.read_text())


def manifests() -> list[tuple[str, dict[str, Any]]]:
    paths = [p for p in (INFRA / "kubernetes").glob("*.yaml") if p.name != "kustomization.yaml"]
    return [
        (f"{path.name}:{document['kind']}/{document['metadata']['name']}", document)
        for path in sorted(paths)
        for document in documents(path)
    ]


def kuberay_fields() -> dict[str, Any]:
    return yaml.safe_load((Path(__file__).parent / "unit" / "kuberay_fields.yaml").read_text())


def written() -> list[Path]:
    """Every file but the secrets that somebody may have made here."""
    return [p for p in INFRA.rglob("*") if p.is_file() and "secrets" not in p.parts]


def containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Every container in a manifest, whatever holds it."""
    if isinstance(document, list):
        return [found for item in document for found in containers(item)]
    if not isinstance(document, dict):
        return []
    own = document.get("containers", [])
    return [*own, *(found for value in document.values() for found in containers(value))]


def clusters() -> list[dict[str, Any]]:
    """Every RayCluster's spec, a RayJob's too."""
    ours = [document for _, document in manifests() if document["apiVersion"] == "ray.io/v1"]
    return [each["spec"].get("rayClusterSpec", each["spec"]) for each in ours]


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def compose() -> dict[str, Any]:
    return next(documents(INFRA / "compose" / "compose.yaml"))


def launcher() -> dict[str, Any]:
    return next(documents(INFRA / "launcher" / "aws-gpu.yaml"))
