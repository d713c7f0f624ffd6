"""The page of one learnware: what it says about itself, its specification, its check, how to reuse it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import FileResponse, Response

from didact.reusing.dock.accounts import User
from didact.reusing.dock.errors import BadSpecification, NotAllowed
from didact.reusing.dock.semantics import LIBRARIES, LICENCES, SCENARIOS, SemanticSpecification
from didact.reusing.dock.service import LearnwareInfo
from didact.web.api.readers import Reader
from didact.web.pages.drawing import draw
from didact.web.pages.forms import OWN_PAGE, Text, see, state_of
from didact.web.rendering import render
from didact.web.security import SignedIn, TheDock

router = APIRouter(prefix="/learnwares")
PENDING = ("WAITING", "QUEUE", "PROCESSING")
MOST_LOG = 200_000  #: characters of a log that a page shows


@router.get("/{id}")
def learnware(request: Request, dock: TheDock, id: str, reader: Reader) -> Response:
    info = dock.info(id, reader)
    site = request.app.state.mail.site.rstrip("/") if request.app.state.mail else str(request.base_url).rstrip("/")
    return render(
        request,
        "dock/learnware.html",
        info=info,
        state=state_of(info),
        pending=info.status in PENDING,
        log=dock.log(id, reader)[-MOST_LOG:],
        drawing=draw(dock.specification(id, reader)),
        specification=dock.specification(id, reader),
        snippet=snippet(info, site, dock.settings.public),
        owns=owns(reader, info),
    )


@router.get("/{id}/status")
def status(request: Request, dock: TheDock, id: str, reader: Reader) -> Response:
    """The part of the page that changes while a check runs. When it is over, the whole page is loaded again."""
    info = dock.info(id, reader)
    pending = info.status in PENDING
    headers = {} if pending else {"HX-Refresh": "true"}
    return render(request, "dock/_status.html", headers=headers, info=info, state=state_of(info), pending=pending)


@router.get("/{id}/download")
def download(dock: TheDock, id: str, reader: Reader) -> Response:
    info = dock.info(id, reader)
    return FileResponse(dock.download(id, reader), media_type="application/zip", filename=f"{info.id}.zip")


@router.get("/{id}/edit")
def edit_form(request: Request, dock: TheDock, id: str, user: SignedIn) -> Response:
    return _edit_page(request, dock.info(id, user), user)


@router.post("/{id}/edit", dependencies=OWN_PAGE)
def edit(
    request: Request,
    dock: TheDock,
    id: str,
    user: SignedIn,
    name: Text = "",
    description: Text = "",
    library: Text = "Others",
    licence: Text = "Others",
    scenario: Annotated[list[str] | None, Form()] = None,
) -> Response:
    info = dock.info(id, user)
    changed = {"name": name, "description": description, "library": library, "licence": licence}
    try:
        semantic = SemanticSpecification.parse({**info.semantic.to_json(), **changed, "scenario": scenario or []})
        dock.update(id, semantic=semantic, by=user)
    except BadSpecification as error:
        return _edit_page(request, info, user, str(error), error.status, {**changed, "scenario": scenario or []})
    return see(f"/learnwares/{id}")


@router.post("/{id}/recheck", dependencies=OWN_PAGE)
def recheck(dock: TheDock, id: str, user: SignedIn) -> Response:
    dock.recheck(id, by=user)
    return see(f"/learnwares/{id}")


@router.get("/{id}/delete")
def delete_form(request: Request, dock: TheDock, id: str, user: SignedIn) -> Response:
    return render(request, "dock/delete.html", info=_own(dock.info(id, user), user))


@router.post("/{id}/delete", dependencies=OWN_PAGE)
def delete(dock: TheDock, id: str, user: SignedIn) -> Response:
    dock.delete(id, by=user)
    return see("/mine")


def snippet(info: LearnwareInfo, site: str, public: bool = True) -> str:
    """How to reuse a learnware in three lines."""
    client = f'DockClient("{site}")' if public else f'DockClient("{site}", token)'
    code = ", allow_code=True" if info.tier == "code" else ""
    given = "texts" if info.semantic.data == "Text" else "x"
    return (
        "from didact.reusing.dock import DockClient, load_package\n"
        f'learnware = load_package({client}.download("{info.id}"){code})\n'
        f"predictions = learnware.predict({given})"
    )


def owns(user: User | None, info: LearnwareInfo) -> bool:
    """May this user change it? (The dock decides; this only hides what it would refuse.)"""
    return user is not None and (user.is_admin or user.id == info.owner_id)


def _own(info: LearnwareInfo, user: User) -> LearnwareInfo:
    if not owns(user, info):
        raise NotAllowed("not-owner", f"The learnware {info.id!r} belongs to somebody else.")
    return info


def _edit_page(
    request: Request,
    info: LearnwareInfo,
    user: User,
    alert: str = "",
    status: int = 200,
    given: dict[str, object] | None = None,
) -> Response:
    return render(
        request,
        "dock/edit.html",
        status,
        info=_own(info, user),
        given=given or info.semantic.to_json(),
        alert=alert,
        libraries=LIBRARIES,
        licences=LICENCES,
        scenarios=SCENARIOS,
    )
