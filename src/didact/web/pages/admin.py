"""For administrators: how much there is, users, all learnwares, the queue, what happened."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import Response

from didact.reusing.dock.errors import DockError
from didact.reusing.dock.service import Status
from didact.web.pages.forms import OWN_PAGE, PageNumber, see, state_of
from didact.web.rendering import render
from didact.web.security import Administrator, TheDock

router = APIRouter(prefix="/admin")
UNDER_WAY: tuple[Status, ...] = ("PROCESSING", "QUEUE", "WAITING")


@router.get("")
def summary(request: Request, dock: TheDock, admin: Administrator) -> Response:
    return render(request, "admin/summary.html", summary=dock.summary(), events=dock.events(20, reader=admin))


@router.get("/users")
def users(request: Request, dock: TheDock, admin: Administrator, page: PageNumber = 1) -> Response:
    return _users_page(request, dock, admin, page)


@router.post("/users/{id}/role", dependencies=OWN_PAGE)
def set_role(
    request: Request, dock: TheDock, admin: Administrator, id: int, role: Annotated[Literal["user", "admin"], Form()]
) -> Response:
    try:
        dock.accounts.set_role(id, role, by=admin)
    except DockError as error:
        return _users_page(request, dock, admin, 1, str(error), error.status)
    return see("/admin/users")


@router.get("/users/{id}/delete")
def delete_form(request: Request, dock: TheDock, admin: Administrator, id: int) -> Response:
    return render(request, "admin/delete-user.html", person=dock.accounts.user(id))


@router.post("/users/{id}/delete", dependencies=OWN_PAGE)
def delete_user(
    request: Request,
    dock: TheDock,
    admin: Administrator,
    id: int,
    learnwares: Annotated[Literal["keep", "delete"], Form()] = "keep",
) -> Response:
    try:
        dock.delete_user(id, by=admin, learnwares=learnwares)
    except DockError as error:
        return _users_page(request, dock, admin, 1, str(error), error.status)
    return see("/admin/users")


@router.get("/learnwares")
def learnwares(
    request: Request,
    dock: TheDock,
    admin: Administrator,
    status: Annotated[Literal["", "WAITING", "QUEUE", "PROCESSING", "SUCCESS", "FAIL"], Query()] = "",
    page: PageNumber = 1,
) -> Response:
    found = dock.list(status=status or None, page=page, limit=50, reader=admin)
    return render(request, "admin/learnwares.html", shown=found, given={"status": status}, page=page, state_of=state_of)


@router.get("/queue")
def queue(request: Request, dock: TheDock, admin: Administrator) -> Response:
    """What is checked now, and what waits."""
    parts = [(status, dock.list(status=status, limit=50, reader=admin)) for status in UNDER_WAY]
    return render(request, "admin/queue.html", parts=parts)


@router.get("/events")
def events(request: Request, dock: TheDock, admin: Administrator) -> Response:
    return render(request, "admin/events.html", events=dock.events(100, reader=admin))


def _users_page(
    request: Request, dock: TheDock, admin: Administrator, page: int, alert: str = "", status: int = 200
) -> Response:
    found = dock.accounts.users(by=admin, page=page, limit=50)
    return render(request, "admin/users.html", status, shown=found, page=page, alert=alert)
