"""The tables of the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)  # fmt: skip
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """Times in UTC; SQLite drops the zone, so it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC."""
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """In UTC."""
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


class Base(DeclarativeBase):
    """Root of all tables."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, datetime: UtcDateTime}  # noqa: RUF012 - read by SQLAlchemy at class creation


def now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)


class DriverRow(Base):
    """A process that drives sweeps, or did."""

    __tablename__ = "drivers"

    id: Mapped[int] = mapped_column(primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(default=now)
    seen_at: Mapped[datetime | None]  # None: it ended


class SweepRow(Base):
    """One sweep document."""

    __tablename__ = "sweeps"
    __table_args__ = (UniqueConstraint("name", "digest"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), index=True)
    digest: Mapped[str] = mapped_column(String(64))
    document: Mapped[dict[str, Any]]
    n_seeds: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime] = mapped_column(default=now, index=True)
    finished_at: Mapped[datetime | None]


class StudyRow(Base):
    """One method on one task, and how its configuration is chosen; shared by sweeps."""

    __tablename__ = "studies"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    spec: Mapped[dict[str, Any]]
    driver_id: Mapped[int | None]  # who searches it


class SweepStudyRow(Base):
    """A study's place and size in a sweep."""

    __tablename__ = "sweep_studies"

    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweeps.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    task_label: Mapped[str] = mapped_column(Text)
    method_label: Mapped[str] = mapped_column(Text)
    n_trials: Mapped[int]


class RunRow(Base):
    """One execution; its key is unique, so that a run that is done is never done again."""

    __tablename__ = "runs"
    __table_args__ = (
        Index(
            "ix_runs_seconds", "task_key", "state", "method_name", "fit_seconds", "score_seconds"
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    task_name: Mapped[str] = mapped_column(Text, index=True)
    task_key: Mapped[str] = mapped_column(String(64))  # of the task with its settings
    method_name: Mapped[str] = mapped_column(Text)
    spec: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(20), index=True)
    failure: Mapped[str | None] = mapped_column(String(20))
    message: Mapped[str] = mapped_column(Text, default="")
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    driver_id: Mapped[int | None]  # who executes it, or did last
    n_killed: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    fit_seconds: Mapped[float | None] = mapped_column(Float)
    score_seconds: Mapped[float | None] = mapped_column(Float)
    peak_memory_mb: Mapped[float | None] = mapped_column(Float)
    warnings: Mapped[list[Any]] = mapped_column(default=list, server_default=text("'[]'"))
    provenance: Mapped[dict[str, Any]] = mapped_column(default=dict)


class TrialRow(Base):
    """One configuration tried in a study's search."""

    __tablename__ = "trials"
    __table_args__ = (  # leads to a study's best trial, and answers what is counted by itself
        Index("ix_trials_best", "study_id", "state", "value", "number", "failure"),
    )

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), index=True)
    configuration: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(20))
    failure: Mapped[str | None] = mapped_column(String(20))
    value: Mapped[float | None] = mapped_column(Float)
    last_step: Mapped[int | None]  # where early stopping ended it


class ScoreRow(Base):
    """One metric's value for one run."""

    __tablename__ = "scores"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    metric: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[float] = mapped_column(Float)


class PointRow(Base):
    """What a run reported at one step."""

    __tablename__ = "points"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[float] = mapped_column(Float)


class TableRow(Base):
    """A table that a run returned: ``{column: values}``."""

    __tablename__ = "tables"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    columns: Mapped[dict[str, Any]]
