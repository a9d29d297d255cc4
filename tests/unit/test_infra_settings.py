"""What `infra/` sets up: one set of versions, no secret written down, nobody let in unasked."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tomllib

import pytest

from bhnbench.cluster.manifests import TIMEOUTS
from tests.infra_files import (
    INFRA,
    ROOT,
    SCRIPTS,
    clusters,
    compose,
    containers,
    documents,
    groups,
    launcher,
    manifests,
    pinned,
    written,
)


def test_every_image_is_of_this_version_or_pinned():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    ours = {f"bhnbench:{version}-cpu", f"bhnbench:{version}-gpu"}
    text = "\n".join(path.read_text() for path in written())
    assert set(re.findall(r"bhnbench:\d[\w.-]*", text)) == ours
    assert set(re.findall(r"\bpostgres:[\w.-]+-\w+", text)) == {"postgres:17-bookworm"}
    kustomization = next(documents(INFRA / "kubernetes" / "kustomization.yaml"))
    assert [each["newTag"] for each in kustomization["images"]] == [f"{version}-cpu"]


def test_every_cluster_is_of_the_pinned_ray():
    assert {cluster["rayVersion"] for cluster in clusters()} == {pinned("ray")}


def test_nodes_are_given_up_after_the_same_time_everywhere():
    ray = compose()["services"]
    for service in ("ray-head", "ray-worker"):
        assert ray[service]["environment"].items() >= TIMEOUTS.items()
    for cluster in clusters():
        for group in groups(cluster):
            (container,) = group["template"]["spec"]["containers"]
            given = {each["name"]: each["value"] for each in container["env"]}
            assert given.items() >= TIMEOUTS.items()
    written = [f"{name}={value}" for name, value in TIMEOUTS.items()]
    for path in [*SCRIPTS, INFRA / "launcher" / "aws-gpu.yaml"]:
        if path.name != "secrets.sh":
            assert [each for each in written if each not in path.read_text()] == [], path


def test_ray_takes_in_nobody_without_a_token():
    for cluster in clusters():
        assert cluster["authOptions"] == {"mode": "token"}
    for name in ("ray-head", "ray-worker"):
        service = compose()["services"][name]
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
        assert "ray_token" in service["secrets"]
    for path in SCRIPTS:
        if "ray start" in path.read_text() or "symmetric-run" in path.read_text():
            assert re.search(r"^export .*\bRAY_AUTH_MODE=token\b", path.read_text(), re.M), path
    assert any("RAY_AUTH_MODE=token" in line for line in launcher()["setup_commands"])
    assert "~/.ray/auth_token" in launcher()["file_mounts"]


def test_mlflow_answers_only_those_who_name_it():
    servers = [compose()["services"]["mlflow"]["command"]]
    for _, document in manifests():
        servers += [
            each["command"] for each in containers(document) if "mlflow" in each.get("command", [])
        ]
    assert len(servers) == 2
    for command in servers:
        (allowed,) = [word for word in command if word.startswith("--allowed-hosts=")]
        assert "*" not in allowed


def test_ports_are_open_to_this_machine_alone():
    for name, service in compose()["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
    for _, document in manifests():
        if document["kind"] == "Service":
            assert document["spec"].get("type", "ClusterIP") == "ClusterIP"
    for command in launcher()["head_start_ray_commands"]:
        assert "--dashboard-host=" not in command or "--dashboard-host=127.0.0.1" in command


def test_the_ledger_is_the_drivers_alone():
    services = compose()["services"]
    assert "BHNBENCH_LEDGER" in services["ray-head"]["environment"]
    assert "pgpass" not in services["ray-worker"]["secrets"]
    assert "BHNBENCH_LEDGER" not in services["ray-worker"]["environment"]
    for cluster in clusters():
        for group in cluster["workerGroupSpecs"]:
            (container,) = group["template"]["spec"]["containers"]
            assert {each["secretRef"]["name"] for each in container["envFrom"]} == {
                "bhnbench-storage"
            }


def test_nothing_holds_a_password():
    for path in written():
        text = path.read_text()
        assert not re.search(r"://[^/\s:@]+:[^/\s@]+@", text), path
        given = r"(PASSWORD|TOKEN|SECRET)\w*[=:]\s*['\"]?[0-9a-zA-Z]{8,}"
        assert not re.search(given, text), path


def test_secrets_are_made_once_and_read_by_their_owner_alone(tmp_path):
    folder = tmp_path / "secrets"
    command = [INFRA / "secrets.sh", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(made) == set(compose()["secrets"])
    assert made["pgpass"] == f"*:*:*:bhnbench:{made['postgres_password']}\n"
    assert len(made["ray_token"]) == len(made["postgres_password"]) == 64
    assert made["ray_token"] != made["postgres_password"]
    assert not any(secret in done.stdout + done.stderr for secret in made.values())
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {0o600}
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == made


def test_secrets_stay_out_of_the_repository():
    made = [INFRA / part / "secrets" / "ray_token" for part in ("compose", "kubernetes")]
    command = ["git", "check-ignore", *map(str, made)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 128:
        pytest.skip("not a clone")
    assert len(done.stdout.splitlines()) == len(made)


def test_scripts_may_be_started():
    assert all(os.access(path, os.X_OK) for path in SCRIPTS if path.suffix == ".sh")
