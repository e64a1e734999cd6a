"""What can be done with uploaded data sets."""

from app.core.errors import InvalidState, NotFound, known
from app.core.ids import new_id
from app.core.security import Caller
from app.core.unit import Services, Unit
from app.datasets import repository
from app.datasets.sniff import sniff
from app.datasets.tables import Dataset
from app.jobs import usage
from app.keys import quotas
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
    requested_classes: dict[str, int] | None,
) -> Dataset:
    """A row for the uploaded file, to be inspected. Raises what the file's first bytes already rule out."""
    file_format = sniff(upload.head, upload.filename)
    quotas.require_bytes(unit.session, caller, upload.staged.bytes, unit.now)
    lock_object(unit.session, upload.staged.sha256)
    store.keep(upload.staged)
    dataset = Dataset(
        id=new_id("dataset", unit.now),
        owner_id=caller.owner_id,
        name=name or upload.filename.split(".", 1)[0] or "images",
        format=file_format,
        status="inspecting",
        bytes=upload.staged.bytes,
        sha256=upload.staged.sha256,
        requested_classes=requested_classes,
        created_at=unit.now,
    )
    unit.session.add(dataset)
    unit.session.flush()
    unit.ring("worker.inspect_dataset", dataset)
    return dataset


def get(unit: Unit, caller: Caller, dataset_id: str) -> Dataset:
    return known(repository.find(unit.session, caller.owner_id, dataset_id), "data set", dataset_id)


def get_ready(unit: Unit, caller: Caller, dataset_id: str) -> Dataset:
    """A data set that a job may use, kept from being deleted until the job stands."""
    return usable(repository.find_to_use(unit.session, caller.owner_id, dataset_id), dataset_id)


def usable(dataset: Dataset | None, dataset_id: str) -> Dataset:
    """The data set, if there is one and it is ready. Raises NotFound or InvalidState."""
    if dataset is None:
        raise NotFound(f"There is no data set {dataset_id[:64]!r}.")
    if dataset.status != "ready":
        raise InvalidState(
            f"The data set {dataset.id} is {dataset.status}, not ready.",
            hint="Wait for its inspection." if dataset.status == "inspecting" else "Its `error` says why.",
        )
    return dataset


def delete(unit: Unit, services: Services, caller: Caller, dataset_id: str) -> None:
    """Delete a data set that no job uses, with plans on it; objects no other row shares follow the commit."""
    dataset = known(
        repository.find_to_delete(unit.session, caller.owner_id, dataset_id), "data set", dataset_id
    )
    usage.refuse_if_used(unit.session, f"The data set {dataset.id}", dataset_id=dataset.id)
    hashes = [dataset.sha256, dataset.canonical_sha256]
    hashes += plans.measured_objects(unit.session, dataset_id=dataset.id)
    unit.session.delete(dataset)
    unit.after_commit(lambda: release_objects(services.sessions, services.store, hashes))
