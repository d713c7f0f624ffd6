"""What the dock is told and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from didact.reusing.dock.errors import Conflict
from didact.reusing.dock.semantics import SemanticSpecification

if TYPE_CHECKING:
    from didact.reusing.dock.sandbox import Sandbox
    from didact.reusing.dock.specification import Gamma
    from didact.reusing.dock.specification.heterogeneous import FitTableMap

Status = Literal["WAITING", "QUEUE", "PROCESSING", "SUCCESS", "FAIL"]
STATUSES: tuple[Status, ...] = ("WAITING", "QUEUE", "PROCESSING", "SUCCESS", "FAIL")


@dataclass(frozen=True, kw_only=True)
class DockSettings:
    """How a dock is run. Only `folder` must be given."""

    folder: Path  #: where packages and half-sent uploads are kept (and the database, unless `url` is given)
    url: str | None = None  #: SQLAlchemy URL of the database; default an SQLite file in `folder`
    gamma: Gamma | float | None = None  #: kernel widths that it compares with; a number is that of tables
    public: bool = True  #: search, look and download without an account
    registration: Literal["open", "closed"] = "open"  #: whether anybody may make an account
    token_days: float = 90.0  #: how long a token is good for, unless another time is asked for
    code: bool = True  #: whether packages with code of their own are taken (they run in a sandbox only)
    max_upload: int = 2**30  #: bytes of the largest package
    quota: int = 20 * 2**30  #: bytes of all packages of one user together
    open_uploads: int = 8  #: uploads of one user that may be under way at once
    upload_hours: float = 48.0  #: an upload that nobody continues for so long is forgotten
    queue_per_owner: int = 10  #: learnwares of one owner in the queue at once; the rest wait, so that others get a turn
    check_workers: int = 1  #: checks that run at once
    lease: float = 60.0  #: seconds without a sign of life after which another checker takes an item over
    max_attempts: int = 10  #: checkers that may die over one learnware before it is given up
    sandbox: Sandbox | None = None  #: where uploads are run; default `Sandbox()`
    table_map: FitTableMap | None = None  #: how tables are made comparable across columns; default `FitTableMap()`
    map_wait: float = 2.0  #: seconds that a search across columns waits for a dock's first map


@dataclass(frozen=True)
class LearnwareInfo:
    """What is known about a learnware."""

    id: str
    owner: str  #: name of the user who submitted it; empty when there is none
    semantic: SemanticSpecification
    tier: Literal["safe", "code"]
    type: str  #: type of its statistical specification ("rkme-table")
    input_shape: tuple[int, ...]  #: of one input; () for a text, and while only the code knows
    output_shape: tuple[int, ...]  #: of one output; () for a label or a number, and while only the code knows
    status: Status
    usable: Literal[-1, 0, 1] | None  #: 1 usable, 0 not usable, -1 invalid, None not (yet) judged
    reason: str  #: why it failed, as a word for machines; empty otherwise
    sha256: str
    size: int  #: bytes of the package
    created: str  #: time in UTC, ISO 8601
    modified: str
    owner_id: int | None = None  #: not shown to others

    @property
    def visible(self) -> bool:
        """Whether everybody may find it, not only its owner and admins."""
        return self.status == "SUCCESS" and self.usable == 1

    def to_json(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "owner_id"}
        shapes = {"input_shape": list(self.input_shape), "output_shape": list(self.output_shape)}
        return {**values, **shapes, "semantic": self.semantic.to_json()}


@dataclass(frozen=True)
class Upload:
    """A package on its way: the next chunk is expected at `offset`; at `size` it is complete."""

    sha256: str
    size: int
    offset: int

    @property
    def complete(self) -> bool:
        return self.offset == self.size


@dataclass(frozen=True)
class Event:
    """Something that happened at the dock, for its admins."""

    at: str
    kind: str
    user: str
    learnware: str
    about: dict[str, Any]


@dataclass(frozen=True)
class Found:
    """A learnware that a search brought up. Without a statistical specification `distance` is None."""

    info: LearnwareInfo
    score: float
    distance: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {"learnware": self.info.to_json(), "score": self.score, "distance": self.distance}


@dataclass(frozen=True)
class FoundMixture:
    """Learnwares that together fit the user's data, and how much of it each one covers (the weights sum to one)."""

    learnwares: Sequence[LearnwareInfo]
    weights: Sequence[float]
    score: float
    distance: float

    def to_json(self) -> dict[str, Any]:
        found = [info.to_json() for info in self.learnwares]
        return {"learnwares": found, "weights": list(self.weights), "score": self.score, "distance": self.distance}


@dataclass(frozen=True)
class SearchResult:
    """Single learnwares, best first, and a mixture when one fits better than each alone."""

    single: Sequence[Found]
    mixture: FoundMixture | None
    total: int  #: learnwares that passed, on all pages together
    searched: str  #: "semantic", "statistical", or "heterogeneous" (tables across columns)
    page: int = 1
    limit: int = 20

    def to_json(self) -> dict[str, Any]:
        return {
            "single": [found.to_json() for found in self.single],
            "mixture": self.mixture.to_json() if self.mixture else None,
            "total": self.total,
            "searched": self.searched,
            "page": self.page,
            "limit": self.limit,
        }


class Duplicate(Conflict):
    """This very package is here already. `learnware` is its id when the sender may know it, else empty."""

    def __init__(self, message: str, learnware: str = "") -> None:
        super().__init__("duplicate", message)
        self.learnware = learnware


class WrongOffset(Conflict):
    """A chunk does not begin where the last one ended. `offset` is where to go on."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__("wrong-offset", message)
        self.offset = offset
