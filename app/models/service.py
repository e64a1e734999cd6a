"""What can be done with uploaded networks."""

from app.core.errors import InvalidState, NotFound, known
from app.core.ids import new_id
from app.core.security import Caller
from app.core.unit import Services, Unit
from app.jobs import usage
from app.keys import quotas
from app.models import repository
from app.models.architectures import require_known
from app.models.schemas import InputRequest
from app.models.sniff import sniff
from app.models.tables import Model
from app.plans import repository as plans
from app.storage.references import lock_object, release_objects
from app.storage.store import Store
from app.uploads.multipart import Upload


def create(
    unit: Unit,
    store: Store,
    caller: Caller,
    upload: Upload,
    *,
    name: str | None,
    requested_input: InputRequest,
    architecture: str | None,
) -> Model:
    """A row for the uploaded file, to be inspected. Raises what the file's first bytes already rule out."""
    file_format = sniff(upload.head, upload.filename)
    require_known(file_format, architecture, upload.head)
    quotas.require_bytes(unit.session, caller, upload.staged.bytes, unit.now)
    lock_object(unit.session, upload.staged.sha256)
    store.keep(upload.staged)
    model = Model(
        id=new_id("model", unit.now),
        owner_id=caller.owner_id,
        name=name or upload.filename.rsplit(".", 1)[0] or "network",
        format=file_format,
        architecture=architecture,
        status="inspecting",
        bytes=upload.staged.bytes,
        sha256=upload.staged.sha256,
        requested_input=requested_input.model_dump(exclude_none=True),
        created_at=unit.now,
    )
    unit.session.add(model)
    unit.session.flush()
    unit.ring("worker.inspect_model", model)
    return model


def get(unit: Unit, caller: Caller, model_id: str) -> Model:
    return known(repository.find(unit.session, caller.owner_id, model_id), "model", model_id)


def get_ready(unit: Unit, caller: Caller, model_id: str) -> Model:
    """A model that a job may use, kept from being deleted until the job stands."""
    return usable(repository.find_to_use(unit.session, caller.owner_id, model_id), model_id)


def usable(model: Model | None, model_id: str) -> Model:
    """The model, if there is one and it is ready. Raises NotFound or InvalidState."""
    if model is None:
        raise NotFound(f"There is no model {model_id[:64]!r}.")
    if model.status != "ready":
        raise InvalidState(
            f"The model {model.id} is {model.status}, not ready.",
            hint="Wait for its inspection." if model.status == "inspecting" else "Its `error` says why.",
        )
    return model


def delete(unit: Unit, services: Services, caller: Caller, model_id: str) -> None:
    """Delete a model that no job uses, with its plans; objects that no other row shares follow the commit."""
    model = known(repository.find_to_delete(unit.session, caller.owner_id, model_id), "model", model_id)
    usage.refuse_if_used(unit.session, f"The model {model.id}", model_id=model.id)
    hashes = [model.sha256, model.canonical_sha256]
    hashes += plans.measured_objects(unit.session, model_id=model.id)
    unit.session.delete(model)
    unit.after_commit(lambda: release_objects(services.sessions, services.store, hashes))


def layers(model: Model) -> list[dict[str, object]]:
    """The layer table, which exists once the network is ready."""
    if model.layers is None:
        raise InvalidState(
            f"The model {model.id} is {model.status}; its layers are known once it is ready.",
            hint="Wait for its inspection." if model.status == "inspecting" else "Its `error` says why.",
        )
    return model.layers
