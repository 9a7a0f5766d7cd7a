"""Launches under way: what a wallet signed and has not seen paid for, so that a launch that broke off goes on.

One file (0600) for each in the wallet's folder, written before its order is posted and removed once the escrow holds
the deposit. How far it came is asked of the market and the chain, never kept. A running launch holds its file's lock:
what is locked is under way elsewhere, what is not broke off.
"""

import hashlib
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from everlease.domain.terms import Order
from everlease.durable import fsync_directory, private_folder
from everlease.locking import take
from everlease.wire.base import Address, Hex32
from everlease.wire.jobfile import JobFile
from everlease.wire.terms import OrderModel


class Launch(BaseModel):
    """``what``: digest of the job file's content and the image's id; ``source``: the job file's path, or empty;
    ``begun``: unix seconds."""

    model_config = ConfigDict(frozen=True)

    job_id: Hex32
    escrow: Address
    order: OrderModel
    what: str
    source: str
    begun: float


class Held:
    """A launch whose lock this process has; ``done`` or ``release`` ends that."""

    def __init__(self, launch: Launch, path: Path, descriptor: int) -> None:
        self.launch, self._path, self._descriptor = launch, path, descriptor

    @property
    def job_id(self) -> str:
        return self.launch.job_id

    @property
    def order(self) -> Order:
        return self.launch.order.to_domain()

    def done(self) -> None:
        """Nothing is left to do for it."""
        self._path.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Leave it to another launch; again is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def content_of(job: JobFile, image_id: str) -> str:
    """What tells one launch from another: the job file as it was read, and the image that Docker has for it."""
    return hashlib.sha256(f"{job.model_dump_json()} {image_id}".encode()).hexdigest()


class Launches:
    """The launches of one wallet, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, launch: Launch) -> Held:
        """Note a launch, durably, before its order leaves this machine."""
        private_folder(self._folder)
        path = self._folder / f"{launch.job_id}.json"
        part = path.with_name(f".{path.name}")
        descriptor = take(part)
        try:
            content = memoryview(launch.model_dump_json().encode())
            while content:
                content = content[os.write(descriptor, content) :]
            os.fsync(descriptor)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        fsync_directory(self._folder)
        return Held(launch, path, descriptor)

    def noted(self, escrow: str) -> list[Launch]:
        """Launches over this escrow, oldest first, whether they run or broke off."""
        found = (_read(path) for path in self._folder.glob("0x*.json"))
        return sorted((it for it in found if it is not None and it.escrow == escrow.lower()), key=lambda it: it.begun)

    def hold(self, launch: Launch) -> Held | None:
        """Go on with a launch that broke off; None where it runs elsewhere, or is done meanwhile."""
        return _hold(self._folder / f"{launch.job_id}.json")

    def has(self, job_id: str) -> bool:
        """Whether a launch of this job was noted, and not seen paid for."""
        return (self._folder / f"{job_id}.json").exists()

    def forget(self, job_id: str) -> None:
        """Nothing is left to do for this job, unless a launch of it is running."""
        path = self._folder / f"{job_id}.json"
        held = _hold(path) if path.exists() else None
        if held is not None:
            held.done()


def _read(path: Path) -> Launch | None:
    try:
        return Launch.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        held = _hold(path)
        if held is not None:
            held.release()
        return None


def _hold(path: Path) -> Held | None:
    """Locks this one file alone, and at once: what another launch looks for must not seem to run."""
    try:
        descriptor = take(path)
    except BlockingIOError:
        return None
    try:
        return Held(Launch.model_validate_json(path.read_bytes()), path, descriptor)
    except (OSError, ValidationError):
        # Made empty by the lock where its holder had just removed it, or damaged: nothing can go on from it.
        path.unlink(missing_ok=True)
        os.close(descriptor)
        return None
