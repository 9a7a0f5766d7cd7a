"""Where a command finds the market, the chain and the key: flag > environment > project file > user file > default."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import platformdirs

from everlease.cli.errors import CliError, ExitCode

PROJECT_FILES = ("everlease.toml", ".everlease/everlease.toml")
DEFAULT_MARKET = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a command may need; None where nobody said. Paths in files are relative to the file's folder.

    ``password_of``: the keystore that the password or password file is for; None where it is for any.
    """

    market_url: str = DEFAULT_MARKET
    rpc_url: str | None = None
    key_file: Path | None = None
    password_file: Path | None = None
    deployments: Path | None = None
    docker_socket: Path | None = None
    private_key: str | None = None
    password: str | None = None
    password_of: Path | None = None

    def password_is_for(self, keystore: Path) -> bool:
        """Whether the configured password or password file may be used for this keystore."""
        return self.password_of is None or self.password_of.resolve() == keystore.resolve()


_SECRETS = {"private_key", "password"}
_KEYS = {"key_file", "private_key"}
_PASSWORDS = {"password", "password_file"}
_SETTINGS = {item.name for item in fields(Config)} - {"password_of"}
_PATHS = {"key_file", "password_file", "deployments", "docker_socket"}


def user_file() -> Path:
    """The user's own configuration file."""
    return Path(platformdirs.user_config_dir("everlease")) / "config.toml"


def project_file(start: Path) -> Path | None:
    """The nearest project file in ``start`` or a folder above it."""
    for folder in (start, *start.parents):
        for name in PROJECT_FILES:
            if (folder / name).is_file():
                return folder / name
    return None


def read_file(path: Path) -> dict[str, Any]:
    """The settings in one TOML file; raises CliError where it is malformed or names what is no setting."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CliError(ExitCode.INVALID, f"{path} can't be read as TOML: {error}") from error
    known = _SETTINGS - _SECRETS
    unknown = sorted(content.keys() - known)
    if unknown:
        raise CliError(
            ExitCode.INVALID, f"{path}: there is no setting {unknown[0]!r}; known are {', '.join(sorted(known))}"
        )
    return {key: path.parent / value if key in _PATHS else str(value) for key, value in content.items()}


def resolve(flags: Mapping[str, Any], environment: Mapping[str, str], start: Path, user: Path) -> Config:
    """Merge the layers; ``flags`` holds what was given on the command line, others None."""
    project = project_file(start)
    merged: dict[str, Any] = {}
    for path in (user, project):
        if path is not None and path.is_file():
            content = read_file(path)
            merged = _over(merged, content, content.get("key_file", merged.get("key_file")))
    given = {name: environment.get(f"EVERLEASE_{name.upper()}") for name in _SETTINGS}
    said: dict[str, Any] = {name: Path(value) if name in _PATHS else value for name, value in given.items() if value}
    merged = _over(merged, said, said.get("key_file"))
    merged = _over(merged, {key: value for key, value in flags.items() if value is not None}, flags.get("key_file"))
    return Config(**merged)


def _over(below: dict[str, Any], layer: dict[str, Any], keystore: Path | None) -> dict[str, Any]:
    """One layer over those below: it says whose key as a whole, and which password, which is for ``keystore``."""
    hidden: set[str] = set()
    if layer.keys() & _KEYS:
        hidden |= _KEYS
    if layer.keys() & _PASSWORDS:
        hidden |= _PASSWORDS
        layer = {**layer, "password_of": keystore}
    return {key: value for key, value in below.items() if key not in hidden} | layer


def load(flags: Mapping[str, Any]) -> Config:
    """`resolve` over this process's environment and folder."""
    return resolve(flags, os.environ, Path.cwd(), user_file())
