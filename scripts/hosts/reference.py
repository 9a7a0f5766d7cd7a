"""What the job prints when nothing happens to it: computed once in a guest of the same CPU, kept by the program."""

import functools

from hosts.folders import locked
from hosts.guest import Guest
from hosts.images import BUILD, image_of
from hosts.kinds import KINDS
from hosts.payload import binary, parse

STEPS = 6000


def reference_file() -> str:
    """The lines of the quiet run. Raises GuestError."""
    file = binary().with_name(f"reference-{STEPS}")
    with locked(file.with_suffix(".lock")):
        if not file.exists():
            file.write_text(_quiet_run(), encoding="ascii")
    return file.read_text(encoding="ascii")


def _quiet_run() -> str:
    guest = Guest("reference", BUILD / "guests" / "reference")
    guest.create(image_of(KINDS["debian12-6.1"]))
    try:
        guest.start()
        guest.put(binary(), "/root")
        return guest.must(f"/root/chain {STEPS} 0", timeout_s=900)
    finally:
        guest.remove()


@functools.cache
def reference() -> dict[int, str]:
    """Step → hash."""
    return {step.number: step.hash for step in map(parse, reference_file().splitlines()) if step is not None}
