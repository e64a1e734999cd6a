"""What can go wrong, as exceptions. What the service says carries its problem document (RFC 9457)."""

from collections.abc import Mapping
from typing import Any


class BasisConvError(Exception):
    """The root of all of them."""

    hint: str | None = None


class ServiceError(BasisConvError):
    """The service refused or failed.

    `problem` is its problem document, `code` the stable code in it, `detail` the sentence with the numbers,
    `hint` what to do about it.
    """

    def __init__(self, problem: Mapping[str, Any], status: int | None = None) -> None:
        self.problem = dict(problem)
        self.status: int | None = status if status is not None else problem.get("status")
        self.code = str(problem.get("code", "unknown"))
        self.detail = str(problem.get("detail") or problem.get("title") or "No reason given.")
        self.hint = problem.get("hint")
        self.retry_after: float | None = None  # seconds that the service asked to wait
        super().__init__(f"{self.detail} {self.hint}" if self.hint else self.detail)


class AccessDenied(ServiceError):
    """The key is missing, unknown or revoked, or may not do that."""


class NotFound(ServiceError):
    """There is no such thing, or it belongs to somebody else."""


class RequestRefused(ServiceError):
    """The request itself is not valid: a field, a pattern, a target."""


class TooManyRequests(ServiceError):
    """The rate limit, still after waiting as long as the service asked for; or a quota is used up."""


class ServiceUnavailable(ServiceError):
    """The service, or a server behind it, did not answer properly, still after some tries."""


class Rejected(ServiceError):
    """An upload arrived, was looked at and cannot be used."""


class JobFailed(ServiceError):
    """A job ended as failed or cancelled; `job` is its id."""

    def __init__(self, job: str, status: str, problem: Mapping[str, Any] | None) -> None:
        self.job = job
        said = dict(problem or {"code": status, "detail": "Nobody gave a reason."})
        super().__init__({**said, "detail": f"The job {job} ended as {status}: {said.get('detail', '')}"})


class PlanFailed(ServiceError):
    """A plan could not be made."""


class ServerTooOld(BasisConvError):
    """The server does not know what was asked of it."""

    def __init__(self, url: str, what: str) -> None:
        self.hint = "Update the server, or do without."
        super().__init__(f"The server at {url} is older than this client: it has no {what}. {self.hint}")


class Unreachable(BasisConvError):
    """Nobody answers there, or the connection broke again and again."""

    def __init__(self, url: str, reason: str) -> None:
        self.hint = "Is the server running, and is the address right?"
        super().__init__(f"The server at {url} does not answer ({reason}). {self.hint}")


class NotSignedIn(BasisConvError):
    """No server or no key is known."""

    def __init__(self, reason: str) -> None:
        self.hint = "Run `basisconv login`, or set BASISCONV_SERVER and BASISCONV_API_KEY."
        super().__init__(f"{reason} {self.hint}")


class DownloadDamaged(BasisConvError):
    """The bytes that arrived are not the ones that the service lists."""


class UnsafeFile(BasisConvError):
    """A file that could run code when it is read; it was not read."""


class FileChanged(BasisConvError):
    """A file was changed while it was being sent."""


def error_of(problem: Mapping[str, Any], status: int) -> ServiceError:
    """The exception for an answer of this status."""
    kinds: dict[int, type[ServiceError]] = {
        400: RequestRefused,
        401: AccessDenied,
        403: AccessDenied,
        404: NotFound,
        422: RequestRefused,
        429: TooManyRequests,
    }
    kind = kinds.get(status, ServiceUnavailable if status >= 500 else ServiceError)
    return kind(problem, status)
