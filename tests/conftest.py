"""One cache and one ledger for the whole test run, so that workpieces are trained once and users' files stay alone."""

import os
import tempfile
from pathlib import Path

_root = Path(os.environ.get("DIDACT_TEST_ROOT") or tempfile.mkdtemp(prefix="didact-tests-"))
# Workers of pytest-xdist inherit the environment: the first process decides for all.
os.environ.setdefault("DIDACT_TEST_ROOT", str(_root))
os.environ["DIDACT_CACHE"] = str(_root / "cache")
os.environ["DIDACT_LEDGER"] = str(_root / "ledger.sqlite")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402  (the environment comes first)
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """A ledger of the test's own."""
    return str(tmp_path / "ledger.sqlite")
