"""docs/reference/options.md: what a request may say, from the models that check it."""

from pydantic import BaseModel

from app.batches.schemas import BatchCreate
from app.datasets.schemas import DatasetWishes
from app.jobs.options import JobCreate
from app.keys.schemas import KeyChange, KeyCreate
from app.models.schemas import ModelWishes
from app.plans.schemas import PlanCreate
from app.webhooks.schemas import WebhookCreate
from reference.tables import GENERATED, allowed, default, fields, meaning, table

HEAD = f"""# What a request may say

Every field of every body, with what may stand there and what is taken when it is left out. A dot leads into an object: `compression.target.macs` is `{{"compression": {{"target": {{"macs": 0.5}}}}}}`. A field that is not listed here is refused with its place, so nothing is misspelt in silence.

The [tutorial](../tutorial.md) shows them at work; [which target to choose](../howto/choose-a-target.md) helps with the most important one.

{GENERATED}
"""
BODIES: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("A job", "The body of `POST /v1/jobs`. [Its examples](rest.md#post-v1jobs).", JobCreate),
    ("A plan", "The body of `POST /v1/plans`. `compression` is [that of a job](#a-job).", PlanCreate),
    (
        "A batch",
        (
            "The body of `POST /v1/batches` as JSON: either `jobs`, or `models` with `grid` and `base`. "
            "[More about batches](../batches.md)."
        ),
        BatchCreate,
    ),
    (
        "A network",
        (
            "What goes beside `file` in the form of `POST /v1/models` (`input` as JSON text), or beside `upload` in "
            "its JSON."
        ),
        ModelWishes,
    ),
    (
        "Images",
        (
            "What goes beside `file` in the form of `POST /v1/datasets` (`classes` as JSON text), or beside `upload` "
            "in its JSON."
        ),
        DatasetWishes,
    ),
    ("A webhook", "The body of `POST /v1/webhooks`. [More about webhooks](../webhooks.md).", WebhookCreate),
    ("A new key", "The body of `POST /v1/keys`.", KeyCreate),
    ("A changed key", "The body of `PATCH /v1/keys/{key_id}`.", KeyChange),
)


def page() -> str:
    parts = [HEAD]
    for title, told, model in BODIES:
        parts.append(f"## {title}\n\n{told}\n")
        parts.append(described(model))
    return "\n".join(parts)


def described(model: type[BaseModel]) -> str:
    schema = model.model_json_schema()
    schemas = schema.get("$defs", {})
    rows = (
        (f"`{path}`", allowed(field, schemas), default(field, required=required), meaning(field, schemas))
        for path, field, required in fields(schema, schemas)
        if model is not PlanCreate or not path.startswith("compression.")
    )
    return table(("field", "allowed", "left out", "meaning"), rows)
