"""Which nodes are asked to bid: capacity, runtime and user against the node's facts, and what a restore depends on."""

from collections.abc import Mapping
from typing import Any

from everlease.domain import compat
from everlease.domain.jobspec import JobSpec, Resources


def unfit(facts: Mapping[str, Any], spec: JobSpec, mode: str, requirements: Mapping[str, Any] | None) -> str | None:
    """Why a host can't take a job, in one clause, or None. ``requirements``: of the checkpoint it would restore."""
    try:
        reason = _lacks(facts, spec.resources)
        if mode == "process":
            reason = reason or compat.unproved(facts, spec) or compat.why_not(requirements, facts)
        return reason
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"the node's facts or the checkpoint's requirements are incomplete ({error})"


def _lacks(facts: Mapping[str, Any], resources: Resources) -> str | None:
    if len(facts["gpus"]) < resources.gpus:
        return f"the job wants {resources.gpus} GPUs, the host has {len(facts['gpus'])}"
    if int(facts["cores"]) * 1000 < resources.cpu_millis:
        return f"the job wants {resources.cpu_millis / 1000:g} CPUs, the host has {facts['cores']}"
    if int(facts["memory_bytes"]) < resources.memory_bytes:
        return f"the job wants {resources.memory_bytes} bytes of memory, the host has {facts['memory_bytes']}"
    if int(facts["disk_free_bytes"]) < resources.disk_bytes:
        return f"the job wants {resources.disk_bytes} bytes of disk, the host has {facts['disk_free_bytes']} free"
    return None
