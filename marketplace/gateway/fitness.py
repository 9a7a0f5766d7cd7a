"""Which nodes are asked to bid: capacity, runtime and user against the node's facts, and what a restore depends on."""

from collections.abc import Mapping
from typing import Any

from everlease.domain import compat
from everlease.domain.jobspec import JobSpec


def unfit(facts: Mapping[str, Any], spec: JobSpec, mode: str, requirements: Mapping[str, Any] | None) -> str | None:
    """Why a host can't take a job, in one clause, or None. ``requirements``: of the checkpoint it would restore."""
    try:
        reason = compat.lacks(facts, spec.resources)
        if mode == "process":
            reason = reason or compat.unproved(facts, spec) or compat.why_not(requirements, facts)
        return reason
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"the node's facts or the checkpoint's requirements are incomplete ({error})"
