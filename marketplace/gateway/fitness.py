"""Which nodes are asked to bid: capacity and runtime against the node's facts, and what a restore depends on."""

from collections.abc import Mapping
from typing import Any

from everlease.domain import compat
from everlease.domain.compat import HostTraits
from everlease.domain.jobspec import Resources


def unfit(
    facts: Mapping[str, Any], resources: Resources, mode: str, requirements: Mapping[str, Any] | None
) -> str | None:
    """Why a host can't take a job, in one clause, or None. ``requirements``: of the checkpoint it would restore."""
    try:
        return _lacks(facts, resources, mode) or _mismatch(facts, mode, requirements)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"the node's facts or the checkpoint's requirements are incomplete ({error})"


def host_traits(facts: Mapping[str, Any]) -> HostTraits:
    """What a process image would depend on, from a node's facts; raises KeyError or TypeError where they lack it."""
    gpus = facts.get("gpus") or [{}]
    return compat.traits_from(
        {
            **{name: facts[name] for name in ("cpu_vendor", "cpu_flags", "xsave_size", "kernel")},
            **{name: facts["runtime"][name] for name in ("criu", "runc", "cgroup")},
            "gpu_model": gpus[0].get("model", ""),
            "gpu_driver": facts.get("gpu_driver", ""),
        }
    )


def _lacks(facts: Mapping[str, Any], resources: Resources, mode: str) -> str | None:
    if len(facts["gpus"]) < resources.gpus:
        return f"the job wants {resources.gpus} GPUs, the host has {len(facts['gpus'])}"
    if int(facts["cores"]) * 1000 < resources.cpu_millis:
        return f"the job wants {resources.cpu_millis / 1000:g} CPUs, the host has {facts['cores']}"
    if int(facts["memory_bytes"]) < resources.memory_bytes:
        return f"the job wants {resources.memory_bytes} bytes of memory, the host has {facts['memory_bytes']}"
    if int(facts["disk_free_bytes"]) < resources.disk_bytes:
        return f"the job wants {resources.disk_bytes} bytes of disk, the host has {facts['disk_free_bytes']} free"
    if mode == "process" and not facts["runtime"]["process_mode"]:
        return str(facts["runtime"].get("reason") or "the host can't checkpoint processes")
    return None


def _mismatch(facts: Mapping[str, Any], mode: str, requirements: Mapping[str, Any] | None) -> str | None:
    if mode != "process" or requirements is None:
        return None
    return compat.mismatch(compat.traits_from(requirements), host_traits(facts))
