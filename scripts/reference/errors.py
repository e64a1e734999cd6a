"""docs/reference/errors.md: every code with its cause and its cure."""

from app.core.errors import BY_CODE
from app.web.wording import WARNINGS
from reference.tables import GENERATED, table

HEAD = f"""# Errors and warnings

Every error is `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)). Programs read `code`, people `detail` and `hint`; `request_id` finds the request in the logs. Where they apply there are `errors` (a JSON pointer and a sentence for each field), `layer`, `limit`, and `achievable` (the smallest share that can be reached).

Such an answer ([`api` as in the tutorial](../tutorial.md#with-curl)):

```sh run
api $URL/jobs/job_00000000000000000000000000 || true
```

```text output
{{"type": "https://basisconv.dev/problems/not_found", "title": "There is no such thing here", "status": 404, …}}
```

A rejected upload, a failed job and a failed plan hold the same document in their `error`.

{GENERATED}
"""

# Where a code is met, what the cause is, what helps.
REQUEST, UPLOAD, JOB, TUS = "request", "upload", "job, plan", "resumable upload"
TOLD: dict[str, tuple[str, str, str]] = {
    "malformed_request": (REQUEST, "The body is not JSON, or the form is cut.", "Send what the detail asks for; quote JSON in the shell with '…'."),
    "validation_failed": (REQUEST, "A field is unknown, missing, or not in its bounds.", "Correct what `errors` points at. [All fields](options.md)."),
    "idempotency_conflict": (REQUEST, "The same `Idempotency-Key` came with another body before.", "Take a new key for a new request."),
    "unauthenticated": (REQUEST, "There is no key, or it is unknown, revoked or expired.", "Send `Authorization: Bearer …`, or sign in with `basisconv login`."),
    "forbidden": (REQUEST, "The key lacks a scope (`read`, `write`, `admin`), or another site sent the request.", "Use a key with the scope that the detail names."),
    "not_found": (REQUEST, "The id or address is wrong, the thing was deleted, or it belongs to another owner.", "List what is there: `GET /v1/jobs`, `/v1/models` …"),
    "invalid_state": (REQUEST, "A network or data set is not `ready` yet, a job has ended already, or something is still in use.", "Wait for `ready`; delete jobs before the network that they used."),
    "method_not_allowed": (REQUEST, "This address knows other methods.", "Use one of those in the header `Allow`."),
    "unsupported_media_type": (REQUEST, "The body is of a type that this address does not take.", "Set `Content-Type` as the detail says."),
    "upload_too_large": (REQUEST, "The file or the body is over the limit.", "Send less, or raise `BASISCONV_MAX_MODEL_BYTES`, `BASISCONV_MAX_DATASET_BYTES` and the like ([settings](../settings.md))."),
    "quota_exceeded": (REQUEST, "The key's owner stores too much, or has too many jobs at once.", "Delete what is not needed, wait for jobs, or have the quota raised; `GET /v1/usage` shows it."),
    "rate_limited": (REQUEST, "The key sent too many requests in a minute.", "Wait as long as `Retry-After` says."),
    "range_not_satisfiable": (REQUEST, "The file has no such bytes.", "Ask for a part within its size, or for the whole."),
    "unavailable": (REQUEST, "PostgreSQL, the broker or the storage does not answer.", "Try again after `Retry-After` seconds; `GET /readyz` says what is wrong."),
    "overloaded": (REQUEST, "More requests are at work at once than this server takes (`BASISCONV_MAX_REQUESTS_AT_WORK`).", "Try again after `Retry-After` seconds; nothing of the request was done."),
    "offset_mismatch": (TUS, "The part begins at another byte than the server has reached.", "Ask with HEAD and go on from `Upload-Offset`; tus clients do."),
    "upload_locked": (TUS, "Another request is writing to this upload.", "Wait until it ends, then ask with HEAD."),
    "checksum_mismatch": (TUS, "Bytes were changed on their way, or the file is another than announced.", "Send the part again; look whether the file has changed."),
    "unsupported_tus_version": (TUS, "The client speaks another version of tus.", "Use a client of tus 1.0.0."),
    "unsupported_format": (UPLOAD, "The file is of a kind that is not read.", "Export to ONNX or `.pt2`; images as in [what is accepted](../formats.md)."),
    "unsafe_serialization": (UPLOAD, "The file is a pickle (`.pth`, `.pt`, `.pkl`, old `.npy`) and could run code.", "Export with `torch.onnx.export` or `torch.export.save`."),
    "external_data_not_allowed": (UPLOAD, "The ONNX file refers to weights in other files.", "Save it in one file: `onnx.save(onnx.load(path), path)`."),
    "unsupported_operator": (UPLOAD, "The network has an operator, a domain or control flow that is not read.", "Export the part of the network that works on images, without pre- and post-processing."),
    "malformed_model": (UPLOAD, "The file is damaged, contradicts itself, or has NaN or infinite weights (`layer` says where).", "Export it again; test it in ONNX Runtime first."),
    "import_mismatch": (UPLOAD, "The network as it was read gives other outputs than the file.", "Export it again, in `eval` mode; if it persists, report it with the file."),
    "malformed_dataset": (UPLOAD, "An image, an array, a name or a label in the data set is not what it should be.", "Correct the member that the detail names."),
    "resource_limit": (UPLOAD, "Reading the file took more time, memory or disk than it may.", "Send a smaller file; for honest large ones raise `BASISCONV_INSPECTION_BYTES` or `BASISCONV_INSPECTION_SECONDS`."),
    "dataset_mismatch": (JOB, "The images do not fit the network: channels, shape, or more classes than outputs.", "Set `input` of the network (shape, layout), or `classes` of the images."),
    "target_infeasible": (JOB, "Even the smallest pairs keep more than the target allows.", "Ask for `achievable` or more; leave fewer layers out. A plan tells it before."),
    "export_mismatch": (JOB, "A written file gave other outputs than the network in memory, and was not published.", "Leave that format out of `exports`; report it with the network."),
    "out_of_memory": (JOB, "The worker's machine or GPU has too little memory for it.", "A smaller `training.batch_size`, fewer or smaller images; or a larger worker."),
    "worker_lost": (JOB, "The worker, its machine or the job's process died in every attempt.", "Read the job's warnings: they hold its last words. Mostly memory or a full disk."),
    "time_limit": (JOB, "The job ran longer than a job may.", "Fewer epochs or images; or raise `BASISCONV_JOB_SECONDS`."),
    "internal": ("any", "A defect of ours.", "Try again; then report it with the `request_id` or the job's id."),
}  # fmt: skip

ADVICE = {
    "baseline_mismatch": "Nearly always the normalisation: give `input.mean`, `input.std` and `input.scale` as in training, or `classes` in the right order.",
    "target_missed": "Look at the result: how far is it off? Ask for a little less, or fine-tune.",
    "accuracy_limit_missed": "Fine-tune longer, or keep more; the target `accuracy_drop` searches for what can be kept.",
    "limit_not_judged": "Give images with labels: without them no accuracy can be measured.",
    "no_speed_up": "Fewer operations are not always less time. Use the target `latency`, measured on your machine.",
    "no_smaller_network": "Allow more loss, give more images, or fine-tune.",
    "few_held_back_images": "Give more images of the train part; 1,000 judge to about a point.",
    "nothing_replaced": "A lower target. The layers' [reasons](reasons.md) say why each stayed.",
    "learnable_limit_missed": "A lower target, or a higher `limits.learnable_params`.",
    "nothing_learned": "Look at labels and learning rate; train for more epochs.",
    "no_images": "Give images, labelled or not, for better fits and measured accuracy.",
}
# Told by jobs and plans too, and on no page under another name.
MORE = {
    "tuning_did_not_help": (
        "No epoch came closer to the original than the untuned network, which was kept",
        "More images or epochs, or another learning rate; or nothing, if the figures please.",
    ),
    "checkpoint_not_written": (
        "A checkpoint could not be written; the job goes on without it",
        "Free some room on the worker's disk.",
    ),
    "channels_converted": (
        "Grey images were made colour ones, or the other way round, as the network wants",
        "Nothing, if that is how it was trained.",
    ),
    "target_infeasible": (
        "Of a plan: no network meets the target; the smallest is shown",
        "Ask for `achievable` or more.",
    ),
    "expected_only": (
        "Of a plan for `accuracy_drop`: the size is expected, not judged",
        "A job judges real networks.",
    ),
}


def page() -> str:
    rows = ((f"`{code}`", str(cls.status), *TOLD[code]) for code, cls in BY_CODE.items())
    known = {code: (said, ADVICE[code]) for code, said in WARNINGS.items()} | MORE
    noted = ((f"`{code}`", *told) for code, told in known.items())
    return "\n".join(
        (
            HEAD,
            "## Errors\n",
            table(("code", "status", "of", "cause", "what helps"), sorted(rows, key=_place)),
            (
                "The status is that of an answer; in the `error` of an upload, job or plan it tells what an answer "
                "would have had.\n"
            ),
            "## Warnings\n",
            (
                "A job that succeeded may have something to say: `warnings` of the job, each with a `code` and a "
                "`detail` with the numbers.\n"
            ),
            table(("code", "meaning", "what helps"), noted),
        )
    )


def _place(row: tuple[str, ...]) -> int:
    return list(TOLD).index(row[0].strip("`"))
