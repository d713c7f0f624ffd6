"""For administrators: users, all learnwares, what is going on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response

from didact.reusing.dock.service import Status
from didact.web.api.people import EventOut, RoleIn, UserOut, UsersOut
from didact.web.api.schemas import LearnwaresOut, Limit, Number, PageNumber, errors
from didact.web.security import Administrator, TheDock

router = APIRouter(prefix="/admin", tags=["admin"])


@router.get("/summary")
def summary(dock: TheDock, admin: Administrator) -> dict[str, Any]:
    """Counts and bytes."""
    return dock.summary()


@router.get("/learnwares")
def learnwares(
    dock: TheDock,
    admin: Administrator,
    status: Annotated[Status | None, Query()] = None,
    page: Annotated[PageNumber, Query()] = 1,
    limit: Annotated[Limit, Query()] = 20,
) -> LearnwaresOut:
    """All learnwares in whatever state, newest first."""
    return LearnwaresOut.of(dock.list(status=status, page=page, limit=limit, reader=admin))


@router.get("/events")
def events(dock: TheDock, admin: Administrator, limit: Annotated[Limit, Query()] = 50) -> list[EventOut]:
    """What happened last."""
    return [EventOut.of(event) for event in dock.events(limit, reader=admin)]


@router.get("/users")
def users(
    dock: TheDock,
    admin: Administrator,
    page: Annotated[PageNumber, Query()] = 1,
    limit: Annotated[Limit, Query()] = 20,
) -> UsersOut:
    """All accounts."""
    found = dock.accounts.users(by=admin, page=page, limit=limit)
    items = [UserOut.of(user) for user in found.items]
    return UsersOut(items=items, total=found.total, page=found.page, limit=found.limit)


@router.put("/users/{id}", responses=errors(404, 409, 413))
def set_role(dock: TheDock, admin: Administrator, id: Annotated[Number, Path()], role: RoleIn) -> UserOut:
    """Make somebody an administrator, or no longer one."""
    return UserOut.of(dock.accounts.set_role(id, role.role, by=admin))


@router.delete("/users/{id}", status_code=204, response_class=Response, responses=errors(404, 409, 413))
def delete_user(
    dock: TheDock,
    admin: Administrator,
    id: Annotated[Number, Path()],
    learnwares: Annotated[Literal["keep", "delete"], Query()] = "keep",
) -> None:
    """Remove an account; its learnwares stay, unless they are to be deleted too."""
    dock.delete_user(id, by=admin, learnwares=learnwares)
