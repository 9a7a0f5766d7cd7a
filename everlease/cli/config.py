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
    """Everything a command may need; None where nobody said. Paths in files are relative to the file's folder."""

    market_url: str = DEFAULT_MARKET
    rpc_url: str | None = None
    key_file: Path | None = None
    password_file: Path | None = None
    deployments: Path | None = None
    docker_socket: Path | None = None
    private_key: str | None = None
    password: str | None = None


_SECRETS = {"private_key", "password"}
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
    known = {item.name for item in fields(Config)} - _SECRETS
    unknown = sorted(content.keys() - known)
    if unknown:
        raise CliError(
            ExitCode.INVALID, f"{path}: there is no setting {unknown[0]!r}; known are {', '.join(sorted(known))}"
        )
    return {key: path.parent / value if key in _PATHS else str(value) for key, value in content.items()}


def resolve(flags: Mapping[str, Any], environment: Mapping[str, str], start: Path, user: Path) -> Config:
    """Merge the layers; ``flags`` holds what was given on the command line, others None."""
    merged: dict[str, Any] = {}
    if user.is_file():
        merged |= read_file(user)
    project = project_file(start)
    if project is not None:
        merged |= read_file(project)
    for item in fields(Config):
        value = environment.get(f"EVERLEASE_{item.name.upper()}")
        if value:
            merged[item.name] = Path(value) if item.name in _PATHS else value
    merged |= {key: value for key, value in flags.items() if value is not None}
    return Config(**merged)


def load(flags: Mapping[str, Any]) -> Config:
    """`resolve` over this process's environment and folder."""
    return resolve(flags, os.environ, Path.cwd(), user_file())
