"""One cache and one ledger for the whole test run, so that workpieces are trained once and users' files stay alone."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

_root = Path(os.environ.get("DIDACT_TEST_ROOT") or tempfile.mkdtemp(prefix="didact-tests-"))
# Workers of pytest-xdist inherit the environment: the first process decides for all.
os.environ.setdefault("DIDACT_TEST_ROOT", str(_root))
os.environ["DIDACT_CACHE"] = str(_root / "cache")
os.environ["DIDACT_LEDGER"] = str(_root / "ledger.sqlite")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402  (the environment comes first)
import sqlalchemy as sa  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """A ledger of the test's own."""
    return str(tmp_path / "ledger.sqlite")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory):
    """A PostgreSQL server of the tests' own; skipped where none is installed. `DIDACT_TEST_POSTGRES` names another."""
    if os.environ.get("DIDACT_TEST_POSTGRES"):
        yield os.environ["DIDACT_TEST_POSTGRES"]
        return
    found = shutil.which("postgres") or next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))), None)
    if not found:
        pytest.skip("no PostgreSQL server is installed")
    binaries = Path(found).resolve().parent
    folder = Path(tempfile.gettempdir()) / f"didact-pg-{os.getpid()}"  # a short path: it holds a socket
    folder.mkdir(mode=0o777)
    become = []
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "postgres")
        become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    data, port = folder / "data", free_port()
    subprocess.run(
        [*become, binaries / "initdb", "-D", data, "-U", "tester", "-A", "trust"], check=True, capture_output=True
    )
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
    start = [*become, binaries / "pg_ctl", "-D", data, "-l", folder / "log", "-w", "-o", options, "start"]
    subprocess.run(start, check=True, capture_output=True)
    yield f"postgresql://tester@127.0.0.1:{port}/postgres"
    subprocess.run([*become, binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"], capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(postgres_server):
    """The URL of an empty database."""
    engine = sa.create_engine(postgres_server.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
    return postgres_server
