"""Every command: what it prints, what it refuses, what it imports."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import click
import pytest
from bhnbench_doubles.command_line import DOCUMENT, SUSPECT, call
from sqlalchemy import create_engine, text

from bhnbench.cli.main import COMMANDS, main
from bhnbench.home import Home
from bhnbench.ledger.ledger import Ledger
from bhnbench.sweep.document import read_sweep


def test_every_command_has_help_and_stands_in_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    overview = call("--help").output
    for name in COMMANDS:
        result = call(name, "--help")
        assert result.exit_code == 0
        assert f"  {name} " in overview
        assert f"bhnbench {name}" in readme, name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_a_home(name: str) -> None:
    parameters = {p.name: p for p in main.get_command(click.Context(main), name).params}
    assert "--home" in parameters["home"].opts


def test_help_imports_next_to_nothing() -> None:
    heavy = ("torch", "ray", "mlflow", "sklearn", "sqlalchemy", "pydantic", "rich", "numpy")
    code = f"import sys, bhnbench.cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments", [["methods"], ["tasks"], ["status"], ["leaderboard"], ["show", "4"], ["why", "4"]]
)
def test_reading_imports_nothing_heavy(home: Path, arguments: list[str]) -> None:
    heavy = ("torch", "ray", "mlflow", "sklearn")
    code = f"""
import sys
from click.testing import CliRunner
from bhnbench.cli.main import main
result = CliRunner().invoke(main, {arguments!r})
assert result.exit_code == 0, result.output
print([m for m in {heavy!r} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_lists_and_descriptions() -> None:
    listed = call("methods").output
    assert "Tiny plugins" not in listed
    assert re.search(r"constant\s+│ Methods that cost nothing", listed)
    described = call("methods", "constant").output
    assert "Predicts one number, whatever the data." in described
    line = "\n  x: float, default 0.5, valid [0, 1], search [0, 1]\n      the number\n"
    assert line in described
    content = json.loads(call("tasks", "guess", "--json").output)
    assert content["metrics"][0] == {
        "name": "closeness",
        "direction": "maximize",
        "unit": "",
        "doc": "minus the distance to the target",
    }


@pytest.mark.parametrize("width", [60, 100, None])
def test_a_description_breaks_no_name_and_is_no_wider_than_it_may_be(
    monkeypatch: pytest.MonkeyPatch, width: int | None
) -> None:
    if width is not None:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    text = call("tasks", "digit_classification").output
    settings = text[text.index("\nsettings\n") :]
    assert max(map(len, settings.splitlines())) <= (width or 95)
    content = json.loads(call("tasks", "digit_classification", "--json").output)
    for item in [*content["fields"], *content["metrics"]]:
        assert f"\n  {item['name']}: " in settings
        assert item["doc"] in " ".join(settings.split())
    for name in content["fields"][0]["valid"].split(" | "):
        assert name in settings
    assert "\n  accuracy: higher is better, in %, primary\n" in settings
    assert "\n  nll: lower is better, in nats\n" in settings


def test_the_schema_knows_every_plugin_and_its_bounds() -> None:
    schema = json.loads(call("schema").output)
    variants = {v["title"]: v for v in schema["properties"]["methods"]["items"]["oneOf"][1:]}
    assert variants["constant"]["properties"]["x"] == {
        "type": ["number"],
        "description": "the number",
        "default": 0.5,
        "minimum": 0.0,
        "maximum": 1.0,
    }
    assert variants["constant"]["additionalProperties"] is False
    mark, how = (variants["failing"]["properties"][name] for name in ("mark", "how"))
    assert mark["type"] == ["string", "number", "boolean", "array", "object"]  # read as text
    assert how["type"] == ["string"]


def test_the_ready_sweeps_fit_the_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    from bhnbench.sweep.yaml_file import read_document

    schema = json.loads(call("schema").output)
    sweeps = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))
    assert sweeps
    for path in sweeps:
        jsonschema.validate(read_document(path).content, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "x", "tasks": ["guess"], "methods": ["constnat"]}, schema)


def test_the_schema_knows_what_runs_may_ask_for() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(call("schema").output)
    document = {"name": "x", "tasks": ["guess"], "retries": {"infra": 9}}
    for memory in (4, "4GiB", 0.5):
        own = {"name": "constant", "resources": {"memory": memory}}
        jsonschema.validate(document | {"methods": [own], "resources": {"memory": memory}}, schema)
    for wrong in ({"memory": "4GB"}, {"gpus": 1}, {"cpu": 0}):
        own = {"name": "constant", "resources": wrong}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document | {"methods": [own]}, schema)


def test_status(home: Path) -> None:
    content = json.loads(call("status", "--json").output)
    assert content["left"] == 0
    assert [study["search"]["done"] for study in content["studies"]] == [3, 0, 0]
    assert [study["evaluate"]["done"] for study in content["studies"]] == [2, 2, 0]
    text = call("status", "demo").output
    assert "demo (sweep 1): complete" in text
    assert "failed: guess / failing, seed 1 (run " in text
    assert "diverged: loss is nan at step 3" in text


def test_warnings_stand_wherever_a_run_is_shown(home: Path) -> None:
    content = json.loads(call("status", "--json").output)["studies"]
    assert [study["warnings"] for study in content if study["method"] != "constant(x=0.1)"] == [
        [],
        [],
    ]
    (warned,) = next(s["warnings"] for s in content if s["method"] == "constant(x=0.1)")
    assert warned == {
        "run": warned["run"],
        "phase": "evaluate",
        "seed": 2,
        "messages": list(SUSPECT),
    }
    line = f"warned: guess / constant(x=0.1), 1 of 2 runs, such as run {warned['run']}: "
    assert line + SUSPECT[0] in call("status").output
    shown = call("show", warned["run"])
    assert [line for line in shown.output.splitlines() if line.startswith("warning")] == [
        f"warning: {text}" for text in SUSPECT
    ]
    shown = call("show", warned["run"], "--json")
    assert json.loads(shown.output)["warnings"] == list(SUSPECT)
    board = " ".join(call("leaderboard").output.split())
    note = f"constant(x=0.1): 1 of 2 evaluation runs, such as run {warned['run']}: {SUSPECT[0]}"
    assert "constant(x=0.1) (!) -0.185" in board
    assert f"warned (!): {note}" in board


def test_run_tells_its_warnings() -> None:
    result = call("run", "guess", "suspect", "--json")
    (warning,) = json.loads(result.stdout)["warnings"]
    assert result.stderr == f"warning: {warning}\n"
    assert warning.startswith("samples 0 of fit ")


def test_status_tells_the_first_start_and_the_last(home: Path, tmp_path: Path) -> None:
    file = f"sqlite:///{home / 'ledger.db'}"
    first = json.loads(call("status", "--json").output)
    assert first["resumed_at"] is None
    assert "resumed" not in call("status").output
    document = read_sweep(tmp_path / "sweep.yaml")
    engine = create_engine(file)
    with engine.begin() as connection:
        connection.execute(text("UPDATE sweeps SET created_at = '2020-02-01 10:00:00.000000'"))
        connection.execute(text("UPDATE sweeps SET started_at = '2020-02-01 10:00:00.000000'"))
    engine.dispose()
    assert "complete, started 2020-02-01 10:00 UTC  " in call("status").output
    with Ledger(file) as ledger:
        ledger.record_sweep(document)
    assert re.search(r"started 2020-02-01 10:00 UTC, resumed 2\d{3}-", call("status").output)
    again = json.loads(call("status", "--json").output)
    assert again["started_at"] == "2020-02-01T10:00:00+00:00"
    assert again["resumed_at"] > first["started_at"]


def redo(home: Path, run: object) -> Ledger:
    """A driver that executes a run again; its ledger is still to be closed."""
    ledger = Ledger(f"sqlite:///{home / 'ledger.db'}")
    ledger.join(alone=False)
    spec = ledger.find_runs(str(run))[0].spec
    with closing(sqlite3.connect(home / "ledger.db")) as database:
        database.execute("UPDATE runs SET state = 'failed', failure = 'error' WHERE id = ?", [run])
        database.commit()
    assert ledger.start_run(spec, None) is not None
    return ledger


def test_what_a_dead_driver_left_running_is_interrupted(home: Path) -> None:
    methods = json.loads(call("leaderboard", "--json").output)["tasks"][0]["methods"]
    run = next(m["run_ids"][0] for m in methods if m["label"] == "constant")
    redo(home, run).close()
    with Home(home).locked():
        assert "constant on guess: running" in call("show", run).output
        assert "1 running" in call("leaderboard").output
    assert "failed (interrupted: the sweep ended while it ran)" in call("show", run).output
    assert "1 interrupted" in call("leaderboard").output
    status = json.loads(call("status", "--json").output)["studies"][0]
    assert (status["evaluate"]["running"], status["evaluate"]["failed"]) == (0, 1)
    assert status["failures"][0]["class"] == "interrupted"
    assert status["left"] == 1


def test_a_shared_ledger_tells_who_is_alive(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BHNBENCH_LEDGER", f"sqlite:///{home / 'ledger.db'}")
    with redo(home, 4) as driver:
        assert "constant on guess: running" in call("show", "4").output
        driver.leave()
    assert "failed (interrupted: the sweep ended while it ran)" in call("show", "4").output


def test_one_is_no_plural(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("name: one\ntasks: [guess]\nmethods: [constant]\nevaluate: {seeds: 1}\n")
    assert "1 study, 1 run, 0 in the ledger, 1 left" in call("plan", path).output
    with Ledger(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}", create=True) as ledger:
        ledger.record_sweep(read_sweep(path))
    assert "one (sweep 1): 1 run left" in call("status").output


def test_an_unknown_sweep_names_the_nearest(home: Path) -> None:
    result = call("status", "demp")
    assert result.exit_code == 1
    assert result.stderr == "error: no sweep 'demp' in the ledger; did you mean 'demo'?\n"


@pytest.mark.parametrize("command", [["status"], ["leaderboard"], ["show", "1"], ["sync"]])
def test_reading_an_empty_home_says_so_and_makes_nothing(
    tmp_path: Path, command: list[str]
) -> None:
    result = call(*command, "--home", tmp_path / "none")
    assert result.exit_code == 1
    assert "there is no ledger yet; start a sweep to make one" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "none").exists()


def test_show_tells_how_to_repeat_a_run(home: Path) -> None:
    text = call("show", "4").output
    assert "constant on guess: done" in text
    assert "bhnbench run guess constant" in text
    assert "packages.torch" in text
    content = json.loads(call("show", "4", "--json").output)
    assert len(content["curve"]) == 30
    assert call("show", content["key"][:10]).output == text
    assert call("show", "999").exit_code == 1


def test_the_repeat_command_gives_the_same_scores(home: Path) -> None:
    import shlex

    content = json.loads(call("show", "4", "--json").output)
    arguments = shlex.split(content["repeat"])[1:]
    again = json.loads(call(*arguments, "--json").output)
    assert again["key"] == content["key"]


def test_run_prints_scores_and_records_nothing(tmp_path: Path) -> None:
    first = call("run", "guess", "constant", "--set", "method.x=0.2", "--seed", "3", "--json")
    again = call("run", "guess", "constant", "--set", "method.x=0.2", "--seed", "3", "--json")
    assert first.exit_code == 0
    scores = json.loads(first.output)["scores"]
    assert scores == json.loads(again.output)["scores"]
    assert -0.12 < scores["closeness"] < -0.1
    assert not (tmp_path / "home").exists()


def test_run_tells_a_failure() -> None:
    result = call("run", "guess", "failing")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "error: the run failed (error): RuntimeError: the plugin broke"
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "gues", "constant"], "error: no task 'gues' is installed; did you mean 'guess'?"),
        (["run", "guess", "constnt"],
         "error: no method 'constnt' is installed; did you mean 'constant'?"),
        (["run", "guess", "constant", "--set", "x=1"],
         "--set x=1: must be task.X=VALUE or method.X=VALUE; did you mean method.x?"),
        (["run", "guess", "constant", "--set", "tasks.0.target=1"],
         "--set tasks.0.target=1: must be task.X=VALUE or method.X=VALUE; "
         "did you mean task.target?"),
        (["run", "guess", "constant", "--set", "zz=1"],
         "--set zz=1: must be task.X=VALUE or method.X=VALUE"),
        (["run", "guess", "mc_dropout", "--set", "method.layer_rates=2"],
         "--set method.layer_rates: must be numbers in [0, 0.99] with commas between, such as "
         "\"0.1, 0.5\", but got '2'"),
        (["run", "guess", "mc_dropout", "--set", "method.learn_rates=yes"],
         "--set method.learn_rates: must be true or false, but got 'yes'"),
        (["run", "guess", "mc_dropout", "--set", "method.drop=all"],
         "--set method.drop: must be one of units, maps, but got 'all'"),
        (["run", "guess", "distilled", "--set", "method.teacher=deep_ensemble",
          "--set", "method.teacher_settings=n_members: 0"],
         "--set method.teacher_settings: n_members must be in 1 ... 1000, but got 0"),
        (["run", "guess", "constant", "--set", "method.x=2"],
         "--set method.x: must be in [0, 1], but got 2"),
        (["run", "guess", "constant", "--set", "task.targt=2"],
         "--set task.targt: unknown field; did you mean 'target'?"),
        (["methods", "MC dropout"],
         "error: no method 'MC dropout' is installed; did you mean 'mc_dropout'?"),
        (["methods", "constnt"], "error: no method 'constnt' is installed; did you mean "
         "'constant'?"),
        (["sweep", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["plan", "nowhere.yaml"], "nowhere.yaml: no such file"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stderr == f"{line}\n"
    assert list(tmp_path.iterdir()) == []


def test_plan_and_dry_run_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(DOCUMENT)
    plan = json.loads(call("plan", path, "--json").output)
    assert plan["left"] == 3 + 2 + 2 + 2
    assert plan["expected_seconds"] is None
    dry = call("sweep", path, "--dry-run")
    assert dry.output == call("plan", path).output
    assert "3 studies, 9 runs, 0 in the ledger, 9 left" in dry.output
    assert not (tmp_path / "home").exists()


def test_plan_tells_what_runs_take_where_they_differ(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        "name: packed\ntasks: [guess]\nresources: {memory: 512MiB}\nmethods:\n"
        "  - constant\n  - {name: failing, resources: {cpu: 2, gpu: 0.25, memory: 0}}\n"
    )
    plan = json.loads(call("plan", path, "--json").output)
    taken = {study["method"]: study["resources"] for study in plan["studies"]}
    assert taken["constant"] == {"cpu": 1, "gpu": 0, "memory": 0.5}
    assert taken["failing"] == {"cpu": 2, "gpu": 0.25, "memory": 0}
    assert plan["retries"] == {"infra": 5, "out_of_memory": 1, "diverged": 0, "error": 0}
    text = call("plan", path).output
    assert "1 cpu, 0.5 GiB" in text
    assert "2 cpu, 0.25 gpu" in text
    assert "a run takes" not in call("plan", path, "--set", "methods.1=constant").output


def test_plan_knows_what_is_done_and_how_long_the_rest_takes(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    plan = json.loads(call("plan", path, "--set", "evaluate.seeds=12", "--json").output)
    by_method = {study["method"]: study for study in plan["studies"]}
    assert by_method["constant"]["left"] == 10
    assert by_method["constant"]["known"] == 5
    assert by_method["constant"]["expected_seconds"] == 10 * 2.0 / plan["slots"]


def test_an_unknown_command_names_the_nearest() -> None:
    result = call("swep")
    assert result.exit_code == 2
    assert "no command 'swep'; did you mean 'sweep'?" in result.stderr
