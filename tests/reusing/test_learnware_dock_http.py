"""The claim's last part in small: a real server in a process of its own, models submitted, users served over HTTP."""

import json

import pytest

from didact.core.errors import DidactError
from didact.reusing.dock.demo import run
from didact.reusing.learnware_dock import DockOverHTTP, LearnwareDock, dock_digits
from didact.reusing.learnware_dock.over_http import served


def test_over_the_wire_comes_out_what_comes_out_in_memory():
    problem = dock_digits(0, learnwares=3, users=2)
    there, here = DockOverHTTP().solve(problem.given), LearnwareDock().solve(problem.given)
    found, expected = problem.score(there), problem.score(here)
    assert found["submitted"] == 3
    assert found["raw_rows_sent"] == 0
    assert found["test_score"] == pytest.approx(expected["test_score"], abs=1e-9)
    for wire, memory in zip(there.extras["users"], here.extras["users"], strict=True):
        assert dict(wire.weights) == pytest.approx(dict(memory.weights), abs=1e-9)
    # Little beyond the specification leaves: the words of the search's form and nothing for downloads.
    assert expected["bytes_sent"] < found["bytes_sent"] < expected["bytes_sent"] + 2000


def test_a_server_that_cannot_start_says_why(tmp_path):
    (tmp_path / "dock").write_text("a file where a folder should be")
    with pytest.raises(DidactError, match="did not start"), served(tmp_path / "dock"):
        pass


@pytest.mark.slow
def test_the_demo_tells_its_story(tmp_path):
    said: list[str] = []
    demo = run(tmp_path, models=3, say=said.append)
    assert demo.submitted == demo.usable == 3
    assert demo.accuracy > 0.5
    assert demo.bytes_sent > 0
    assert set(demo.used) <= {"digits-00", "digits-01", "digits-02"}
    assert json.loads((demo.answer / "reuse.json").read_text())["weights"]
    assert any("no picture among them" in line for line in said)
