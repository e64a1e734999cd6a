"""What an ASGI server loads: ``uvicorn app.asgi:app``. Reads the settings from the environment."""

from app.core.logging import configure_logging
from app.core.settings import load_settings
from app.main import create_app

settings = load_settings()
configure_logging(settings.log_level, settings.log_format)
app = create_app(settings)
