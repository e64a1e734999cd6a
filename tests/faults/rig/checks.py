"""What must be true of a job after whatever happened to it, looked at through the REST interface."""

from dataclasses import dataclass
from typing import Any, Final

from tests.faults.rig.follower import Follower
from tests.faults.rig.rig import Rig, sha256_of

TIMED: Final = "images_per_second"  # the one curve that differs from run to run
Curves = dict[str, list[tuple[int, float]]]


@dataclass
class Ground:
    """The rig with what every job works on, and what a job gives that nothing happens to."""

    rig: Rig
    model: str
    dataset: str
    canonical: dict[str, Any]
    files: dict[str, str]
    curves: Curves
    stored: list[str]

    def submit(self, key: str | None = None) -> str:
        return self.rig.submit(self.model, self.dataset, key)


def make_ground(rig: Rig) -> Ground:
    model, dataset = rig.upload_model(), rig.upload_dataset()
    canonical = rig.wait_ready("models", model)
    rig.wait_ready("datasets", dataset)
    job_id = rig.submit(model, dataset)
    rig.wait(lambda: rig.get(f"/v1/jobs/{job_id}")["status"] in ("succeeded", "failed"))
    assert rig.job(job_id).status == "succeeded", rig.job(job_id).error
    files, curves = files_of(rig, job_id), curves_of(rig, job_id)
    return Ground(rig, model, dataset, canonical, files, curves, [path.name for path in rig.stored()])


def check_ended_once(ground: Ground, job_id: str, follower: Follower, attempts: int = 1) -> None:
    """In the right state, told without gaps or doubles, with one set of whole files and nothing else left."""
    rig = ground.rig
    job = rig.get(f"/v1/jobs/{job_id}")
    assert (job["status"], job["attempt"], job["error"]) == ("succeeded", attempts, None)
    assert len({warned["code"] for warned in job["warnings"]}) == len(job["warnings"])
    events = all_events(rig, job_id)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events].count("done") == 1
    assert events[-1]["type"] == "done"
    rig.wait(lambda: len(follower.events) == len(events), what="the whole story at the follower")
    assert [event["id"] for event in follower.events] == [event["id"] for event in events]
    assert files_of(rig, job_id) == ground.files
    assert curves_of(rig, job_id) == ground.curves
    assert b"<html" in rig.get(f"/v1/jobs/{job_id}/report")
    follower.close()
    row = rig.job(job_id)
    assert (row.lease_owner, row.lease_expires_at) == (None, None)
    rig.wait(lambda: not rig.scratch(), what="empty scratch folders")
    assert [path.name for path in rig.stored()] == ground.stored  # no checkpoint, no half-written file
    rig.client.delete(f"/v1/jobs/{job_id}").raise_for_status()


def all_events(rig: Rig, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    more = True
    while more:
        after = {"after": found[-1]["id"]} if found else {}
        page = rig.get(f"/v1/jobs/{job_id}/events", limit=100, **after)
        found += page["data"]
        more = page["has_more"]
    return found


def files_of(rig: Rig, job_id: str) -> dict[str, str]:
    """Names and hashes of a job's files; the bytes are downloaded and hashed."""
    listed = rig.get(f"/v1/jobs/{job_id}/artifacts", limit=100)["data"]
    found = {}
    for artifact in listed:
        content = rig.client.get(f"/v1/artifacts/{artifact['id']}/content").content
        assert (sha256_of(content), len(content)) == (artifact["sha256"], artifact["bytes"])
        found[artifact["name"]] = artifact["sha256"]
    assert len(found) == len(listed)
    return found


def curves_of(rig: Rig, job_id: str) -> Curves:
    curves = rig.get(f"/v1/jobs/{job_id}/metrics")
    return {
        name: [(point["step"], point["value"]) for point in points]
        for name, points in curves.items()
        if name != TIMED
    }
