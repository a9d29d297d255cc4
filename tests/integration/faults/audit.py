"""What happened to every run: the database notes it itself, whoever writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, create_engine, text

TABLE = """
CREATE TABLE audit (
  id bigserial PRIMARY KEY, time double precision, key text, before text, after text)
"""
NOTE = """
CREATE FUNCTION note_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO audit (time, key, before, after) VALUES (
    extract(epoch FROM clock_timestamp()), NEW.key,
    CASE WHEN TG_OP = 'UPDATE' THEN OLD.state END, NEW.state);
  RETURN NEW;
END $$
"""
TRIGGER = """
CREATE TRIGGER note_run AFTER INSERT OR UPDATE OF state ON runs
  FOR EACH ROW EXECUTE FUNCTION note_run()
"""


@dataclass(frozen=True)
class Change:
    """One write of a run's state."""

    time: float
    before: str | None
    after: str


class Audit:
    """The notes of a ledger in PostgreSQL."""

    def __init__(self, address: str) -> None:
        """Of the ledger, which must be there."""
        self._engine = create_engine(address, pool_pre_ping=True)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    def install(self) -> None:
        """Begin to take notes."""
        with self._connection() as connection:
            for statement in (TABLE, NOTE, TRIGGER):
                connection.execute(text(statement))

    def n_done(self) -> int:
        """How many runs are done."""
        with self._connection() as connection:
            query = "SELECT count(DISTINCT key) FROM audit WHERE after = 'done'"
            return int(connection.execute(text(query)).scalar_one())

    def changes(self) -> dict[str, list[Change]]:
        """All writes, by run."""
        found: dict[str, list[Change]] = defaultdict(list)
        with self._connection() as connection:
            query = "SELECT key, time, before, after FROM audit ORDER BY id"
            rows = connection.execute(text(query))
            for key, *change in rows:
                found[key].append(Change(*change))
        return dict(found)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
