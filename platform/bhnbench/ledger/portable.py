"""A ledger's rows as a file: zipped JSON lines that any home can take in.

::

    manifest.json     format, schema, when and by which version, and each table's columns
    runs.jsonl ...    one row a line, as a list in the order of those columns

Ids in it hold within the file alone. Who holds what is not history: drivers and their leases stay
at home.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zlib import error as ZlibError

from sqlalchemy import Column, Table

from bhnbench.errors import LedgerError
from bhnbench.ledger.database import SCHEMA
from bhnbench.ledger.models import Base, UtcDateTime

KIND, FORMAT = "bhnbench ledger", 1
MANIFEST = "manifest.json"
TABLES = ("sweeps", "studies", "sweep_studies", "runs", "trials", "scores", "points", "tables")
LEASES = ("driver_id",)
COMPRESSION = 3  # a tenth of the text, at the speed of making it

Row = dict[str, Any]


def table(name: str) -> Table:
    """A table of the ledger."""
    return Base.metadata.tables[name]


def columns(name: str) -> list[Column[Any]]:
    """The columns of a table that travel."""
    return [column for column in table(name).columns if column.name not in LEASES]


@contextmanager
def written(file: Path) -> Iterator[ExportFile]:
    """A new file, whole or not at all.

    Raises:
        LedgerError: it cannot be written.
    """
    part = file.with_name(f"{file.name}.part")
    try:
        with zipfile.ZipFile(
            part, "w", zipfile.ZIP_DEFLATED, compresslevel=COMPRESSION
        ) as archive:
            content = ExportFile(archive)
            yield content
            content.finish()
        part.replace(file)
    except OSError as error:
        raise LedgerError(f"{file}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


class ExportFile:
    """Takes rows, table by table."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.counts: dict[str, int] = {}

    def add(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write a table's rows."""
        names = [column.name for column in columns(name)]
        count = 0
        with self._archive.open(f"{name}.jsonl", "w", force_zip64=True) as out:
            for row in rows:
                line = json.dumps([row[n] for n in names], default=_time, separators=(",", ":"))
                out.write(line.encode() + b"\n")
                count += 1
        self.counts[name] = count

    def finish(self) -> None:
        """Say what the file is."""
        manifest = {
            "kind": KIND,
            "format": FORMAT,
            "schema": SCHEMA,
            "version": version("bhnbench"),
            "created_at": datetime.now(UTC),
            "columns": {name: [column.name for column in columns(name)] for name in self.counts},
            "rows": self.counts,
        }
        self._archive.writestr(MANIFEST, json.dumps(manifest, indent=1, default=_time))


def _time(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a ledger holds no {type(value).__name__}")


class ImportFile:
    """Reads what an ``ExportFile`` wrote."""

    def __init__(self, archive: zipfile.ZipFile, shown: str) -> None:
        self._archive = archive
        self._shown = shown
        manifest = json.loads(archive.read(MANIFEST))
        if manifest["kind"] != KIND:
            raise ValueError("its manifest is of something else")
        if manifest["format"] > FORMAT or manifest["schema"] > SCHEMA:
            theirs = f"format {manifest['format']}, schema {manifest['schema']}"
            raise LedgerError(
                f"{shown}: a newer bhnbench wrote it ({theirs}; here {FORMAT}, {SCHEMA}); "
                "upgrade bhnbench"
            )
        self._columns: dict[str, list[str]] = {n: manifest["columns"][n] for n in TABLES}

    def rows(self, name: str) -> Iterator[Row]:
        """A table's rows; columns that an older file lacks are missing."""
        ours = {column.name: column for column in columns(name)}
        names = self._columns[name]
        unknown = sorted(set(names) - set(ours))
        if unknown:
            raise ValueError(f"unknown columns of {name}: {', '.join(unknown)}")
        times = [n for n in names if isinstance(ours[n].type, UtcDateTime)]
        with self._archive.open(f"{name}.jsonl") as lines:
            for line in lines:
                row = dict(zip(names, json.loads(line), strict=True))
                for n in times:
                    row[n] = datetime.fromisoformat(row[n]) if row[n] else None
                yield row


@contextmanager
def opened(file: Path) -> Iterator[ImportFile]:
    """A file to merge.

    Raises:
        LedgerError: it is none, is damaged, or comes from a newer bhnbench.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            yield ImportFile(archive, str(file))
    except OSError as error:
        raise LedgerError(f"{file}: cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, ZlibError, EOFError) as error:
        raise LedgerError(f"{file}: is no whole file of `bhnbench export`: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise LedgerError(f"{file}: is no file of `bhnbench export`: {reason}") from error
