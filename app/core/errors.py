"""Errors as part of the product: each is a class with a stable code, a status and the numbers a user needs.

They leave the service as ``application/problem+json`` (RFC 9457) and are stored in the same form in the
``error`` column of whatever was rejected or failed.
"""

from typing import Any, ClassVar, TypeVar

Row = TypeVar("Row")

TYPE_BASE = "https://basisconv.dev/problems/"  # an identifier, not a page that must exist


class Problem(Exception):  # noqa: N818 - RFC 9457's own word
    """A refusal with a reason. Subclasses fix ``code``, ``status`` and ``title``."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong on our side"

    def __init__(
        self, detail: str, *, hint: str | None = None, headers: dict[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.headers = headers or {}
        self.extra = extra  # errors, layer, limit, achievable …: the members api.md names

    def document(self) -> dict[str, Any]:
        """The problem as JSON members, without ``request_id``, which the edge adds."""
        body: dict[str, Any] = {
            "type": TYPE_BASE + self.code,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.hint is not None:
            body["hint"] = self.hint
        return body | {name: value for name, value in self.extra.items() if value is not None}


class MalformedRequest(Problem):
    code, status, title = "malformed_request", 400, "The request cannot be read"


class ValidationFailed(Problem):
    code, status, title = "validation_failed", 422, "Some fields are not valid"


class IdempotencyConflict(Problem):
    code, status, title = "idempotency_conflict", 422, "This Idempotency-Key was used with another body"


class Unauthenticated(Problem):
    code, status, title = "unauthenticated", 401, "A valid API key is needed"


class Forbidden(Problem):
    code, status, title = "forbidden", 403, "This key may not do that"


class NotFound(Problem):
    code, status, title = "not_found", 404, "There is no such thing here"


def known(row: Row | None, noun: str, given: str) -> Row:
    """The row that was asked for; raises NotFound where there is none, as for another owner's."""
    if row is None:
        raise NotFound(f"There is no {noun} {given[:64]!r}.")
    return row


class InvalidState(Problem):
    code, status, title = "invalid_state", 409, "Not possible in the present state"


class UploadTooLarge(Problem):
    code, status, title = "upload_too_large", 413, "The file is over the limit"


class OffsetMismatch(Problem):
    code, status, title = "offset_mismatch", 409, "The upload goes on from another byte"


class UploadLocked(Problem):
    code, status, title = "upload_locked", 423, "Another request is writing to this upload"


class ChecksumMismatch(Problem):
    code, status, title = "checksum_mismatch", 460, "The bytes that came are not the ones that were sent"


class UnsupportedTusVersion(Problem):
    code, status, title = "unsupported_tus_version", 412, "This version of tus is not spoken here"


class UnsupportedMediaType(Problem):
    code, status, title = "unsupported_media_type", 415, "The body is of another type"


class RangeNotSatisfiable(Problem):
    code, status, title = "range_not_satisfiable", 416, "The file has no such part"


class MethodNotAllowed(Problem):
    code, status, title = "method_not_allowed", 405, "This address does not do that"


class QuotaExceeded(Problem):
    code, status, title = "quota_exceeded", 429, "The quota of this key is used up"


class RateLimited(Problem):
    code, status, title = "rate_limited", 429, "Too many requests"


class Overloaded(Problem):
    code, status, title = "overloaded", 503, "More requests than can be answered"


class Unavailable(Problem):
    code, status, title = "unavailable", 503, "A server behind this service does not answer"


# What an upload or a job can be refused for. 422 where the request itself tells, else stored in `error`.


class UnsupportedFormat(Problem):
    code, status, title = "unsupported_format", 422, "This kind of file is not accepted"


class UnsafeSerialization(Problem):
    code, status, title = "unsafe_serialization", 422, "This file could run code when it is read"


class ExternalDataNotAllowed(Problem):
    code, status, title = "external_data_not_allowed", 422, "The network's weights lie outside the file"


class UnsupportedOperator(Problem):
    code, status, title = "unsupported_operator", 422, "The network uses an operator we cannot read"


class MalformedModel(Problem):
    code, status, title = "malformed_model", 422, "The network is damaged or not valid"


class ImportMismatch(Problem):
    code, status, title = "import_mismatch", 422, "Our copy of the network gives other outputs"


class MalformedDataset(Problem):
    code, status, title = "malformed_dataset", 422, "The data set is damaged or not valid"


class ResourceLimit(Problem):
    code, status, title = "resource_limit", 422, "Looking at this file took more than it may"


class DatasetMismatch(Problem):
    code, status, title = "dataset_mismatch", 422, "The data set does not fit the network"


class TargetInfeasible(Problem):
    code, status, title = "target_infeasible", 422, "The target cannot be reached"


class ExportMismatch(Problem):
    code, status, title = "export_mismatch", 500, "An exported file gave other outputs than the network"


class OutOfMemory(Problem):
    code, status, title = "out_of_memory", 500, "The job needed more memory than there is"


class WorkerLost(Problem):
    code, status, title = "worker_lost", 500, "The worker was lost too often while it ran this"


class TimeLimit(Problem):
    code, status, title = "time_limit", 500, "The job ran past its time limit"


class Internal(Problem):
    pass


BY_CODE: dict[str, type[Problem]] = {
    cls.code: cls for cls in [*Problem.__subclasses__()] if cls.code != Problem.code
} | {Problem.code: Internal}


def problem_from(document: dict[str, Any]) -> Problem:
    """The error that a stored or transmitted problem document stands for; unknown codes become internal."""
    known = {"type", "title", "status", "detail", "code", "hint"}
    cls = BY_CODE.get(str(document.get("code")), Internal)
    extra = {name: value for name, value in document.items() if name not in known}
    return cls(str(document.get("detail", "")), hint=document.get("hint"), **extra)
