"""The checker: one verdict for each learnware, whatever happens to checks, checkers and the database."""

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from didact.reusing.dock.checking import CheckReport
from didact.reusing.dock.errors import DockError, NotFound
from didact.reusing.dock.queue import Checker
from didact.reusing.dock.service import Dock, DockSettings

GOOD = CheckReport(1, "", "all is well", (4,), (3,))


@pytest.fixture
def dock(tmp_path):
    dock = Dock(DockSettings(folder=tmp_path / "dock", lease=0.4))
    yield dock
    dock.close()


def until(condition, seconds: float = 30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def states(dock: Dock) -> list[tuple]:
    return sorted((info.semantic.name, info.status, info.usable) for info in dock.learnwares.list()[0])


def test_verdicts_become_states(dock, package):
    verdicts = {"good": GOOD, "weak": CheckReport(0, "nan-output", "NaN"), "broken": CheckReport(-1, "corrupt", "no")}
    for name in verdicts:
        dock.submit(package(name))
    order = [info.semantic.name for info in reversed(dock.learnwares.list()[0])]
    reports = [verdicts[name] for name in order]
    checker = Checker(dock, lambda path: reports.pop(0))
    assert [checker.run_once() for _ in range(4)] == [True, True, True, False]
    assert states(dock) == [("broken", "FAIL", -1), ("good", "SUCCESS", 1), ("weak", "FAIL", 0)]
    assert {info.reason for info in dock.learnwares.list()[0]} == {"", "nan-output", "corrupt"}
    assert dock.search().total == 1


def test_the_check_gets_the_package(dock, package):
    seen = []
    dock.submit(path := package())
    Checker(dock, lambda given: seen.append(given.read_bytes()) or GOOD).run_once()
    assert seen == [path.read_bytes()]


def test_shapes_that_the_check_found_are_kept(dock, package):
    info = dock.submit(package())
    Checker(dock, lambda path: CheckReport(1, "", "", (4,), ())).run_once()
    assert dock.info(info.id).output_shape == ()


def test_a_fault_of_the_check_is_no_verdict_and_not_the_end(dock, package):
    info, other = dock.submit(package("one")), dock.submit(package("two"))
    faults = [ZeroDivisionError("oops")]

    def check(path):
        if faults:
            raise faults.pop()
        return GOOD

    checker = Checker(dock, check)
    assert checker.run_once()
    assert checker.run_once()
    assert states(dock) == [("one", "FAIL", None), ("two", "SUCCESS", 1)]
    assert "ZeroDivisionError: oops" in dock.learnwares.log(info.id)
    assert dock.info(other.id).visible


def test_a_package_whose_blob_is_gone_fails_alone(dock, package):
    info = dock.submit(package())
    dock.blobs.remove(info.sha256)
    Checker(dock, lambda path: GOOD).run_once()
    assert [(i.status, i.usable, i.reason) for i in dock.learnwares.list()[0]] == [("FAIL", None, "package-gone")]


def test_the_loop_checks_what_comes_and_stops(dock, package):
    stop = threading.Event()
    thread = threading.Thread(target=Checker(dock, lambda path: GOOD).run_forever, args=(stop,))
    thread.start()
    for i in range(3):
        dock.submit(package(f"number {i}"))
    until(lambda: dock.search().total == 3)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_as_many_checks_at_once_as_the_settings_say(tmp_path, package):
    dock = Dock(DockSettings(folder=tmp_path / "dock", check_workers=3))
    together, stop = threading.Barrier(3), threading.Event()

    def check(path):
        together.wait(20)  # passes only when three checks run at once
        return GOOD

    for i in range(3):
        dock.submit(package(f"number {i}"))
    thread = threading.Thread(target=Checker(dock, check).run_forever, args=(stop,))
    thread.start()
    until(lambda: all(state[1] in ("SUCCESS", "FAIL") for state in states(dock)))
    stop.set()
    thread.join()
    assert [state[1] for state in states(dock)] == ["SUCCESS"] * 3
    dock.close()


def test_stopping_gives_back_what_is_being_checked(dock, package):
    stop, begun, release = threading.Event(), threading.Event(), threading.Event()

    def check(path):
        begun.set()
        release.wait(30)
        return GOOD

    info = dock.submit(package())
    thread = threading.Thread(target=Checker(dock, check).run_forever, args=(stop,))
    thread.start()
    assert begun.wait(30)
    stop.set()
    thread.join(10)
    assert not thread.is_alive(), "it does not wait for a check that takes half an hour"
    assert dock.learnwares.get(info.id).status == "QUEUE"
    release.set()
    time.sleep(0.1)
    assert dock.learnwares.get(info.id).status == "QUEUE", "the abandoned check's verdict is dropped"
    assert dock.work.take("next", 60).attempt == 1


def test_a_long_check_keeps_its_lease(dock, package):
    """The check takes several leases; another checker that looks for silent ones meanwhile takes nothing."""
    end, begun = threading.Event(), threading.Event()

    def check(path):
        begun.set()
        end.wait(30)
        return GOOD

    dock.submit(package())
    thread = threading.Thread(target=Checker(dock, check).run_once)
    thread.start()
    assert begun.wait(30)
    recovered = []
    for _ in range(15):
        time.sleep(0.1)
        recovered += dock.work.recover(lambda holder: False, 10)
    end.set()
    thread.join()
    assert recovered == []
    assert states(dock) == [("a model", "SUCCESS", 1)]


def test_what_a_slow_checker_finds_after_its_lease_is_dropped(dock, package):
    """Its learnware was taken over and judged; the late verdict must not replace that one."""
    late = CheckReport(0, "late", "too late")

    def check(path):
        with dock.store.writing() as connection:
            from didact.reusing.dock.storage.tables import learnwares

            connection.execute(learnwares.update().values(lease=0.0))
        dock.work.recover(lambda holder: False, 10)
        assert Checker(dock, lambda path: GOOD).run_once()
        return late

    dock.submit(package())
    Checker(dock, check).run_once()
    assert states(dock) == [("a model", "SUCCESS", 1)]


def test_what_a_dead_process_held_is_taken_over_at_once(tmp_path, package):
    """Long before its lease is over, because it ran on this machine."""
    folder = tmp_path / "dock"
    code = (
        "import sys, os, signal\n"
        "from didact.reusing.dock.queue import Checker\n"
        "from didact.reusing.dock.service import Dock, DockSettings\n"
        "dock = Dock(DockSettings(folder=sys.argv[1], lease=3600))\n"
        "dock.submit(sys.argv[2])\n"
        "Checker(dock, lambda path: os.kill(os.getpid(), signal.SIGKILL)).run_once()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder), str(package())], capture_output=True)
    assert done.returncode == -9, done.stderr
    dock = Dock(DockSettings(folder=folder, lease=3600))
    assert states(dock) == [("a model", "PROCESSING", None)]
    assert Checker(dock, lambda path: GOOD).run_once()
    assert states(dock) == [("a model", "SUCCESS", 1)]
    dock.close()


@pytest.mark.parametrize(
    ("holder", "dead"),
    [
        ("elsewhere:1:0.00:ab", False),
        (f"{socket.gethostname()[:64]}:{os.getpid()}:0.00:ab", True),
        (f"{socket.gethostname()[:64]}:999999999:0.00:ab", True),
        (f"{socket.gethostname()[:64]}:what:ever:ab", False),
        ("", False),
    ],
    ids=["elsewhere", "another life of this process", "gone", "unreadable", "nobody"],  # no process number in a name
)
def test_who_counts_as_dead(holder, dead):
    from didact.reusing.dock.queue import _is_dead, _this_process

    assert _is_dead(holder) == dead
    assert not _is_dead(f"{_this_process()}:ab")


def test_waiting_for_one_checks_those_before_it(dock, package):
    first, second = dock.submit(package("first")), dock.submit(package("second"))
    checker = Checker(dock, lambda path: GOOD)
    assert checker.check_until(second.id, 60).status == "SUCCESS"
    assert dock.info(first.id).visible
    with pytest.raises(NotFound):
        checker.check_until("nothing", 60)


def test_waiting_has_an_end(dock, package):
    info = dock.submit(package())
    dock.work.take("another", 3600)
    with pytest.raises(DockError, match="has not ended") as caught:
        Checker(dock, lambda path: GOOD).check_until(info.id, 0.2)
    assert caught.value.code == "timeout"


def test_the_queue_goes_on_after_the_database_was_away(dock, package, monkeypatch, capsys):
    stop, failures = threading.Event(), [OSError("gone")] * 2
    take = dock.work.take

    def flaky(*args):
        if failures:
            raise failures.pop()
        return take(*args)

    monkeypatch.setattr(dock.work, "take", flaky)
    dock.submit(package())
    thread = threading.Thread(target=Checker(dock, lambda path: GOOD).run_forever, args=(stop,))
    thread.start()
    until(lambda: dock.search().total == 1)
    stop.set()
    thread.join()
    assert "gone" in capsys.readouterr().err
