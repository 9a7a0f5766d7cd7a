"""A job's files out of its last checkpoint: keys sealed to this process, blocks verified, archives unpacked safely."""

import base64
import os
import tarfile
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from nacl.public import PrivateKey, SealedBox

from everlease.cli.errors import CliError, ExitCode
from everlease.cli.market import Market
from everlease.domain.manifest import CID, Manifest
from everlease.store.http import HttpBlockStore
from everlease.store.manifest import read_manifest
from everlease.store.pipeline import restore
from everlease.store.sealing import JobKeys
from everlease.wire.http import OutputsOut

ARCHIVES = "files/"
MAX_BYTES = 1 << 40


@dataclass(frozen=True, slots=True)
class Fetched:
    """What arrived: which checkpoint, how many regular files, their bytes."""

    seq: int
    files: int
    size: int


def fetch_outputs(market: Market, job_id: str, target: Path, seq: int | None = None) -> Fetched:
    """Unpack the files of checkpoint ``seq``, else of the newest, into ``target``: its writable layer in upper/,
    /checkpoint in checkpoint/.

    Raises CliError where the target holds something, StoreError for damaged or missing blocks.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CliError(ExitCode.INVALID, f"{target} exists and is not an empty folder: name another with --to")
    reader = PrivateKey.generate()
    public = base64.urlsafe_b64encode(bytes(reader.public_key)).decode("ascii")
    grant = market.get(
        f"/v1/jobs/{job_id}/outputs", OutputsOut, params={"public_key": public} | ({} if seq is None else {"seq": seq})
    )
    keys = _open_keys(grant, job_id, reader)
    store = HttpBlockStore(grant.store_url, lambda: grant.store_token)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        manifest = _archives_only(read_manifest(store, CID(grant.manifest), keys).manifest)
        with tempfile.TemporaryDirectory(prefix=".everlease-outputs-", dir=target.parent) as folder:
            restored = Path(folder) / "checkpoint"
            restore(manifest, store, keys, restored, max_bytes=MAX_BYTES)
            files, size = unpack(restored / ARCHIVES, target)
    finally:
        store.close()
    return Fetched(grant.seq, files, size)


def _open_keys(grant: OutputsOut, job_id: str, reader: PrivateKey) -> JobKeys:
    box = SealedBox(reader)
    keys = {generation: box.decrypt(base64.b64decode(sealed)) for generation, sealed in grant.keys.items()}
    secret = box.decrypt(base64.b64decode(grant.dedup_secret))
    return JobKeys(grant.chain_id, grant.escrow, job_id, max(keys), keys, secret)


def _archives_only(manifest: Manifest) -> Manifest:
    """The manifest without the process images: memory of a job is nothing for a tenant's disk."""
    wanted = (entry for entry in manifest.entries if entry.kind == "file" and entry.path.startswith(ARCHIVES))
    entries = tuple(wanted)
    return replace(manifest, entries=entries)


def unpack(archives: Path, target: Path) -> tuple[int, int]:
    """Every NAME.tar of ``archives`` into ``target``/NAME; returns the count of regular files and their bytes.

    Archives come from strangers' hosts: nothing leaves the target, and devices (whiteouts among them) are left out.
    """
    target.mkdir(parents=True, exist_ok=True)
    files = size = 0
    for path in sorted(archives.glob("*.tar")):
        folder = target / path.stem
        folder.mkdir(exist_ok=True)
        with tarfile.open(path) as archive:
            harmless = _Harmless()
            # The filter looks at each member just before it is unpacked, when the links before it are there.
            archive.extractall(folder, filter=harmless)  # noqa: S202 - harmless() judges each member
        files += harmless.files
        size += harmless.size
    return files, size


class _Harmless:
    """Python's own rules for data, and besides nothing is written through a link of the archive."""

    def __init__(self) -> None:
        self.files = self.size = 0
        self._links: set[str] = set()

    def __call__(self, member: tarfile.TarInfo, target: str) -> tarfile.TarInfo | None:
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            return None
        name, aim = (os.path.normpath(path.lstrip("/")) for path in (member.name, member.linkname))
        if self._behind(name) or (member.islnk() and (aim in self._links or self._behind(aim))):
            return None
        try:
            checked = tarfile.data_filter(member, target)
        except tarfile.FilterError:
            return None
        if member.issym():
            self._links.add(name)
        else:
            # A name that comes twice: what was a link is replaced only by another link.
            if name in self._links:
                return None
        if member.isreg():
            self.files += 1
            self.size += member.size
        return checked

    def _behind(self, name: str) -> bool:
        parent = os.path.dirname(name)
        while parent:
            if parent in self._links:
                return True
            parent = os.path.dirname(parent)
        return False
