"""Sweeps as Ray jobs: submit, list, follow, stop."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import requests
from ray.exceptions import RayError
from ray.job_submission import JobDetails, JobSubmissionClient

from bhnbench.engine.shipping import SWEEP_FILE
from bhnbench.errors import JobError

ENTRYPOINT = f"exec python -m bhnbench.engine.restarts {SWEEP_FILE}"
SWEEP = "bhnbench_sweep"  # metadata of our jobs: the name of the sweep
SAVING_SECONDS = 60  # from the word to stop until Ray kills; its own 3 s are too few to save
ENDED = ("stopped", "succeeded", "failed")


@dataclass(frozen=True)
class Job:
    """A sweep on a cluster."""

    id: str
    sweep: str
    status: str  # pending, running, or one of ENDED
    exit_code: int | None
    message: str
    started_at: float | None  # seconds since 1970
    ended_at: float | None

    @property
    def ended(self) -> bool:
        """Whether it will not go on by itself."""
        return self.status in ENDED

    @property
    def seconds(self) -> float | None:
        """From its start until its end, or until now."""
        if self.started_at is None:
            return None
        return (self.ended_at or time.time()) - self.started_at


class Jobs:
    """The jobs of one cluster.

    Args:
        address: of the head's dashboard, such as http://head:8265.
        headers: with which it lets in; see ``head.identify``.

    Raises:
        JobError: the cluster does not let in.
    """

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        self.address = address.rstrip("/")
        for name in ("modules.dashboard_sdk", "modules.job.sdk"):
            logging.getLogger(f"ray.dashboard.{name}").setLevel(logging.ERROR)  # it tells all
        # Ray prefers what the environment says to what it is told.
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address
        self._client = self._ask(JobSubmissionClient, self.address, headers=dict(headers))

    def submit(self, sweep: str, archive: Path, environment: Mapping[str, str]) -> str:
        """Start a sweep on the cluster and return the job's id at once.

        Args:
            sweep: its name.
            archive: what goes along, packed.
            environment: variables of the driver and its workers. Everybody who may see the jobs
                sees them, so they must hold no secret.

        Raises:
            JobError: the cluster refuses.
        """
        slug = re.sub(r"[^a-z0-9]+", "-", sweep.lower()).strip("-")[:40] or "sweep"
        told = {**environment, "RAY_JOB_STOP_WAIT_TIME_S": str(SAVING_SECONDS)}
        id_ = self._ask(
            self._client.submit_job,
            entrypoint=ENTRYPOINT,
            submission_id=f"{slug}-{secrets.token_hex(3)}",
            runtime_env={"working_dir": str(archive), "env_vars": told},
            metadata={SWEEP: sweep},
        )
        return str(id_)

    def all(self) -> list[Job]:
        """Our jobs that the cluster remembers, the last one first."""
        details = self._ask(self._client.list_jobs)
        jobs = [_job(d) for d in details if d.submission_id and SWEEP in (d.metadata or {})]
        return sorted(jobs, key=lambda job: job.started_at or 0.0, reverse=True)

    def find(self, reference: str) -> Job:
        """The job of that id, or of the only one that begins so; ``last`` is the last one.

        Raises:
            JobError: there is none, or more than one.
        """
        jobs = self.all()
        if reference == "last" and jobs:
            return jobs[0]
        found = [job for job in jobs if job.id.startswith(reference)]
        exact = [job for job in found if job.id == reference]
        if len(exact or found) == 1:
            return (exact or found)[0]
        known = ", ".join(job.id for job in (found or jobs)[:10]) or "none"
        what = "more than one job" if found else "no job"
        raise JobError(f"{what} {reference!r} on {self.address}; known: {known}")

    def logs(self, job: Job) -> str:
        """What a job has printed so far."""
        return str(self._ask(self._client.get_job_logs, job.id))

    def follow(self, job: Job, write: Callable[[str], object]) -> Job:
        """Write what a job prints until it ends; returns how it ended."""
        echo = _Echo(write)
        while True:
            with suppress(RuntimeError, OSError, aiohttp.ClientError):
                asyncio.run(self._tail(job, echo))  # may break off while the job lives
            job = self.find(job.id)
            if job.ended:
                echo.take(self.logs(job), 0)
                return job
            time.sleep(1)

    async def _tail(self, job: Job, echo: _Echo) -> None:
        heard = 0  # a log is told from its beginning
        async for text in self._client.tail_job_logs(job.id):
            echo.take(text, heard)
            heard += len(text)

    def stop(self, job: Job) -> Job:
        """End a job, and wait until it has saved what it was doing."""
        self._ask(self._client.stop_job, job.id)
        until = time.monotonic() + SAVING_SECONDS + 10
        while not (job := self.find(job.id)).ended and time.monotonic() < until:
            time.sleep(0.2)
        return job

    def _ask(
        self,
        question: Callable[..., Any],
        *arguments: object,
        **named: object,
    ) -> Any:  # noqa: ANN401 - what Ray answers
        try:
            return question(*arguments, **named)
        except (RayError, RuntimeError, ConnectionError, requests.RequestException) as error:
            raise JobError(f"{self.address}: {_first_line(error)}") from None


class _Echo:
    """Writes a text that comes in pieces, some of them twice, once."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._written = 0

    def take(self, text: str, start: int) -> None:
        """A piece, and where it begins in the whole."""
        new = text[max(self._written - start, 0) :]
        if new:
            self._write(new)
            self._written = start + len(text)


def _job(details: JobDetails) -> Job:
    times = (details.start_time, details.end_time)
    started, ended = (None if t is None else t / 1000 for t in times)
    return Job(
        id=details.submission_id or "",
        sweep=(details.metadata or {})[SWEEP],
        status=str(details.status.value).lower(),
        exit_code=details.driver_exit_code,
        message=details.message or "",
        started_at=started,
        ended_at=ended,
    )


def _first_line(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    return line if len(line) <= 300 else f"{line[:297]}..."
