"""Everything under ``/v1``, and the health endpoints."""

from fastapi import APIRouter

from app.api import health
from app.artifacts import endpoints as artifacts
from app.datasets import endpoints as datasets
from app.jobs import endpoints as jobs
from app.keys import endpoints as keys
from app.models import endpoints as models

router = APIRouter()
for part in (health, models, datasets, jobs, artifacts, keys):
    router.include_router(part.router)
router.include_router(keys.usage_router)

# Bodies that endpoints stream themselves, under limits of their own.
STREAMED = frozenset({"/v1/models", "/v1/datasets"})
