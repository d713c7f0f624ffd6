"""A dock in one process, three people in three others, real HTTP between them, and an ear on the wire."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from machine import rows

MACHINE = Path(__file__).with_name("machine.py")


class Ear:
    """A TCP relay in front of the dock that writes down everything which leaves a user."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.heard: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                user, _ = self._listening.accept()
            except OSError:
                return
            dock = socket.create_connection(("127.0.0.1", self._port))
            for source, sink, keep in ((user, dock, True), (dock, user, False)):
                threading.Thread(target=self._relay, args=(source, sink, keep), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, keep: bool) -> None:
        try:
            while part := source.recv(65_536):
                if keep:
                    self.heard.append(part)
                sink.sendall(part)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    @property
    def bytes(self) -> bytes:
        return b"".join(self.heard)


@pytest.fixture(scope="module")
def dock_port(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dock")
    command = [sys.executable, "-m", "didact.cli", "dock", "serve", "--folder", folder, "--port", "0", "--json"]
    server = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    try:
        yield int(json.loads(server.stdout.readline())["url"].rsplit(":", 1)[1])
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 0


def on_a_machine(folder: Path, *arguments: object) -> dict:
    """What a person's process did. Its cache and settings are its own."""
    folder.mkdir()
    own = {"DIDACT_CACHE": str(folder / "cache"), "XDG_CONFIG_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(MACHINE), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **own},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def contains_a_row(sent: bytes, x: np.ndarray) -> bool:
    """Whether any row stands in what was sent: as numbers of any usual kind, or as text."""
    for row in x:
        whole = (row * 16).round()
        forms = [row.astype(kind).tobytes() for kind in (np.float64, np.float32, np.float16)]
        forms += [whole.astype(kind).tobytes() for kind in (np.float64, np.float32, np.uint8, np.int64)]
        for values in (row.tolist(), whole.tolist(), whole.astype(int).tolist()):
            # Eight pixels in a row of the picture's middle are telling enough; edges are all zeros.
            forms += [comma.join(map(repr, values[24:40])).encode() for comma in (",", ", ", " ")]
        if any(form in sent for form in forms):
            return True
    return False


def unpacked(package: Path) -> bytes:
    with zipfile.ZipFile(io.BytesIO(package.read_bytes())) as archive:
        return b"\n".join(archive.read(name) for name in archive.namelist())


def test_three_people_and_a_dock(dock_port, tmp_path):
    ears = [Ear(dock_port) for _ in range(3)]
    low = on_a_machine(tmp_path / "ann", "submit", ears[0].url, "ann", tmp_path / "ann", "01234")
    high = on_a_machine(tmp_path / "bob", "submit", ears[1].url, "bob", tmp_path / "bob", "56789")
    assert [low["status"], high["status"]] == ["SUCCESS", "SUCCESS"], low["log"] + high["log"]

    for digits, expected in (("01234", low["id"]), ("56789", high["id"])):
        used = on_a_machine(tmp_path / digits, "use", ears[2].url, tmp_path / digits, digits)
        assert used["best"] == expected
        assert used["accuracy"] > 0.8
        heard = ears[2].bytes
        assert 0 < used["bytes_sent"] <= len(heard)
        assert not contains_a_row(heard, rows(digits, 1)[0])
        ears[2].heard.clear()

    for ear, name, digits, told in ((ears[0], "ann", "01234", low), (ears[1], "bob", "56789", high)):
        package = tmp_path / name / f"{name}.zip"
        assert package.read_bytes() in ear.bytes  # the ear hears all of it
        assert package.stat().st_size < told["bytes_sent"] <= len(ear.bytes)
        for sent in (ear.bytes, unpacked(package)):
            assert not contains_a_row(sent, rows(digits, 0)[0])


def test_the_ear_would_hear_a_row():
    x = rows("3", 0)[0]
    for leak in (x[5].tobytes(), json.dumps(x[5].tolist()).encode(), (x[5] * 16).astype(np.uint8).tobytes()):
        assert contains_a_row(b"before" + leak + b"after", x)
