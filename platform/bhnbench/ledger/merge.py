"""Another ledger's rows into this one: what is not here yet, and nothing twice.

A run that is done here stays as it is. One that failed here is replaced by one that is done there,
and so is a trial. Where both ended alike, what is here stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, StatementError
from sqlalchemy.orm import Session

from bhnbench.errors import LedgerError
from bhnbench.ledger.database import WRITES, open_engine
from bhnbench.ledger.leases import alive
from bhnbench.ledger.models import PointRow, RunRow, ScoreRow, SweepRow, TrialRow
from bhnbench.ledger.portable import ImportFile, Row, opened, table
from bhnbench.ledger.references import chunks, where_in
from bhnbench.runs import FINAL_FAILURES
from bhnbench.words import NAME

PAGE = 5000  # rows in memory at a time


class Difference(NamedTuple):
    """A run that is done in both ledgers, with other scores."""

    run_id: int  # here
    key: str
    metric: str
    here: float | None
    there: float | None


@dataclass
class MergeReport:
    """What a merge did."""

    new: dict[str, int] = field(default_factory=dict)  # table: rows
    replaced: dict[str, int] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    under_way: dict[str, int] = field(
        default_factory=dict
    )  # a driver is at work on them here: left alone
    other_trials: int = 0  # numbers at which the study tried another configuration here
    differences: list[Difference] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return any(self.new.values()) or any(self.replaced.values())


def merge_rows(address: str, file: Path, *, driven: bool, dry_run: bool = False) -> MergeReport:
    """Take a file of ``export_rows`` in, in one transaction.

    Args:
        address: this ledger's URL; it is made where there is none.
        file: the other's rows.
        driven: whether drivers may be at work here; their runs are then left alone.
        dry_run: change nothing, and report what would change.

    Raises:
        LedgerError: the file is none, or the ledger cannot be written; nothing has changed.
    """
    with opened(file) as rows:
        engine = open_engine(address, create=not dry_run)
        try:
            with engine.execution_options(**{WRITES: True}).connect() as connection:
                report = _Merge(connection, rows, driven=driven).report
                if not dry_run:
                    connection.commit()
            return report
        except (IntegrityError, DataError) as error:
            raise LedgerError(
                f"{file}: its rows do not fit together, or a driver was faster: merge it again"
            ) from error
        except DatabaseError as error:
            reason = str(error.orig).strip().splitlines()[0]
            raise LedgerError(f"the ledger cannot be written: {reason}") from error
        except StatementError as error:
            raise LedgerError(f"{file}: holds what no ledger can: {error.orig}") from error
        finally:
            engine.dispose()


def rank(state: str, failure: str | None) -> int:
    """The higher, the more a run or trial has to say."""
    ended = {"done": 4, "pruned": 3}.get(state)
    return ended or (2 if failure in FINAL_FAILURES else 1)


def _alive(connection: Connection) -> frozenset[int]:
    """The drivers that are at work."""
    with Session(connection) as session:
        return frozenset(session.scalars(alive(session)))


class _Merge:
    """One merge under way; ids of the file become ids of this ledger."""

    def __init__(self, connection: Connection, file: ImportFile, *, driven: bool) -> None:
        self._connection = connection
        self._file = file
        self._drivers = _alive(connection) if driven else frozenset()
        self._searched: set[int] = set()  # studies here whose search a driver holds
        self._new: dict[int, int] = {}  # runs that are not here yet
        self._replaced: dict[int, int] = {}  # runs that are better there
        self._done: dict[int, int] = {}  # runs that are done in both
        self.report = MergeReport()
        self._studies = self._merge_studies()
        self._runs = self._merge_runs()
        self._merge_results()
        self._merge_trials()
        self._merge_sweeps()

    # --- studies and runs -----------------------------------------------------------------

    def _merge_studies(self) -> dict[int, int]:
        ids: dict[int, int] = {}
        for page in chunks(self._file.rows("studies"), PAGE):
            here = self._by_key("studies", page, "driver_id")
            made = self._insert_keyed("studies", [row for row in page if row["key"] not in here])
            self._count("known", "studies", len(here))
            self._searched |= {row.id for row in here.values() if row.driver_id in self._drivers}
            made |= {key: row.id for key, row in here.items()}
            ids |= {row["id"]: made[row["key"]] for row in page}
        return ids

    def _merge_runs(self) -> dict[int, int]:
        ids: dict[int, int] = {}
        for page in chunks(self._file.rows("runs"), PAGE):
            here = self._by_key("runs", page, "state", "failure", "driver_id")
            made = self._insert_keyed("runs", [row for row in page if row["key"] not in here])
            self._new |= {row["id"]: made[row["key"]] for row in page if row["key"] in made}
            known = [(row, here[row["key"]]) for row in page if row["key"] in here]
            better = [(row, run) for row, run in known if self._is_better("runs", row, run)]
            self._replaced |= {row["id"]: run.id for row, run in better}
            self._replace_runs([row | {"id": run.id} for row, run in better])
            both = [(row, run) for row, run in known if row["state"] == run.state == "done"]
            self._done |= {row["id"]: run.id for row, run in both}
            made |= {key: run.id for key, run in here.items()}
            ids |= {row["id"]: made[row["key"]] for row in page}
        return ids

    def _is_better(self, name: str, row: Row, here: Any) -> bool:  # noqa: ANN401 - a query's row
        """Whether a run or trial that is here already has more to say there."""
        if here.state == "running" and here.driver_id in self._drivers:
            self._count("under_way", name, 1)
            return False
        better = rank(row["state"], row["failure"]) > rank(here.state, here.failure)
        self._count("replaced" if better else "known", name, 1)
        return better

    def _replace_runs(self, rows: list[Row]) -> None:
        """The runs' own columns; their old scores and tables go."""
        if not rows:
            return
        runs = table("runs")
        names = [name for name in rows[0] if name != "id"]
        values = {name: bindparam(f"new_{name}", type_=runs.c[name].type) for name in names}
        query = update(runs).where(runs.c.id == bindparam("old_id")).values(values)
        fresh = [{"old_id": row["id"]} | {f"new_{n}": row[n] for n in names} for row in rows]
        self._connection.execute(query, fresh)
        for name in ("scores", "tables"):
            self._delete(name, (row["id"] for row in rows))

    # --- what runs left behind ------------------------------------------------------------

    def _merge_results(self) -> None:
        fresh = self._new | self._replaced
        self._insert("tables", self._children("tables", fresh))
        self._insert("scores", self._children("scores", fresh))
        further = self._further_here()
        self._delete(
            "points", (here for run, here in self._replaced.items() if run not in further)
        )
        taken = {run: here for run, here in fresh.items() if run not in further}
        self._insert("points", self._children("points", taken))
        self._compare()

    def _children(self, name: str, runs: Mapping[int, int]) -> Iterator[Row]:
        """The file's rows of some of its runs, with the runs' ids here."""
        rows = self._file.rows(name) if runs else ()
        return (row | {"run_id": runs[row["run_id"]]} for row in rows if row["run_id"] in runs)

    def _further_here(self) -> set[int]:
        """Runs to replace whose reports got further here: by them a study has stopped them."""
        there: dict[int, int] = {}
        for row in self._children("points", self._replaced):
            there[row["run_id"]] = max(row["step"], there.get(row["run_id"], 0))
        points = select(PointRow.run_id, func.max(PointRow.step)).group_by(PointRow.run_id)
        ids = sorted(self._replaced.values())
        here = dict(map(tuple, self._where_in(points, PointRow.run_id, ids)))
        return {r for r, old in self._replaced.items() if here.get(old, 0) > there.get(old, 0)}

    def _compare(self) -> None:
        """Note where two ledgers give one run different scores."""
        there: dict[int, dict[str, float]] = {here: {} for here in self._done.values()}
        for row in self._children("scores", self._done):
            there[row["run_id"]][row["metric"]] = row["value"]
        query = select(ScoreRow.run_id, RunRow.key, ScoreRow.metric, ScoreRow.value)
        query = query.join(RunRow, RunRow.id == ScoreRow.run_id)
        for run, key, metric, value in self._where_in(query, ScoreRow.run_id, sorted(there)):
            other = there[run].get(metric)
            if other != value:
                self.report.differences.append(Difference(run, key, metric, value, other))

    # --- trials and sweeps ----------------------------------------------------------------

    def _merge_trials(self) -> None:
        runs = table("runs")
        query = select(table("trials"), runs.c.driver_id).join(runs)
        found = self._where_in(query, TrialRow.study_id, sorted(self._studies.values()))
        here = {(trial.study_id, trial.number): trial for trial in found}
        self._insert("trials", self._better_trials(here))

    def _better_trials(self, here: Mapping[tuple[int, int], Any]) -> Iterator[Row]:
        """Trials to insert; the place of those that are better there is cleared."""
        for row in self._file.rows("trials"):
            study, number = self._studies[row["study_id"]], row["number"]
            known = here.get((study, number))
            if study in self._searched:
                self._count("under_way", "trials", 1)
            elif known is None or self._is_better("trials", row, known):
                if known is not None:
                    place = delete(TrialRow).filter_by(study_id=study, number=number)
                    self._connection.execute(place)
                yield row | {"study_id": study, "run_id": self._runs[row["run_id"]]}
            elif known.configuration != row["configuration"]:
                self.report.other_trials += 1

    def _merge_sweeps(self) -> None:
        known = select(SweepRow.name, SweepRow.digest)
        here = set(map(tuple, self._connection.execute(known)))
        rows = list(self._file.rows("sweeps"))
        for row in rows:
            if not re.fullmatch(NAME, row["name"]):  # it names a folder of figures
                raise ValueError(f"a sweep's name must match {NAME}, but is {row['name']!r}")
        new = [row for row in rows if (row["name"], row["digest"]) not in here]
        self._count("known", "sweeps", len(rows) - len(new))
        made = self._insert_keyed("sweeps", new, "digest")
        ids = {row["id"]: made[row["digest"]] for row in new}
        self._insert("sweep_studies", self._places(ids))

    def _places(self, sweeps: Mapping[int, int]) -> Iterator[Row]:
        """The studies of new sweeps."""
        for row in self._file.rows("sweep_studies"):
            if row["sweep_id"] in sweeps:
                study = self._studies[row["study_id"]]
                yield row | {"sweep_id": sweeps[row["sweep_id"]], "study_id": study}

    # --- rows -----------------------------------------------------------------------------

    def _count(self, what: str, name: str, number: int) -> None:
        counts: dict[str, int] = getattr(self.report, what)
        counts[name] = counts.get(name, 0) + number

    def _where_in(
        self,
        query: Select[*tuple[Any, ...]],
        column: Any,  # noqa: ANN401 - of a model or a table
        values: Iterable[int | str],
    ) -> Iterator[Any]:
        return where_in(self._connection, query, column, values)

    def _by_key(self, name: str, rows: Iterable[Row], *names: str) -> dict[str, Any]:
        """The rows of this ledger that have the keys of these: their ids and some columns."""
        own = table(name).c
        query = select(own.key, own.id, *(own[n] for n in names)).with_for_update()
        return {row.key: row for row in self._where_in(query, own.key, [r["key"] for r in rows])}

    def _insert_keyed(self, name: str, rows: Iterable[Row], key: str = "key") -> dict[str, int]:
        """Insert rows under new ids, which are returned by key."""
        own = table(name).c
        fresh = [{n: value for n, value in row.items() if n != "id"} for row in rows]
        self._count("new", name, 0)
        self._insert(name, fresh)
        found = self._where_in(select(own[key], own.id), own[key], [row[key] for row in fresh])
        return dict(map(tuple, found))

    def _insert(self, name: str, rows: Iterable[Row]) -> None:
        query = insert(table(name))
        for page in chunks(rows, PAGE):
            self._connection.execute(query, page)
            self._count("new", name, len(page))

    def _delete(self, name: str, runs: Iterable[int]) -> None:
        for chunk in chunks(runs):
            self._connection.execute(delete(table(name)).where(table(name).c.run_id.in_(chunk)))
