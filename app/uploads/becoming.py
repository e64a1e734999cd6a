"""A whole file becomes a network or a data set, once for each Idempotency-Key."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from app.core.idempotency import answer_once, earlier_answer
from app.core.security import Caller
from app.core.unit import Services, Unit, transaction
from app.uploads import service, tus
from app.uploads.body import FromUpload
from app.uploads.multipart import Upload


@dataclass(frozen=True)
class Becoming:
    services: Services
    caller: Caller
    kind: tus.Kind
    key: str | None  # the request's Idempotency-Key

    def from_upload(self, asked: FromUpload, create: Callable[[Upload, Any], Any]) -> Any:
        """What `create` makes of a complete upload, or the answer that this key got before."""
        said = asked.model_dump(mode="json")
        with transaction(self.services) as unit:  # the upload of an earlier request with this key is gone
            earlier = earlier_answer(unit, self.caller.owner_id, self.key, self._route, said)
        if earlier is not None:
            return earlier
        upload_id, sha256 = asked.upload, asked.sha256
        with service.taken(self.services, self.caller, upload_id, kind=self.kind, sha256=sha256) as upload:
            return create(upload, said)

    def once(self, upload: Upload, said: Any, make: Callable[[Unit], BaseModel]) -> Any:
        """What `make` writes of the file, in its own transaction, or the answer that this key got before."""
        with transaction(self.services) as unit:

            def consume_and_make() -> BaseModel:
                service.consume(unit, self.services, upload)
                return make(unit)

            owner_id = self.caller.owner_id
            answer = answer_once(unit, owner_id, self.key, self._route, said, consume_and_make)
        self.services.metrics.upload_bytes.labels(self.kind).inc(upload.staged.bytes)
        return answer

    @property
    def _route(self) -> str:
        return f"POST /v1/{self.kind}s"
