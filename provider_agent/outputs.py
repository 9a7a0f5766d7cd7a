"""The last checkpoint of a job that ended well: what it wrote, as archives in a dump of mode ``files``."""

import json
import shutil
import time
from pathlib import Path

from provider_agent.runtime import oci
from provider_agent.runtime.checkpoint import DumpResult
from provider_agent.runtime.commands import last_line, run
from provider_agent.runtime.container import ContainerEngine
from provider_agent.runtime.errors import DumpFailed
from provider_agent.runtime.everlease_runc import replace_file

ARCHIVE_TIMEOUT_S = 1800.0


def archive(engine: ContainerEngine, container: str, target: Path) -> DumpResult:
    """files/upper.tar (the writable layer), files/checkpoint.tar, and one per volume of an exited container.

    ``target`` is replaced. Raises DumpFailed, ContainerFault.
    """
    began = time.monotonic()
    shutil.rmtree(target, ignore_errors=True)
    (target / "files").mkdir(parents=True, mode=0o700)
    for capture in oci.captures_of(engine.state, container):
        made = target / "files" / f"{capture.name}.tar"
        argv = ["tar", "--create", "--sparse", "--numeric-owner", "--acls", "--xattrs", "--xattrs-include=*"]
        argv += ["--warning=no-file-ignored", "--file", str(made), "--directory", str(capture.path), "."]
        done = run(argv, timeout=ARCHIVE_TIMEOUT_S)
        if done.returncode:
            full = "No space left" in done.stderr
            reason = "the host's disk is full" if full else f"the outputs can't be archived: {last_line(done.stderr)}"
            raise DumpFailed(container, reason, done.stderr[-4096:], retryable=True)
    size = sum(path.stat().st_size for path in (target / "files").iterdir())
    total = round(time.monotonic() - began, 4)
    record = {"path": target.name, "mode": "files", "pause_s": 0.0, "total_s": total, "bytes": size, "frozen": False}
    replace_file(str(target / "dump.json"), json.dumps(record))
    return DumpResult(target, "files", 0.0, total, size, False)
