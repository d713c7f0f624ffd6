"""What a dock tells, and whom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from didact.reusing.dock.accounts import User, require_admin
from didact.reusing.dock.errors import BadSpecification, NotFound, NotSignedIn
from didact.reusing.dock.paging import Page, offset
from didact.reusing.dock.records import DockSettings, Event, Found, FoundMixture, LearnwareInfo, SearchResult, Status
from didact.reusing.dock.search import SearchResult as Hits
from didact.reusing.dock.semantics import SemanticQuery, vocabulary
from didact.reusing.dock.service.across import Across
from didact.reusing.dock.service.catalogue import Catalogue
from didact.reusing.dock.specification import Gamma, Specification
from didact.reusing.dock.specification.columns import columns_of
from didact.reusing.dock.storage import Blobs, Learnwares, Store
from didact.reusing.dock.storage.tables import events

_RELATED = 25  # nearest learnwares whose inner products are kept


class Reading:
    """The methods of a dock that change nothing. `reader` is who asks; None: nobody who signed in."""

    settings: DockSettings
    store: Store
    blobs: Blobs
    learnwares: Learnwares
    gamma: Gamma
    across: Across
    _catalogue: Catalogue

    def search(
        self,
        query: SemanticQuery | None = None,
        specification: Specification | None = None,
        *,
        limit: int = 20,
        page: int = 1,
        mixture: Literal["greedy", "auto"] | None = "greedy",
        columns: Mapping[int, str] | Sequence[str] | None = None,
        across: bool = False,
        reader: User | None = None,
    ) -> SearchResult:
        """Usable learnwares that meet the query, the nearest to the specification first; on page 1 also a mixture.

        With `columns`, what the features of the user's table mean, tables with other columns are found when no
        learnware takes as many as the user's has; or at once with `across`, since as many need not be the same.

        Errors: `BadSpecification` "wrong-gamma", "incompatible" when nothing can be compared with the specification,
        and for columns that are not usable; `DockError` "bad-page" or "bad-limit"; `Conflict` "map-not-ready".
        """
        self._let_in(reader)
        start = offset(page, limit)
        if specification is not None:
            self.gamma.check(specification)
        found = self._search(query, specification, limit, mixture, start, columns, across)
        mixed = found.mixture if page == 1 else None
        infos = self._visible([*found.ids, *(mixed.ids if mixed else ())])
        return SearchResult(
            single=[Found(infos[hit.id], hit.score, hit.distance) for hit in found.single if hit.id in infos],
            mixture=FoundMixture([infos[id] for id in mixed.ids], mixed.weights, mixed.score, mixed.distance)
            if mixed and all(id in infos for id in mixed.ids)
            else None,
            total=found.total,
            searched=found.searched,
            page=page,
            limit=limit,
        )

    def _search(
        self,
        query: SemanticQuery | None,
        specification: Specification | None,
        limit: int,
        mixture: str | None,
        start: int,
        columns: Mapping[int, str] | Sequence[str] | None,
        across: bool,
    ) -> Hits:
        if specification is None or columns is None:
            if across or columns is not None:
                raise BadSpecification(
                    "missing", "A search across columns needs a specification and what its columns mean. Give both."
                )
            return self._catalogue.index().search(query, specification, limit, mixture, offset=start)
        described = columns_of(columns, specification)
        incompatible: BadSpecification | None = None
        if not across:
            try:
                return self._catalogue.index().search(query, specification, limit, mixture, offset=start)
            except BadSpecification as error:
                incompatible = error
        found = self.across.search(specification, described, query, limit, mixture, start)
        if found is not None:
            return found
        if incompatible is not None:
            raise incompatible
        return Hits(searched="heterogeneous")

    def similar(self, id: str, limit: int = 5, reader: User | None = None) -> list[Found]:
        """Usable learnwares trained on data like that of this one, nearest first. Errors: as `info`.

        Which are near is found out once for each learnware, when it becomes usable, and kept as inner products. The
        score is the cosine between the two specifications.
        """
        info = self.info(id, reader)
        products = self.learnwares.products(id, info.type)
        if not products and info.visible:
            self.relate(id)
            products = self.learnwares.products(id, info.type)
        norms = self.learnwares.self_products([id, *products])
        infos = self._visible([other for other in products if other in norms and id in norms])
        found = []
        for other, visible in infos.items():
            cosine = products[other] / math.sqrt(norms[id] * norms[other])
            distance = max(0.0, norms[id] - 2 * products[other] + norms[other])
            found.append(Found(visible, min(1.0, cosine), distance))
        return sorted(found, key=lambda each: (each.distance, each.info.id))[:limit]

    def relate(self, id: str) -> None:
        """Find the learnwares nearest to a usable one and keep the inner products with them."""
        specifications = self.learnwares.specifications(id)
        if not specifications:
            return
        own = specifications[0]
        try:
            near = self._catalogue.index().search(None, own, _RELATED + 1, None).single
        except BadSpecification:  # it was removed, and nothing else can be compared with it
            return
        distances = {hit.id: hit.distance for hit in near if hit.id != id and hit.distance is not None}
        norms = self.learnwares.self_products(distances)
        products = {other: 0.5 * (own.self_product + norms[other] - distances[other]) for other in norms}
        self.learnwares.store_products(id, own.type, products)

    def info(self, id: str, reader: User | None = None) -> LearnwareInfo:
        """A learnware. Errors: `NotFound` "no-learnware", also for those that are not for this reader."""
        self._let_in(reader)
        info = self.learnwares.get(id)
        if info is None or not (info.visible or owns(reader, info)):
            raise NotFound("no-learnware", f"There is no learnware {id[:40]!r}, or it is not for you to see.")
        return info

    def specification(self, id: str, reader: User | None = None) -> Specification:
        """The statistical specification of a learnware. Errors: as `info`."""
        self.info(id, reader)
        if not (found := self.learnwares.specifications(id)):
            raise NotFound("no-learnware", f"The learnware {id!r} was just removed.")
        return found[0]

    def download(self, id: str, reader: User | None = None) -> Path:
        """The package of a learnware, a file that is not to be changed. Errors: as `info`."""
        return self.blobs.path(self.info(id, reader).sha256)

    def log(self, id: str, reader: User | None = None) -> str:
        """What the checks of a learnware wrote; empty before the first. Errors: as `info`."""
        self.info(id, reader)
        return self.learnwares.log(id)

    def semantics(self) -> dict[str, Any]:
        """The vocabulary of semantic specifications, and what statistical ones are compared with here."""
        return {**vocabulary(), "gamma": self.gamma.to_json(), "max_upload": self.settings.max_upload}

    def summary(self) -> dict[str, Any]:
        """How much there is: "learnwares", "usable", "users", "bytes"; by "status"; of the usable by "types", "data",
        "task", "library" and "scenario"."""
        return {**self.learnwares.summary(), **self._catalogue.counts()}

    def events(self, limit: int = 50, *, reader: User | None = None) -> list[Event]:
        """What happened last, newest first. Errors: `NotSignedIn`, `NotAllowed` "not-admin"."""
        require_admin(reader)
        offset(1, limit)
        with self.store.reading() as connection:
            found = connection.execute(sa.select(events).order_by(events.c.id.desc()).limit(limit))
            return [Event(row.at, row.kind, row.user, row.learnware, row.about) for row in found]

    def _visible(self, ids: list[str]) -> dict[str, LearnwareInfo]:
        return {id: info for id, info in self.learnwares.many(ids).items() if info.visible}

    def _let_in(self, reader: User | None) -> None:
        if reader is None and not self.settings.public:
            raise NotSignedIn("missing-token", "This dock is for people with an account. Sign in first.")

    # Last, because in the class it hides the type of the same name.
    def list(
        self,
        *,
        mine: User | None = None,
        status: Status | None = None,
        page: int = 1,
        limit: int = 20,
        query: SemanticQuery | None = None,
        reader: User | None = None,
    ) -> Page[LearnwareInfo]:
        """Learnwares, newest first: those of the user `mine`; else all for admins; else what everybody may see.

        With `query` every row is looked at; `search` is quicker over what everybody may see.
        """
        self._let_in(mine or reader)
        start = offset(page, limit)
        owner_id = mine.id if mine else None
        visible = mine is None and not (reader and reader.is_admin)
        items, total = self.learnwares.list(
            visible=visible, owner_id=owner_id, status=status, query=query, start=start, limit=limit
        )
        return Page(items, total, page, limit)


def owns(user: User | None, info: LearnwareInfo) -> bool:
    """Whether a learnware is somebody's to see, change and remove in whatever state it is."""
    return user is not None and (user.is_admin or user.id == info.owner_id)
