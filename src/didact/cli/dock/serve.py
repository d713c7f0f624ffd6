"""`didact dock serve` and `check`: the server's side."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import uvicorn

from didact.core.errors import BadInput
from didact.reusing.dock.queue import Checker
from didact.reusing.dock.records import DockSettings
from didact.reusing.dock.service import Dock
from didact.web.app import create_app
from didact.web.digest import send_digests
from didact.web.mail import MailSettings
from didact.web.settings import MEGABYTE, WebSettings


def run_server(
    *,
    folder: Path,
    db: str | None,
    host: str,
    port: int,
    admin: str | None,
    gamma: float | None,
    closed: bool,
    private: bool,
    code: bool,
    checker: bool,
    max_upload: float,
    requests: float,
    ledger: str | None,
    proxy: str | None,
    as_json: bool,
) -> int:
    settings = DockSettings(
        folder=folder,
        url=db,
        gamma=gamma,
        registration="closed" if closed else "open",
        public=not private,
        code=code,
        max_upload=int(max_upload * MEGABYTE),
    )
    listening = _listen(host, port)
    dock = Dock(settings)
    try:
        password = dock.accounts.ensure_admin(admin)[1] if admin else None
        web = WebSettings(checker=checker, requests_per_minute=requests, burst=max(10, int(requests / 3)))
        app = create_app(dock, ledger, MailSettings.from_environment(), settings=web)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                server_header=False,
                proxy_headers=proxy is not None,
                forwarded_allow_ips=proxy,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=10,
            )
        )
        _announce(listening, admin, password, as_json)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server hands it on when it has shut down
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        dock.close()
        listening.close()
    return 0


def run_checker(folder: Path, db: str | None, once: bool, as_json: bool) -> int:
    dock = Dock(DockSettings(folder=folder, url=db))
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    checker = Checker(dock)
    try:
        if not once:
            checker.run_forever(stop)
            return 0
        checked = 0
        while not stop.is_set() and checker.run_once():
            checked += 1
    finally:
        dock.close()
    print(json.dumps({"checked": checked}) if as_json else f"checked {checked}")
    return 0


def run_demo(folder: Path | None, models: int, how: str, labelled: bool, stay: bool, seed: int, as_json: bool) -> int:
    from didact.reusing.dock import demo

    say = (lambda line: print(line, file=sys.stderr)) if as_json else print
    done = demo.run(folder, models=models, seed=seed, how=how, labelled=labelled, stay=stay, say=say)
    if as_json:
        print(json.dumps(asdict(done), default=str))
    return 0


def run_digest(folder: Path, db: str | None, ledger: str | None, as_json: bool) -> int:
    mail = MailSettings.from_environment()
    if mail is None:
        raise BadInput("No mail server is set, so nothing was sent. Set DIDACT_SMTP_HOST and what goes with it.")
    dock = Dock(DockSettings(folder=folder, url=db))
    try:
        done = send_digests(dock, ledger, mail)
    finally:
        dock.close()
    print(json.dumps(asdict(done)) if as_json else f"sent {done.sent}, failed {done.failed}, no news for {done.quiet}")
    return 1 if done.failed else 0


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise BadInput(
            f"Nothing can be served at {host}, port {port}: {error.strerror or error}. Choose another with --port."
        ) from None


def _announce(listening: socket.socket, admin: str | None, password: str | None, as_json: bool) -> None:
    host, port = listening.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if as_json:
        print(json.dumps({"url": url, "admin": admin, "password": password}))
    else:
        print(f"The dock is at {url}")
        if password:
            print(f"The password of {admin} is {password}  (shown this once)")
    sys.stdout.flush()
