"""Everything under ``/v1``, and the health endpoints."""

from typing import Final

from fastapi import APIRouter

from app.api import health
from app.artifacts import endpoints as artifacts
from app.batches import endpoints as batches
from app.datasets import endpoints as datasets
from app.jobs import endpoints as jobs
from app.keys import endpoints as keys
from app.models import architectures
from app.models import endpoints as models
from app.plans import endpoints as plans
from app.uploads import endpoints as uploads
from app.webhooks import endpoints as webhooks

# In this order an address is looked for, so what is asked most comes first.
ROUTERS: Final[tuple[APIRouter, ...]] = (
    jobs.router,
    batches.router,
    models.router,
    datasets.router,
    uploads.router,
    plans.router,
    artifacts.router,
    architectures.router,
    health.router,
    keys.router,
    keys.usage_router,
    webhooks.router,
)


def is_streamed(path: str) -> bool:
    """Whether the endpoint at this address streams its body itself, under limits of its own."""
    return path in {"/v1/models", "/v1/datasets", batches.PATH} or path.startswith(uploads.PATH)
