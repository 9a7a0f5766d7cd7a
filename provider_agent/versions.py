"""The versioned copy of what runs beside the agent: STATE/code/DIGEST, kept for as long as anything uses it.

Guards and the OCI runtime run from here, so that neither an upgrade of the agent nor its removal pulls their code away.
A copy is in use while a container's folder or the host guard names it.
"""

import hashlib
import os
import shutil
from pathlib import Path

from provider_agent import guard
from provider_agent.runtime import criu_shim, everlease_runc, rootfs

FREEZE = """#!/bin/sh
# FOLDER: freeze its container now. Run by whoever sees its guard die; sh alone, and no lock.
. "$1/guard.env" && echo "$frozen" >"$control"
"""


def sources() -> dict[str, str]:
    """What a copy holds: file name and text."""
    here = Path(guard.__file__).resolve().parent
    found = {name: (here / name).read_text(encoding="utf-8") for name in ("guard.py", "hostguard.py")}
    for module in (everlease_runc, rootfs, criu_shim):
        path = Path(str(module.__file__))
        found[path.name] = path.read_text(encoding="utf-8")
    return found | {"freeze.sh": FREEZE}


def install(state: Path) -> Path:
    """The copy of the present code, made unless it is there."""
    texts = sources()
    digest = hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()[:16]
    folder = state.resolve() / "code" / digest
    if not folder.is_dir():
        part = folder.with_name(f"{digest}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, text in texts.items():
            everlease_runc.replace_file(str(part / name), text)
        os.replace(part, folder)
    return folder


def collect(state: Path) -> tuple[Path, ...]:
    """Delete the copies that nothing names any more; their paths."""
    texts = [path.read_text(encoding="utf-8") for path in state.glob("containers/*/guard.env")]
    texts += [path.read_text(encoding="utf-8") for path in (state / "guard.env",) if path.exists()]
    current = install(state)
    old = [path for path in (state.resolve() / "code").iterdir() if path != current]
    unused = tuple(path for path in old if not any(str(path) in text for text in texts))
    for path in unused:
        shutil.rmtree(path, ignore_errors=True)
    return unused
