"""Put an archived folder back, from a tar that a stranger's host may have written."""

from pathlib import Path, PurePosixPath

from provider_agent.runtime.commands import last_line, run
from provider_agent.runtime.errors import CheckpointRefused, ContainerFault
from provider_agent.runtime.tar_members import BLOCK_DEVICE, CHARACTER, LINK, SYMLINK, Member, members

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
    """Refuse members that leave the folder, and device nodes other than overlay's whiteout (character device 0:0).

    An archive of which another reader could see more than we do is refused whole (tar_members.py).
    """
    links: set[str] = set()
    try:
        for member in members(archive):
            if len(links) > MAX_LINKS:
                raise CheckpointRefused(str(archive), f"it has more than {MAX_LINKS} links")
            reason = _reason(member, links)
            if reason:
                raise CheckpointRefused(str(archive), f"its member {member.names[-1][:80]!r} {reason}")
    except ValueError as error:
        raise CheckpointRefused(str(archive), f"it is damaged ({error})") from error


def _reason(member: Member, links: set[str]) -> str | None:
    """Why a member may not be unpacked; `links` are the names of the symlinks so far."""
    paths = [PurePosixPath(name) for name in member.names]
    targets = [PurePosixPath(target) for target in member.targets]
    if any(path.is_absolute() or ".." in path.parts for path in paths):
        return "lies outside the folder"
    if any(str(parent) in links for path in paths for parent in path.parents):
        return "lies behind a link"
    if member.kind == BLOCK_DEVICE or (member.kind == CHARACTER and member.device != (0, 0)):
        return "is a device"
    if member.kind == LINK and any(target.is_absolute() or ".." in target.parts for target in targets):
        return "links outside the folder"
    if member.kind == SYMLINK or (member.kind == LINK and any(str(target) in links for target in targets)):
        links.update(str(path) for path in paths)
    return None
