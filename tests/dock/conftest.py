"""Packages for the tests of the dock."""

from functools import partial

import pytest
from wares import write


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path) -> str:
    """The URL of an empty database, of each kind in turn."""
    return str(tmp_path / "dock.sqlite") if request.param == "sqlite" else request.getfixturevalue("postgres")


@pytest.fixture
def package(tmp_path):
    """Writes packages into the test's own folder; see `wares.write`."""
    return partial(write, folder=tmp_path)
