"""``python -m app.openapi > docs/openapi.json``: the REST contract as a file."""

import json
import sys
from typing import Any

from pydantic import SecretStr

from app.core.settings import Settings
from app.main import build_services, create_app
from app.storage.store import memory_store


def document() -> dict[str, Any]:
    """The OpenAPI document. No server is contacted."""
    settings = Settings(
        database_url=SecretStr("postgresql+psycopg://nobody@127.0.0.1:1/none"),
        broker_url=SecretStr("redis://127.0.0.1:1/0"),
        secret_key=SecretStr("-" * 32),
    )
    return create_app(settings, build_services(settings, store=memory_store())).openapi()


def text() -> str:
    return json.dumps(document(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
