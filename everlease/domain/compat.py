"""Which hosts a process checkpoint can go on living on: what a restore depends on, matched against a host's facts."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostTraits:
    """What a process image depends on. ``cpu_flags`` are those of /proc/cpuinfo, ``xsave_size`` bytes of CPUID 0xD."""

    cpu_vendor: str
    cpu_flags: frozenset[str]
    xsave_size: int
    kernel: str
    criu: str
    runc: str
    cgroup: str
    gpu_model: str = ""
    gpu_driver: str = ""


def release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version ("6.18.44-fc" → (6, 18, 44)); empty where there are none."""
    numbers: list[int] = []
    for part in version.replace("-", ".").split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def mismatch(needs: HostTraits, has: HostTraits) -> str | None:
    """Why an image dumped on ``needs`` can't be restored on ``has``, in one clause; None if it can."""
    if needs.cpu_vendor != has.cpu_vendor:
        return f"the checkpoint needs a {needs.cpu_vendor} CPU, the host has {has.cpu_vendor}"
    missing = needs.cpu_flags - has.cpu_flags
    if missing:
        return f"the host's CPU lacks {', '.join(sorted(missing)[:5])}"
    if needs.xsave_size != has.xsave_size:
        return f"the CPU state takes {needs.xsave_size} bytes in the checkpoint, {has.xsave_size} on the host"
    if release(has.kernel)[:2] < release(needs.kernel)[:2]:
        return f"the host's kernel {has.kernel} is older than the checkpoint's {needs.kernel}"
    if release(has.criu)[:2] < release(needs.criu)[:2]:
        return f"the host's CRIU {has.criu} is older than the checkpoint's {needs.criu}"
    if needs.cgroup != has.cgroup:
        return f"the checkpoint needs cgroup {needs.cgroup}, the host has {has.cgroup}"
    if needs.gpu_model and (needs.gpu_model, needs.gpu_driver) != (has.gpu_model, has.gpu_driver):
        return f"the checkpoint needs {needs.gpu_model} with driver {needs.gpu_driver}"
    return None


def traits_from(requirements: Mapping[str, object]) -> HostTraits:
    """Read traits from a manifest's or a node's mapping; raises KeyError or TypeError where a field is missing."""
    flags = requirements["cpu_flags"]
    if isinstance(flags, str):
        flags = flags.split()
    if not isinstance(flags, list | tuple | frozenset):
        raise TypeError("cpu_flags is a list")
    return HostTraits(
        cpu_vendor=str(requirements["cpu_vendor"]),
        cpu_flags=frozenset(str(flag) for flag in flags),
        xsave_size=int(str(requirements["xsave_size"])),
        kernel=str(requirements["kernel"]),
        criu=str(requirements["criu"]),
        runc=str(requirements["runc"]),
        cgroup=str(requirements["cgroup"]),
        gpu_model=str(requirements.get("gpu_model", "")),
        gpu_driver=str(requirements.get("gpu_driver", "")),
    )
