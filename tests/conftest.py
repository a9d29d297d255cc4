"""Every test starts from the same global state and leaves it as it was."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

DOUBLES = str(Path(__file__).parent / "doubles")
sys.path.insert(0, DOUBLES)  # an installed package to all intents: it has its dist-info
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [DOUBLES, os.environ.get("PYTHONPATH")]))

DATA = os.environ.get("BHNBENCH_DATA")
POSTGRES = os.environ.get("BHNBENCH_TEST_POSTGRES")


@pytest.fixture(autouse=True)
def global_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Own home, one thread; global random state and dtype restored."""
    import torch

    monkeypatch.setenv("BHNBENCH_HOME", str(tmp_path / "home"))
    for name in ("BHNBENCH_LEDGER", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_rng_state(state)
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


@pytest.fixture
def data_folder() -> Path:
    """The folder of real data sets, or a skip that says how to get them."""
    if not DATA:
        pytest.skip("needs real data sets: set BHNBENCH_DATA to a folder that holds mnist/")
    return Path(DATA)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def ledger_address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a ledger that does not exist yet, on each database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
        return
    if not POSTGRES:
        pytest.skip("needs PostgreSQL: set BHNBENCH_TEST_POSTGRES to its URL")
    from sqlalchemy import create_engine, text

    schema = f"bhnbench_{uuid.uuid4().hex[:12]}"
    engine = create_engine(POSTGRES)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    yield f"{POSTGRES}?options=-csearch_path%3D{schema}"
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An address in a bucket of an S3 server on this host."""
    moto = pytest.importorskip("moto.server", reason="needs moto[s3], of the dev extra")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        from pyarrow.fs import FileSystem

        files, bucket = FileSystem.from_uri("s3://lab?allow_bucket_creation=true")
        files.create_dir(bucket)
        yield "s3://lab/a/prefix"
    server.stop()
