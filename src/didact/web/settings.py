"""What an operator may set about the web side, apart from the dock's own settings."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict, Field

MEGABYTE = 2**20


class WebSettings(BaseModel):
    """Limits of the HTTP side. The dock's own limits (upload size, registration, sandbox) are `DockSettings`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checker: bool = True  #: run the checking queue in a thread of this process
    requests_per_minute: float = Field(default=600.0, gt=0)  #: for each user, or address where nobody is signed in
    burst: int = Field(default=200, ge=1)  #: requests that may come at once before that rate holds
    sign_ins_per_minute: float = Field(default=10.0, gt=0)  #: attempts to sign in or register, for each address
    sign_in_burst: int = Field(default=10, ge=1)  #: attempts that may come at once before that rate holds
    searches_at_once: int = Field(default=os.cpu_count() or 1, ge=1)  #: statistical searches; the rest wait
    max_body: int = Field(default=1 * MEGABYTE, ge=1024)  #: bytes of an ordinary request
    max_search: int = Field(default=16 * MEGABYTE, ge=1024)  #: bytes of a search (a specification is its largest part)
    max_chunk: int = Field(default=16 * MEGABYTE, ge=1024)  #: bytes of one piece of an upload
    session_days: int = Field(default=14, ge=1)  #: how long a browser keeps the cookie
