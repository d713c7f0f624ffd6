"""The sandbox: what code can do in it and what not, how each failure is named, and that nothing is left behind."""

import os
import platform
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import parcels
import psutil
import pytest

from didact.core.errors import NotApplicable
from didact.reusing.dock.errors import BadPackage
from didact.reusing.dock.package import load_package, open_package
from didact.reusing.dock.sandbox import Limits, NoSandbox, Sandbox, SandboxFailure
from didact.reusing.dock.sandbox.environments import environment_of, requirements_of
from didact.reusing.dock.sandbox.frames import HEAD, pack, unpack

HERE = Sandbox().strength
SMALL = Limits(timeout=60.0, cpu=20, memory=2**29, files=2**22, processes=24)
#: code runs in namespaces where there are some, and elsewhere in the weak sandbox, so that its limits are tested too
SANDBOX = Sandbox(SMALL, allow_weak_sandbox=True)
linux = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
shut = pytest.mark.skipif(not HERE.endswith("namespaces"), reason="no namespaces here")
pytestmark = linux


def ask(tmp_path, predict, sandbox=SANDBOX, **changes):
    """What `predict` with this body returns for the rows."""
    package = open_package(parcels.code(tmp_path, predict, **changes))
    return sandbox.run(package, "predict", {"x": parcels.rows()})["outputs"]


def failure(tmp_path, predict, sandbox=SANDBOX, **changes):
    with pytest.raises(SandboxFailure) as caught:
        ask(tmp_path, predict, sandbox, **changes)
    return caught.value


def alive(processes):
    """Which of them go on running. A zombie does not: it waits to be collected by whoever adopted it."""
    left, deadline = processes, time.monotonic() + 10
    while left and time.monotonic() < deadline:
        left = [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        time.sleep(0.02)
    return left


def test_code_runs_and_answers_arrays(tmp_path):
    assert np.array_equal(ask(tmp_path, "return x[:, :3] * 2"), parcels.rows()[:, :3] * 2)


@pytest.mark.parametrize("isolation", ["namespaces", "user-namespaces", "limits"])
def test_each_kind_of_isolation_works_where_it_is_offered(tmp_path, isolation):
    sandbox = Sandbox(SMALL, isolation=isolation, allow_weak_sandbox=True)
    if sandbox.strength == "none":
        with pytest.raises(NoSandbox):
            ask(tmp_path, "return x[:, :3]", sandbox)
    else:
        assert np.array_equal(ask(tmp_path, "return x[:, :3]", sandbox), parcels.rows()[:, :3])


def test_without_namespaces_code_is_refused_and_a_safe_package_is_not(tmp_path):
    weak = Sandbox(SMALL, isolation="limits")
    assert not weak.admits_code
    with pytest.raises(NoSandbox, match="namespaces"):
        ask(tmp_path, "return x[:, :3]", weak)
    safe = open_package(parcels.package(tmp_path / "x.zip", parcels.linear_graph()))
    assert weak.run(safe, "predict", {"x": parcels.rows()})["outputs"].shape == (40, 3)


def test_without_any_isolation_nothing_is_run(tmp_path):
    none = Sandbox(isolation="none")
    assert "no sandbox" in none.explain()
    with pytest.raises(NoSandbox):
        none.session(open_package(parcels.package(tmp_path / "x.zip", parcels.linear_graph())))


def test_a_sandbox_says_what_it_is():
    assert Sandbox(isolation="limits").explain() != Sandbox(isolation="limits", allow_weak_sandbox=True).explain()
    assert (HERE.endswith("namespaces")) == Sandbox().admits_code


def test_what_a_package_brings_does_not_count_as_written(tmp_path):
    path = parcels.code(tmp_path, "return x[:, :3]")
    data = np.random.default_rng(0).bytes(2 * SMALL.files)
    large = open_package(parcels.respoil(path, tmp_path / "large.zip", data__bin=data))
    assert SANDBOX.run(large, "predict", {"x": parcels.rows()})["outputs"].shape == (40, 3)


def test_the_environment_is_empty_and_the_folder_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "hunter2")
    body = """
        import os
        found = ["SECRET_OF_THE_SERVER" in os.environ, "SSH_AUTH_SOCK" in os.environ, bool(os.listdir("."))]
        open("mine.txt", "w").write("x")
        return np.tile(found, (len(x), 1)).astype(float)
    """
    assert ask(tmp_path, body)[0].tolist() == [0.0, 0.0, 1.0]  # in the folder is the package, and nothing else


@shut
def test_nothing_of_the_machine_can_be_seen(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("hunter2")
    tmp_path.chmod(0o777)
    secret.chmod(0o666)
    body = f"""
        import os
        seen = [os.path.exists({str(secret)!r}), os.path.exists("/etc/shadow"), os.path.exists("/var/log")]
        seen += [any(name.startswith(".") for name in os.listdir("/"))]
        return np.tile(seen, (len(x), 1)).astype(float)
    """
    assert ask(tmp_path / "a", body)[0].tolist() == [0.0, 0.0, 0.0, 0.0]


@shut
def test_processes_of_the_machine_can_neither_be_seen_nor_signalled(tmp_path):
    body = f"""
        import os
        pids = [int(p) for p in os.listdir("/proc") if p.isdigit()] if os.path.exists("/proc") else [1]
        try:
            os.kill({os.getpid()}, 0)
            reached = 1.0
        except ProcessLookupError:
            reached = 0.0
        return np.tile([max(pids), reached, os.getppid()], (len(x), 1)).astype(float)
    """
    most, reached, parent = ask(tmp_path, body)[0]
    assert most < 50
    assert reached == 0
    assert parent == 1


@shut
@pytest.mark.parametrize("place", ["/package.zip", "/usr/x", "/etc/passwd", "/x", "/dev/null2", "os.__file__"])
def test_nothing_outside_the_scratch_folder_can_be_written(tmp_path, place):
    name = repr(place) if place.startswith("/") else place
    found = failure(tmp_path, f"import os\nopen({name}, 'ab').write(b'x')")
    assert found.code == "outside-sandbox"


@shut
def test_the_package_cannot_be_changed_through_its_descriptor(tmp_path):
    path = parcels.code(tmp_path, "open('/proc/self/fd/4', 'r+b').write(b'x')")
    before = path.read_bytes()
    path.chmod(0o666)
    with pytest.raises(SandboxFailure):
        SANDBOX.run(open_package(path), "predict", {"x": parcels.rows()})
    assert path.read_bytes() == before


@shut
def test_a_server_of_the_machine_cannot_be_reached(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = failure(tmp_path, f"import socket\nsocket.create_connection(('127.0.0.1', {port}))")
    assert found.code == "network"


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="system calls of this machine not known")
def test_the_filter_of_system_calls_alone_keeps_sockets_shut(tmp_path):
    import socket

    weak = Sandbox(SMALL, isolation="limits", allow_weak_sandbox=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = failure(tmp_path, f"import socket\nsocket.create_connection(('127.0.0.1', {port}))", weak)
    assert found.code == "network"
    assert ask(tmp_path / "b", "import socket\na, b = socket.socketpair()\na.send(b'x')\nreturn x[:, :3]", weak).any()


@shut
@pytest.mark.parametrize(
    "body",
    [
        "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
        "import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/scratch', b'tmpfs', 0, None) == 0",
        "import ctypes\nassert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0",
        "import os\nos.setuid(0)\nos.chown('/usr', 0, 0)",
        "import os\nos.mknod('disk', 0o60600, os.makedev(8, 0))",
    ],
)
def test_ways_out_are_shut(tmp_path, body):
    assert failure(tmp_path, body).code in ("predict-error", "outside-sandbox")


@pytest.mark.parametrize(
    "body, code",
    [
        ("raise ValueError('no')", "predict-error"),
        ("import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=2)", "network"),
        ("import urllib.request\nurllib.request.urlopen('http://192.0.2.1/', timeout=2)", "network"),
        ("return np.zeros(10 * 2**30 // 8)", "out-of-memory"),
        ("import os\nos._exit(0)", "crashed"),
        ("import sys\nsys.exit(0)", "crashed"),
        ("import ctypes\nctypes.string_at(0)", "crashed"),
        ("import no_such_package", "missing-requirement"),
        ("open('big', 'wb').write(bytes(2**23))", "file-too-large"),
        ("return np.array([object()] * len(x))", "wrong-output-type"),
        ("return ['a'] * len(x)", "wrong-output-type"),
        ("raise KeyboardInterrupt", "predict-error"),
        ("files = [open('/dev/null') for _ in range(1000)]", "too-many-files"),
        ("import os\nos.close(1); os.close(2); os.kill(os.getpid(), 9)", "out-of-memory"),
        (
            "import threading, time\nfor _ in range(100): threading.Thread(target=time.sleep, args=(60,)).start()",
            "too-many-processes",
        ),
    ],
)
def test_failures_have_names(tmp_path, body, code):
    if code == "too-many-processes" and not HERE.endswith("namespaces"):
        pytest.skip("threads are counted in namespaces only")
    assert failure(tmp_path, body).code == code


def test_an_endless_import_is_ended(tmp_path):
    sandbox = Sandbox(Limits(timeout=2.0), allow_weak_sandbox=True)
    found = failure(tmp_path, "", sandbox, source="while True: pass")
    assert found.code == "timeout"


def test_processor_time_is_limited(tmp_path):
    sandbox = Sandbox(Limits(timeout=60.0, cpu=3), allow_weak_sandbox=True)
    assert failure(tmp_path, "while True: pass", sandbox).code == "cpu-limit"


def test_memory_of_all_processes_together_is_limited(tmp_path):
    body = """
        import os, time
        for _ in range(8):
            if os.fork() == 0:
                filled = np.ones(2**28 // 8)
                time.sleep(60)
        time.sleep(60)
    """
    sandbox = Sandbox(Limits(timeout=60.0, memory=2**29), allow_weak_sandbox=True)
    assert failure(tmp_path, body, sandbox).code == "out-of-memory"


def test_a_fork_bomb_is_ended(tmp_path):
    body = """
        import os, time
        while True:
            try:
                os.fork()
            except OSError:
                time.sleep(0.01)
    """
    sandbox = Sandbox(Limits(timeout=5.0, processes=24), allow_weak_sandbox=True)
    assert failure(tmp_path, body, sandbox).code in ("too-many-processes", "timeout")
    assert alive(psutil.Process().children(recursive=True)) == []


def test_what_the_model_prints_is_kept_and_limited(tmp_path):
    found = failure(tmp_path, "print('hello\\x1b[2J', flush=True)\nraise ValueError('no')")
    assert "hello" in found.log
    assert "\x1b" not in found.log
    assert "ValueError: no" in found.log
    flood = "import sys\nfor _ in range(20000): print('x' * 100)\nreturn x[:, :3]"
    with SANDBOX.session(open_package(parcels.code(tmp_path / "b", flood))) as session:
        session.call("predict", {"x": parcels.rows()})
        assert len(session.log) <= SMALL.log


def test_a_session_remembers_what_was_learned(tmp_path):
    learnware = load_package(parcels.code(tmp_path), allow_code=True, sandbox=SANDBOX)
    x = parcels.rows()
    assert learnware.input_shape == (6,)
    assert np.array_equal(learnware.predict(x), x[:, :3])
    learnware.finetune(x, parcels.labels())
    assert np.allclose(learnware.predict(x), x[:, :3] + 1)
    learnware.fit(x, np.full(40, 5))
    assert np.allclose(learnware.predict(x), x[:, :3] + 5)
    learnware.close()


def test_a_worker_that_failed_is_started_anew(tmp_path):
    body = "import os\nif x[0, 0] > 100: os._exit(1)\nreturn x[:, :3]"
    learnware = load_package(parcels.code(tmp_path, body), allow_code=True, sandbox=SANDBOX)
    with pytest.raises(SandboxFailure):
        learnware.predict(parcels.rows() + 1000)
    assert learnware.predict(parcels.rows()).shape == (40, 3)
    learnware.close()


def test_code_that_cannot_train_says_so(tmp_path):
    source = "class Model:\n    input_shape, output_shape = (6,), (3,)\n    def predict(self, x): return x[:, :3]\n"
    learnware = load_package(parcels.code(tmp_path, source=source), allow_code=True, sandbox=SANDBOX)
    with pytest.raises((NotApplicable, SandboxFailure), match="fit"):
        learnware.fit(parcels.rows(), parcels.labels())
    learnware.close()


def test_a_safe_package_can_run_in_the_sandbox_too(tmp_path):
    path = parcels.package(tmp_path / "x.zip", parcels.linear_graph())
    learnware = load_package(path, sandbox=Sandbox())
    assert np.array_equal(learnware.predict(parcels.rows()), load_package(path).predict(parcels.rows()))
    learnware.close()


def test_nothing_is_left_of_processes_that_hide(tmp_path):
    body = """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(600)
            os._exit(0)
        return x[:, :3]
    """
    ask(tmp_path, body)
    assert alive(psutil.Process().children(recursive=True)) == []


def test_scratch_folders_and_descriptors_are_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    package = open_package(parcels.code(tmp_path / "p"))
    sandbox = Sandbox(SMALL, isolation="limits", allow_weak_sandbox=True)
    sandbox.run(package, "predict", {"x": parcels.rows()})
    before = len(list(Path("/proc/self/fd").iterdir()))
    sandbox.run(package, "predict", {"x": parcels.rows()})
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize("isolation", ["auto", "limits"])
def test_a_worker_dies_with_a_server_that_is_killed(tmp_path, isolation):
    path = parcels.code(tmp_path, "import time\ntime.sleep(600)")
    source = f"""
        from didact.reusing.dock.package import open_package
        from didact.reusing.dock.sandbox import Sandbox
        import numpy as np, sys
        session = Sandbox(isolation={isolation!r}, allow_weak_sandbox=True).session(open_package({str(path)!r}))
        print(session._watcher.pid, flush=True)
        session.call("predict", {{"x": np.zeros((1, 6))}})
    """
    server = subprocess.Popen([sys.executable, "-c", textwrap.dedent(source)], stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "TMPDIR": str(tmp_path)})  # fmt: skip
    assert server.stdout is not None
    watcher = psutil.Process(int(server.stdout.readline()))
    family = [watcher, *watcher.children(recursive=True)]
    assert len(family) >= 3
    server.send_signal(signal.SIGKILL)
    server.wait()
    assert alive(family) == []
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("didact-sandbox")] == []


def test_frames_go_there_and_back():
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([], dtype=np.int64), "c": np.asfortranarray(np.eye(3))}
    message, back = unpack(pack({"text": "ü"}, arrays)[HEAD.size :])
    assert message == {"text": "ü"}
    assert all(np.array_equal(back[name], array) and back[name].dtype == array.dtype for name, array in arrays.items())


def forged(name="x.npy", data=b"", compress=False):
    import io
    import zipfile

    stream = io.BytesIO(pack({"ok": True})[HEAD.size :])
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        archive.writestr(name, data)
    return stream.getvalue()


def array_bytes(array, **options):
    import io

    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"junk",
        pack({})[HEAD.size : -20],
        forged(data=array_bytes(np.array([{}], dtype=object), allow_pickle=True)),
        forged(data=array_bytes(np.array(["text"]))),
        forged(data=array_bytes(np.zeros(3))[:-8]),
        forged(data=array_bytes(np.zeros(3)).replace(b"(3,)", b"(9,)")),
        forged(data=array_bytes(np.zeros(3)).replace(b"(3,)", b"-3, ")),
        forged(data=array_bytes(np.zeros(10**6)), compress=True),
        forged(data=b"\x80\x04."),
    ],
)
def test_forged_answers_are_refused(body):
    with pytest.raises(SandboxFailure) as caught:
        unpack(body)
    assert caught.value.code == "bad-answer"


@pytest.mark.parametrize(
    "write, code",
    [("b'junk' * 100", "answer-too-large"), ("(100).to_bytes(8, 'little') + b'x' * 100", "bad-answer")],
)
def test_code_that_writes_to_the_answers_itself(tmp_path, write, code):
    body = f"""
        import os
        for fd in range(3, 64):
            try:
                os.write(fd, {write})
            except OSError:
                pass
        import time
        time.sleep(60)
    """
    assert failure(tmp_path, body).code == code


def test_an_answer_may_not_be_too_large(tmp_path):
    sandbox = Sandbox(Limits(timeout=60.0, answer=10_000), allow_weak_sandbox=True)
    assert failure(tmp_path, "return np.zeros((len(x), 3000))", sandbox).code == "answer-too-large"


def requirements(tmp_path, text):
    path = parcels.code(tmp_path)
    return open_package(parcels.respoil(path, tmp_path / "with.zip", requirements__txt=text))


def test_requirements_are_names_and_versions(tmp_path):
    package = requirements(tmp_path, "numpy>=1.26  # arrays\n\nscikit-learn[x]==1.4.2\nscipy>=1, <2\n")
    assert requirements_of(package) == ("numpy>=1.26", "scikit-learn[x]==1.4.2", "scipy>=1, <2")


@pytest.mark.parametrize(
    "line",
    ["--index-url=http://x", "-r other.txt", "git+https://x/y", "numpy @ file:///etc", "./folder", "a;b", "x\n" * 60],
)
def test_other_requirements_are_refused(tmp_path, line):
    with pytest.raises(BadPackage) as caught:
        requirements_of(requirements(tmp_path, line))
    assert caught.value.code == "bad-requirements"


def test_without_requirements_the_dock_s_own_python_is_used(tmp_path):
    assert environment_of(requirements(tmp_path, "# nothing\n"), tmp_path) == Path(sys.executable)


@pytest.mark.slow
def test_requirements_that_cannot_be_installed_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    package = requirements(tmp_path, "no-such-package-of-didact==1.0")
    with pytest.raises(SandboxFailure) as caught:
        Sandbox(SMALL, allow_weak_sandbox=True, environments=tmp_path / "env").session(package)
    assert caught.value.code == "missing-requirement"
