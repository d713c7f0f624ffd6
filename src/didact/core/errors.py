"""Errors that a user of didact can meet. Every message says what was expected, what was given, what to do."""

from __future__ import annotations


class DidactError(Exception):
    """Base of all errors raised on purpose by didact."""


class BadInput(DidactError, ValueError):
    """Data, a model or a hyperparameter is not what the method or command can work with."""


class NotApplicable(DidactError):
    """The method cannot be used on this problem (wrong kind of model, or the problem gives too little)."""


class UnknownName(DidactError, LookupError):
    """No method, problem, family or metric has this name."""


class MissingExtra(DidactError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"This needs the package {package!r}. Install it with: pip install 'didact[{extra}]'")
