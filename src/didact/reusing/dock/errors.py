"""What can go wrong at a dock: every refusal has a name for machines, a sentence for people and an HTTP status."""

from __future__ import annotations

from typing import ClassVar

from didact.core.errors import BadInput, DidactError


class DockError(DidactError):
    """Base of all refusals of a dock. `code` names the reason for machines (`"zip-bomb"`)."""

    status: ClassVar[int] = 400

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class BadPackage(DockError, BadInput):
    """A learnware package that is refused before anything in it is run."""


class BadSpecification(DockError, BadInput):
    """A semantic or statistical specification that cannot be used."""

    status = 422


class NotSignedIn(DockError):
    """No token, or one that is expired, revoked or unknown."""

    status = 401


class NotAllowed(DockError):
    """The token is good, but its owner may not do this."""

    status = 403


class NotFound(DockError):
    """There is no such learnware, upload or user, or it is not for this reader."""

    status = 404


class Conflict(DockError):
    """It is there already, or is in a state in which this cannot be done."""

    status = 409


class TooLarge(DockError, BadInput):
    """Beyond a limit of this dock."""

    status = 413


class TooMany(DockError):
    """More requests than this dock answers in the time given."""

    status = 429
