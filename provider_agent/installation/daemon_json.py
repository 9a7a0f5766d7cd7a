"""Docker's daemon.json with our runtime in it, and without it again. Pure: text in, text out."""

import json
from typing import Any

from provider_agent.installation.errors import HostRefused


def with_runtime(text: str | None, name: str, path: str) -> str:
    """The file with the runtime ``name`` at ``path``; all else stays, keys in their order. ``None``: there was no file.

    The same text comes back when the runtime is there already. Raises HostRefused for a file that is no JSON object.
    """
    config = _parse(text)
    runtimes = config.setdefault("runtimes", {})
    if not isinstance(runtimes, dict):
        raise HostRefused("'runtimes' in Docker's daemon.json is not an object: mend it first")
    if text is not None and runtimes.get(name) == {"path": path}:
        return text
    runtimes[name] = {"path": path}
    return _render(config, text)


def without_runtime(text: str, name: str, before: str | None) -> str | None:
    """The file as others left it, without our runtime; None when nothing is left and ``before`` there was no file."""
    config = _parse(text)
    runtimes = config.get("runtimes")
    if isinstance(runtimes, dict) and name in runtimes:
        del runtimes[name]
        if not runtimes and "runtimes" not in _parse(before):
            del config["runtimes"]
    if not config and before is None:
        return None
    return _render(config, text)


def _parse(text: str | None) -> dict[str, Any]:
    """Docker takes an empty file for an empty object."""
    if text is None or not text.strip():
        return {}
    try:
        config = json.loads(text)
    except ValueError as error:
        raise HostRefused(f"Docker's daemon.json is no valid JSON ({error}): mend it first") from error
    if not isinstance(config, dict):
        raise HostRefused("Docker's daemon.json is not an object: mend it first")
    return config


def _render(config: dict[str, Any], like: str | None) -> str:
    """As JSON with the indentation that the file had, 4 spaces where it had none."""
    lines = (like or "").splitlines()
    indents = [len(line) - len(line.lstrip()) for line in lines if line[:1] in " \t" and line.strip()]
    tabs = any(line.startswith("\t") for line in lines)
    return json.dumps(config, indent="\t" if tabs else (indents[0] if indents else 4), ensure_ascii=False) + "\n"
