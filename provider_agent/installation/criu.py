"""Where CRIU is: the one that an agent was told of, or the one that was installed beside it as a wheel."""

import importlib
from pathlib import Path


def bundled() -> Path | None:
    """The binary of the wheel `everlease-criu` (scripts/criu_wheel.py builds it), None where it isn't installed."""
    try:
        wheel = importlib.import_module("everlease_criu")
    except ModuleNotFoundError:
        return None
    found = Path(wheel.path())
    return found if found.exists() else None
