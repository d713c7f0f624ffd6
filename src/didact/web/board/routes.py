"""The board's pages."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from didact.core.errors import UnknownName
from didact.reusing.dock.errors import NotFound
from didact.web.board.measured import last_line
from didact.web.board.reader import Board
from didact.web.rendering import render, wants_part

router = APIRouter(prefix="/board")
PAGE = 40  #: news on one page


def the_board(request: Request) -> Board:
    """The board of this application, made with the first request that needs it."""
    state = request.app.state
    if getattr(state, "board", None) is None:
        state.board = Board(state.ledger_url)
    board: Board = state.board
    return board


TheBoard = Annotated[Board, Depends(the_board)]
Words = Annotated[str, Query(max_length=300)]


@router.get("")
def families(request: Request, board: TheBoard) -> Response:
    lines = board.families()
    return render(request, "board/families.html", families=lines, news=board.news(6))


@router.get("/families/{name}")
def family(request: Request, name: str, board: TheBoard) -> Response:
    try:
        line = board.family(name)
    except UnknownName as error:
        raise NotFound("not-found", str(error)) from None
    methods = board.methods(name) if line.built else []
    return render(request, "board/family.html", family=line, methods=methods, to_come=board.to_come(name))


@router.get("/methods/{slug}")
def method(request: Request, slug: str, board: TheBoard) -> Response:
    from didact.web.board.method import method_page  # brings torch and pandas, which a server should start without

    try:
        page = method_page(board, slug)
    except UnknownName as error:
        planned = next((entry for entry in board.catalogue if entry["slug"] == slug), None)
        if planned is None:
            raise NotFound("not-found", str(error)) from None
        return render(request, "board/planned.html", 404, planned=planned)
    return render(request, "board/method.html", page=page, last_line=last_line)


@router.get("/search")
def search(request: Request, board: TheBoard, q: Words = "") -> Response:
    found = board.search(q) if q.strip() else []
    name = "board/_found.html" if wants_part(request) else "board/search.html"
    return render(request, name, q=q, methods=found, headers={"Vary": "HX-Request"})


@router.get("/newest")
def newest(request: Request, board: TheBoard, page: Annotated[int, Query(ge=1, le=10_000)] = 1) -> Response:
    news = board.news()
    pages = max(1, -(-len(news) // PAGE))
    shown = news[(page - 1) * PAGE : page * PAGE]
    return render(request, "board/newest.html", news=shown, page=page, pages=pages)
