"""What the API takes and gives, as the OpenAPI description shows it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from didact.reusing.dock.paging import LARGEST_LIMIT, LARGEST_PAGE, Page
from didact.reusing.dock.semantics import SemanticSpecification
from didact.reusing.dock.service import Found, FoundMixture, LearnwareInfo, SearchResult, Status, Upload

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the package, in lower-case hex.")]
PageNumber = Annotated[int, Field(ge=1, le=LARGEST_PAGE)]
Limit = Annotated[int, Field(ge=1, le=LARGEST_LIMIT)]
Id = Annotated[str, Path(pattern="^[A-Za-z0-9_-]{1,64}$", description="Id of a learnware.")]
Number = Annotated[int, Field(ge=1, le=2**53)]

MEANINGS = {
    400: "The content of the request cannot be used.",
    401: "No token, or one that is expired, revoked or unknown.",
    403: "The token's owner may not do this.",
    404: "There is no such thing, or it is not for this reader.",
    409: "It is there already, or is in a state in which this cannot be done.",
    413: "More bytes than this dock takes.",
    422: "The request is not as described, or a specification in it cannot be used.",
    429: "Too many requests in a short time.",
}


def encodable(text: str) -> str:
    """Refuse what no database or log can hold."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("Text must be valid Unicode, but half of a surrogate pair was given.")
    return text


def _plain(text: str) -> str:
    if any(ord(letter) < 32 for letter in text):
        raise ValueError("Text must be one line without control characters. Remove them.")
    return text


Line = Annotated[str, AfterValidator(encodable), AfterValidator(_plain)]


class ErrorOut(BaseModel):
    """Every refusal: a code for machines, a sentence for people."""

    error: str
    message: str
    offset: int | None = Field(default=None, description="Where an upload goes on, when a piece began elsewhere.")
    learnware: str | None = Field(default=None, description="The learnware that is this package already.")


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for its OpenAPI description."""
    return {status: {"model": ErrorOut, "description": MEANINGS[status]} for status in statuses}


class Strict(BaseModel):
    """What is taken in: nothing besides what is described."""

    model_config = ConfigDict(extra="forbid")


class LearnwareOut(BaseModel):
    """What is known about a learnware."""

    id: str
    owner: str
    semantic: SemanticSpecification
    tier: Literal["safe", "code"]
    type: str
    input_shape: list[int]
    output_shape: list[int]
    status: Status
    usable: Literal[-1, 0, 1] | None
    reason: str
    sha256: str
    size: int
    created: str
    modified: str

    @classmethod
    def of(cls, info: LearnwareInfo) -> LearnwareOut:
        return cls.model_validate(info.to_json())


class LearnwaresOut(BaseModel):
    """One page of learnwares."""

    items: list[LearnwareOut]
    total: int
    page: int
    limit: int

    @classmethod
    def of(cls, page: Page[LearnwareInfo]) -> LearnwaresOut:
        items = [LearnwareOut.of(info) for info in page.items]
        return cls(items=items, total=page.total, page=page.page, limit=page.limit)


class LogOut(BaseModel):
    """What the check wrote."""

    id: str
    log: str


class FoundOut(BaseModel):
    """A learnware that a search brought up."""

    learnware: LearnwareOut
    score: float
    distance: float | None

    @classmethod
    def of(cls, found: Found) -> FoundOut:
        return cls(learnware=LearnwareOut.of(found.info), score=found.score, distance=found.distance)


class MixtureOut(BaseModel):
    """Learnwares that together fit the user's data; the weights sum to one."""

    learnwares: list[LearnwareOut]
    weights: list[float]
    score: float
    distance: float

    @classmethod
    def of(cls, found: FoundMixture) -> MixtureOut:
        learnwares = [LearnwareOut.of(info) for info in found.learnwares]
        return cls(learnwares=learnwares, weights=list(found.weights), score=found.score, distance=found.distance)


class SearchOut(BaseModel):
    """Single learnwares, best first, and a mixture when one fits better than each alone."""

    single: list[FoundOut]
    mixture: MixtureOut | None
    total: int
    searched: str
    page: int
    limit: int

    @classmethod
    def of(cls, result: SearchResult) -> SearchOut:
        return cls(
            single=[FoundOut.of(found) for found in result.single],
            mixture=MixtureOut.of(result.mixture) if result.mixture else None,
            total=result.total,
            searched=result.searched,
            page=result.page,
            limit=result.limit,
        )


class UploadIn(Strict):
    """The package that is going to be sent."""

    sha256: Sha256
    size: int = Field(ge=1, le=2**53, description="Bytes of the whole package.")


class UploadOut(BaseModel):
    """A package on its way: the next piece is expected at `offset`; at `size` it is complete."""

    sha256: str
    size: int
    offset: int
    max_chunk: int = Field(description="Bytes of the largest piece that this dock takes at once.")

    @classmethod
    def of(cls, upload: Upload, max_chunk: int) -> UploadOut:
        return cls(sha256=upload.sha256, size=upload.size, offset=upload.offset, max_chunk=max_chunk)


class SubmissionIn(Strict):
    """A complete upload that is to become a learnware."""

    sha256: Sha256


class ChangeIn(Strict):
    """New words for a learnware. They are checked like those in its package."""

    semantic: dict[str, Any]
