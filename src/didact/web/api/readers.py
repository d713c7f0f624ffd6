"""Who may read: everybody at a public dock, users otherwise."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from didact.reusing.dock.accounts import User
from didact.web.security import current_user, require_user, the_dock


def reader(request: Request) -> User | None:
    """The reader, or None for a visitor of a public dock. Errors: NotSignedIn."""
    return current_user(request) if the_dock(request).settings.public else require_user(request)


Reader = Annotated[User | None, Depends(reader)]
