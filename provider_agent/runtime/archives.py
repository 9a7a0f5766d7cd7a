"""Put an archived folder back, from a tar that a stranger's host may have written."""

import tarfile
from pathlib import Path, PurePosixPath

from provider_agent.runtime.commands import last_line, run
from provider_agent.runtime.errors import CheckpointRefused, ContainerFault

EXTRACT_TIMEOUT_S = 1800.0
MAX_LINKS = 1_000_000


def put_back(archive: Path, folder: Path) -> None:
    """Replace the folder's content by the archive's, with owners, modes, xattrs and overlay whiteouts.

    The folder itself stays (Docker and the mount refer to it). Raises CheckpointRefused, ContainerFault.
    """
    check(archive)
    empty = run(["find", str(folder), "-mindepth", "1", "-delete"], timeout=EXTRACT_TIMEOUT_S)
    if empty.returncode:
        raise ContainerFault("empty", str(folder), last_line(empty.stderr), retryable=True)
    # GNU tar strips leading slashes, refuses `..` and puts symlinks in place last, so nothing is written through one.
    argv = ["tar", "--extract", "--file", str(archive), "--directory", str(folder), "--numeric-owner", "--same-owner"]
    argv += ["--same-permissions", "--acls", "--xattrs", "--xattrs-include=*", "--delay-directory-restore"]
    done = run(argv, timeout=EXTRACT_TIMEOUT_S)
    if done.returncode:
        raise ContainerFault("unpack", archive.name, last_line(done.stderr), retryable="No space" in done.stderr)


def check(archive: Path) -> None:
    """Refuse members that leave the folder, and device nodes other than overlay's whiteout (character device 0:0)."""
    links: set[str] = set()
    try:
        with tarfile.open(archive, "r:") as members:
            for member in members:
                # tarfile would keep all of them.
                members.members = []  # type: ignore[attr-defined]
                if len(links) > MAX_LINKS:
                    raise CheckpointRefused(str(archive), f"it has more than {MAX_LINKS} links")
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise CheckpointRefused(str(archive), f"its member {member.name[:80]!r} lies outside the folder")
                if any(str(parent) in links for parent in name.parents):
                    raise CheckpointRefused(str(archive), f"its member {member.name[:80]!r} lies behind a link")
                if member.isblk() or (member.ischr() and (member.devmajor, member.devminor) != (0, 0)):
                    raise CheckpointRefused(str(archive), f"its member {member.name[:80]!r} is a device")
                target = PurePosixPath(member.linkname)
                if member.islnk() and (target.is_absolute() or ".." in target.parts):
                    raise CheckpointRefused(str(archive), f"its member {member.name[:80]!r} links outside the folder")
                if member.islnk() and str(target) in links:
                    links.add(str(name))
                if member.issym():
                    links.add(str(name))
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise CheckpointRefused(str(archive), f"it is damaged ({error})") from error
