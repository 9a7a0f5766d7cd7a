"""The disks that jobs fill: the agent's own, and the ones where Docker keeps layers and logs, which may be others."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONTAINERD = Path("/var/lib/containerd")
DOCKERS_OWN = "overlay2"
"""The storage driver whose layers are below Docker's own root; other ones are containerd's."""


def of_jobs(data: Path, info: Mapping[str, Any], containerd: Path = CONTAINERD) -> tuple[Path, ...]:
    """Folders whose disks hold dumps, blocks, layers, images and logs; ``info`` is `docker info` (Engine API,
    SystemInfo). A root that is not seen from here, as that of a Docker in a container or a snap, is left out.
    """
    roots = [Path(info.get("DockerRootDir") or "")]
    if info.get("Driver") != DOCKERS_OWN:
        roots.append(containerd)
    return (data, *(root for root in roots if root.is_absolute() and root.is_dir()))


def free(folders: tuple[Path, ...]) -> int:
    """Bytes free on the fullest of their disks, for another user than root; none where a disk is gone."""
    try:
        return min(shutil.disk_usage(folder).free for folder in folders)
    except OSError:
        return 0


def apart(folders: tuple[Path, ...]) -> list[Path]:
    """One folder of each disk."""
    by_device = {folder.stat().st_dev: folder for folder in reversed(folders)}
    return list(reversed(by_device.values()))
