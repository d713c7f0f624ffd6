"""Which dock a command talks to, and with which token."""

from __future__ import annotations

import json
import os
from pathlib import Path

import platformdirs

from didact.core.errors import BadInput
from didact.reusing.dock.client import DockClient
from didact.reusing.dock.local import LocalDock


def connect(where: str | None, token: str | None = None, patience: float = 5.0) -> DockClient | LocalDock:
    """A client for an address, a `LocalDock` for a folder. A dock that does not answer is tried for `patience` s."""
    if not where:
        raise BadInput("Say which dock: --url with its address or with a folder, or set DIDACT_DOCK.")
    if "://" in where:
        return DockClient(where, token or _kept_tokens().get(where.rstrip("/")), patience=patience)
    return LocalDock(where)


def connect_to_server(where: str | None, token: str | None = None) -> DockClient:
    """A client; a folder has no accounts."""
    dock = connect(where, token)
    if not isinstance(dock, DockClient):
        raise BadInput(f"{where} is a dock in a folder, which has no accounts. This is for a dock behind an address.")
    return dock


def run_register(where: str | None, name: str, email: str, password: str, as_json: bool) -> int:
    dock = connect_to_server(where)
    dock.register(name, email, password)
    return _signed_in(dock, name, password, as_json)


def run_login(where: str | None, name: str, password: str, as_json: bool) -> int:
    return _signed_in(connect_to_server(where), name, password, as_json)


def run_token(where: str | None, token: str | None, label: str, days: float | None, as_json: bool) -> int:
    made = connect_to_server(where, token).issue_token(label, days)
    print(json.dumps({"token": made}) if as_json else made)
    return 0


def _signed_in(dock: DockClient, name: str, password: str, as_json: bool) -> int:
    token = dock.login(name, password, "didact dock login")
    _keep_token(dock.url, token)
    print(json.dumps({"url": dock.url, "name": name}) if as_json else f"signed in at {dock.url} as {name}")
    return 0


def _file() -> Path:
    return platformdirs.user_config_path("didact") / "dock-tokens.json"


def _kept_tokens() -> dict[str, str]:
    try:
        kept = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _keep_token(url: str, token: str) -> None:
    """Only this user may read the file: whoever has the token is this user to the dock."""
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as opened:
        json.dump({**_kept_tokens(), url: token}, opened)
    part.replace(file)
