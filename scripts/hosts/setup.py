"""What the bench of hosts needs beside the checkout's own set-up: QEMU and the makers of images, by apt-get.

Usage: PYTHONPATH=scripts python3 -m hosts.setup       Idempotent; needs root, as the images' making does.
"""

import os
import sys

from setup import install_packages, missing_packages
from steps import Step, StepFailed, run_steps

PACKAGES = {
    "qemu-system-x86": "qemu-system-x86_64",
    "qemu-utils": "qemu-img",
    "busybox-static": "busybox",
    "mmdebstrap": "mmdebstrap",
    "e2fsprogs": "mke2fs",
    "openssh-client": "ssh",
    "xz-utils": "xz",
    "gcc": "gcc",
    "libc6-dev": "gcc",
}
"""Debian package → a command that shows it is there."""


def main() -> int:
    """0 when guests can be made and booted here."""
    missing = " ".join(missing_packages(PACKAGES))
    hint = f"virtual machines need more packages: run 'apt-get install -y --no-install-recommends {missing}' as root"
    try:
        if os.geteuid() != 0:
            raise StepFailed("images are made, and their services listen, as root: run 'sudo make hosts'")
        step = Step("hosts", "QEMU", lambda log: install_packages(log, PACKAGES), hint=hint, salt=missing)
        run_steps([step])
    except StepFailed as error:
        print(f"Set-up failed. {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
