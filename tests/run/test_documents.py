"""Files that are made from the code say what the code says."""

import subprocess
import sys
from pathlib import Path

from pydantic_core import PydanticUndefined

from app.core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def test_every_setting_is_documented_as_the_code_has_it() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts" / "settings_doc.py", "--check"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    page = (ROOT / "docs" / "settings.md").read_text()
    missing = [name for name in Settings.model_fields if f"`BASISCONV_{name.upper()}`" not in page]
    assert missing == []


def test_the_reference_is_what_the_code_says() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts" / "reference_doc.py", "--check"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


def test_no_secret_setting_has_a_default() -> None:
    secret = [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]
    assert {"database_url", "broker_url", "secret_key"} <= set(secret)
    defaults = {Settings.model_fields[name].default for name in secret}
    assert defaults <= {None, PydanticUndefined}
