"""What runc starts as `criu` where a job has a cgroup namespace of its own: CRIU, put into that namespace.

CRIU leaves the namespace alone when it must not manage cgroups (`manage-cgroups=ignore`), so restored tasks would live
in the host's and see its whole tree. A namespace's root is the cgroup that its maker is in, and runc moves CRIU into
the container's cgroup before it sends the request; so this waits for the request, unshares, and becomes CRIU. Run as
`python3 -I -S criu_shim.py CRIU swrk FD`: the standard library alone.
"""

import ctypes
import os
import select
import sys

CLONE_NEWCGROUP = 0x02000000


def main(argv: list[str]) -> None:
    criu, *words = argv
    if words[:1] == ["swrk"]:
        # Readable too when runc is gone: CRIU then ends by itself.
        select.select([int(words[1])], [], [])
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWCGROUP):
            raise SystemExit(f"everlease: no cgroup namespace: {os.strerror(ctypes.get_errno())}")
    os.execv(criu, [criu, *words])  # noqa: S606 (this process becomes CRIU)


if __name__ == "__main__":
    main(sys.argv[1:])
