"""Searching: by words, by a specification of the user's data, or by both."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, File, Form, Request, Response

from didact.reusing.dock.errors import BadSpecification
from didact.reusing.dock.semantics import SemanticQuery
from didact.reusing.dock.specification import Specification
from didact.web.api.readers import Reader
from didact.web.api.schemas import Limit, PageNumber, SearchOut, errors
from didact.web.security import TheDock

router = APIRouter(tags=["search"])


@router.get("/semantics")
def semantics(dock: TheDock, reader: Reader) -> dict[str, Any]:
    """The words that a specification may use, and the kernel width of this dock for each type."""
    return dock.semantics()


class SearchForm:
    """The fields of a search, each of which may be left out."""

    def __init__(
        self,
        semantic: Annotated[str | None, Form(description="SemanticQuery as JSON.")] = None,
        specification: Annotated[bytes | None, File(description="stat.json: a Specification as JSON.")] = None,
        limit: Annotated[Limit, Form()] = 20,
        page: Annotated[PageNumber, Form()] = 1,
        mixture: Annotated[Literal["greedy", "auto", "none"], Form()] = "greedy",
        columns: Annotated[
            str | None, Form(description="What the table's columns mean: a JSON list, or an object by number.")
        ] = None,
        across: Annotated[bool, Form(description="Search tables with other columns at once; needs `columns`.")] = False,
    ) -> None:
        self.query = SemanticQuery.parse(_read(semantic, "semantic")) if semantic else None
        self.specification = Specification.loads(specification) if specification is not None else None
        self.columns = _read(columns, "columns") if columns else None
        self.across = across
        self.limit = limit
        self.page = page
        self.mixture: Literal["greedy", "auto"] | None = None if mixture == "none" else mixture


@router.post("/search", response_model=SearchOut, responses=errors(409, 413))
async def search(request: Request, dock: TheDock, reader: Reader, form: Annotated[SearchForm, Depends()]) -> Response:
    """The learnwares whose words meet the query, ranked by how near their data are to the user's.

    Only the specification is sent, never the data: build it where the data are. With `columns`, what the features of
    a table mean, tables with other columns are found where there are none with as many: `searched` says which.
    """

    def found() -> str:
        answer = dock.search(
            form.query,
            form.specification,
            limit=form.limit,
            page=form.page,
            mixture=form.mixture,
            columns=form.columns,
            across=form.across,
            reader=reader,
        )
        return SearchOut.of(answer).model_dump_json()

    # A search keeps a core busy. More at once than there are cores would only slow each other down, and take the
    # threads from requests that are answered at once.
    text = await to_thread.run_sync(found, limiter=request.app.state.search_limit)
    return Response(text, media_type="application/json")


def _read(text: str, field: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadSpecification("not-json", f"The field `{field}` must hold JSON, but this is not JSON.") from None
