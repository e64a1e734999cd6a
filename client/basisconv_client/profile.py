"""Which server and which key: from the environment, else from what `basisconv login` stored."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from basisconv_client.errors import NotSignedIn

SERVER: Final = "BASISCONV_SERVER"
API_KEY: Final = "BASISCONV_API_KEY"


@dataclass(frozen=True)
class Profile:
    """A server and a key for it."""

    server: str
    api_key: str


def config_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the profile lies, after the XDG Base Directory Specification."""
    given = environment.get("XDG_CONFIG_HOME", "")
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".config"
    return base / "basisconv" / "profile.json"


def resolve(
    server: str | None = None, api_key: str | None = None, environment: Mapping[str, str] = os.environ
) -> Profile:
    """What was given, else the environment, else the stored profile. Raises NotSignedIn.

    A stored key is sent to the server it was stored for, and to no other.
    """
    server = server or environment.get(SERVER) or None
    api_key = api_key or environment.get(API_KEY) or None
    stored = None if server and api_key else load(environment)
    if server is None:
        if stored is None:
            raise NotSignedIn("No server is known.")
        server = stored.server
    server = server.rstrip("/")
    if api_key is None:
        if stored is None or stored.server != server:
            raise NotSignedIn(f"No key for {server} is known.")
        api_key = stored.api_key
    return Profile(server, api_key)


def load(environment: Mapping[str, str] = os.environ) -> Profile | None:
    file = config_file(environment)
    try:
        found = json.loads(file.read_text())
        return Profile(str(found["server"]), str(found["api_key"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotSignedIn(f"{file} cannot be read ({error}).") from error


def store(profile: Profile, environment: Mapping[str, str] = os.environ) -> Path:
    """Write the profile for its owner's eyes alone, whole or not at all."""
    file = config_file(environment)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump({"server": profile.server, "api_key": profile.api_key}, stream)
    return fresh.replace(file)


def forget(environment: Mapping[str, str] = os.environ) -> bool:
    """Delete the profile; whether there was one."""
    try:
        config_file(environment).unlink()
    except FileNotFoundError:
        return False
    return True
