"""The first page: all learnwares, with filters and search in words; and search by a specification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Query, Request
from fastapi.responses import Response

from didact.reusing.dock.errors import DockError
from didact.reusing.dock.semantics import SemanticQuery
from didact.reusing.dock.service import SearchResult
from didact.reusing.dock.specification import Specification
from didact.web.api.readers import Reader
from didact.web.pages.forms import OWN_PAGE, PageNumber, state_of
from didact.web.rendering import render, wants_part
from didact.web.security import TheDock

router = APIRouter()
LIMIT = 20
FILTERS = ("data", "task", "library", "scenario")
Choice = Annotated[str, Query(max_length=100)]


class Filters:
    """The filters in the address; empty ones ask for nothing."""

    def __init__(
        self,
        text: Annotated[str, Query(max_length=1000)] = "",
        data: Choice = "",
        task: Choice = "",
        library: Choice = "",
        scenario: Choice = "",
    ) -> None:
        self.given = {"text": text.strip(), "data": data, "task": task, "library": library, "scenario": scenario}

    @property
    def empty(self) -> bool:
        return not any(self.given.values())

    def query(self) -> SemanticQuery:
        """Errors: BadSpecification for a word that is no tag."""
        asked: dict[str, Any] = {name: value for name, value in self.given.items() if value}
        if "scenario" in asked:
            asked["scenario"] = (asked["scenario"],)
        return SemanticQuery.parse(asked)


@dataclass(frozen=True)
class Shown:
    """A page of the list."""

    items: list[Any]
    total: int
    page: int
    pages: int


@router.get("/")
def browse(
    request: Request, dock: TheDock, reader: Reader, filters: Annotated[Filters, Depends()], page: PageNumber = 1
) -> Response:
    if filters.empty:
        found = dock.list(page=page, limit=LIMIT, reader=None if dock.settings.public else reader)
        shown = Shown([i for i in found.items if i.visible], found.total, page, found.pages)
    else:
        result = dock.search(filters.query(), limit=LIMIT, page=page, reader=reader)
        shown = Shown([hit.info for hit in result.single], result.total, page, max(1, -(-result.total // LIMIT)))
    context = {"shown": shown, "given": filters.given, "state_of": state_of}
    vary = {"Vary": "HX-Request"}
    if wants_part(request):
        return render(request, "dock/_results.html", headers=vary, **context)
    summary = dock.summary()
    options = {name: _options(dock.semantics()[name], summary.get(name, {})) for name in FILTERS}
    return render(request, "dock/browse.html", headers=vary, options=options, summary=summary, **context)


@router.get("/search")
def search_form(request: Request, dock: TheDock, reader: Reader) -> Response:
    return render(request, "dock/search.html", result=None, alert="", gamma=_gamma(dock), state_of=state_of)


@router.post("/search", dependencies=OWN_PAGE)
def search(
    request: Request, dock: TheDock, reader: Reader, specification: Annotated[bytes, File(max_length=16 * 2**20)]
) -> Response:
    """The nearest learnwares to the data that a specification describes."""
    result: SearchResult | None = None
    alert, status = "", 200
    try:
        result = dock.search(specification=Specification.loads(specification), limit=LIMIT, reader=reader)
    except DockError as error:
        alert, status = str(error), error.status
    return render(
        request, "dock/search.html", status, result=result, alert=alert, gamma=_gamma(dock), state_of=state_of
    )


def _options(words: list[str], counts: dict[str, int]) -> list[tuple[str, int]]:
    """The tags of one kind with how many learnwares have them; those that nobody has come last."""
    return sorted(((word, counts.get(word, 0)) for word in words), key=lambda option: option[1] == 0)


def _gamma(dock: Any) -> Any:
    return dock.semantics().get("gamma")
