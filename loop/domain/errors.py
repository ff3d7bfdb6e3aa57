"""One tree of errors. Each says what happened, why, and how to mend it.

HTTP maps the classes to status codes in one place, the command line to exit codes:
``BadInput`` 400 / exit 2, ``NotFound`` 404 / 2, ``Conflict`` 409 / 3, ``Refused`` 403 / 3,
``Unavailable`` 503 / 4, ``Corrupt`` 500 / 4.
"""

from __future__ import annotations


class TurnwiseError(Exception):
    """The base of every error that a user may see.

    ``what`` states the fact, ``why`` the cause where it is known, ``fix`` the next step.
    """

    code = "error"
    exit_code = 1

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.why, self.fix) if part)

    def as_dict(self) -> dict[str, str]:
        """The error envelope of the HTTP API and of ``--json``."""
        return {"code": self.code, "what": self.what, "why": self.why, "fix": self.fix}


class BadInput(TurnwiseError, ValueError):
    """The caller's data can't be used as it is; sending it again won't help."""

    code = "bad_input"
    exit_code = 2


class NotFound(TurnwiseError, LookupError):
    """Nothing has that name."""

    code = "not_found"
    exit_code = 2


class Conflict(TurnwiseError):
    """The state moved on: what the caller looked at is no longer what is there."""

    code = "conflict"
    exit_code = 3


class Refused(TurnwiseError, PermissionError):
    """A rule forbids it."""

    code = "refused"
    exit_code = 3


class Unavailable(TurnwiseError):
    """A part that is needed can't be had now; trying again later may help."""

    code = "unavailable"
    exit_code = 4

    def __init__(
        self, what: str, *, why: str = "", fix: str = "", retry_after_seconds: int = 5
    ) -> None:
        super().__init__(what, why=why, fix=fix)
        self.retry_after_seconds = retry_after_seconds


class Corrupt(TurnwiseError):
    """Stored data fails its own checks."""

    code = "corrupt"
    exit_code = 4
