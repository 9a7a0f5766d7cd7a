"""Requests to every explorer endpoint over rows of tests/support/explorer_rows.py: busy and rare, first and deep."""

import base64
import json
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from everlease.db.explorer import MAX_PAGE
from everlease.domain.lease import LeaseState
from tests.support import explorer_rows as rows

Draw = Callable[[random.Random], str]
"""A path under ``/v1/explorer``."""

_NAMES = ("LeaseOpened", "LeaseCollected", "Credited", "Withdrawn", "JobExtended")
_STATES = tuple(state.value for state in LeaseState if state is not LeaseState.NONE)


def requests(leases: int) -> dict[str, Draw]:
    """By a short name, what draws a request. Half of all pages are first ones, half begin anywhere."""
    sizes = rows.Sizes(leases)

    def some(chance: random.Random, among: int) -> int:
        """One of the three busiest, or any."""
        return chance.randint(1, 3) if chance.random() < 0.5 else chance.randint(1, among)

    def job(chance: random.Random) -> str:
        return rows.job(some(chance, sizes.jobs))

    def party(chance: random.Random) -> str:
        kinds = ((rows.provider, sizes.providers), (rows.node, sizes.nodes), (rows.tenant, sizes.tenants))
        kind, among = chance.choice(kinds)
        return rows.TREASURY if chance.random() < 0.2 else kind(some(chance, among))

    def lease(chance: random.Random) -> str:
        return rows.lease(chance.randrange(leases))

    def lease_key(chance: random.Random) -> list[Any]:
        number = chance.randrange(leases)
        return [number // 2, rows.lease(number)]

    def event_key(chance: random.Random) -> list[Any]:
        return [chance.randrange(sizes.blocks), chance.randrange(rows.EVENTS_OF_BLOCK)]

    def stake_key(chance: random.Random) -> list[Any]:
        number = chance.randint(1, sizes.providers)
        return [number * 7919 % 100003, rows.provider(number)]

    def pages(path: str, key: Draw | Callable[[random.Random], list[Any]], **filters: Draw) -> Draw:
        def draw(chance: random.Random) -> str:
            asked = {name: value(chance) for name, value in filters.items()}
            if chance.random() < 0.5:
                asked["after"] = after(key(chance))
            if chance.random() < 0.2:
                asked["limit"] = str(MAX_PAGE)
            return f"{path}?{urlencode(asked)}"

        return draw

    def state(chance: random.Random) -> str:
        return chance.choice(_STATES)

    def provider(chance: random.Random) -> str:
        return rows.provider(some(chance, sizes.providers))

    def name(chance: random.Random) -> str:
        return chance.choice(_NAMES)

    return {
        "leases": pages("/leases", lease_key),
        "leases of a state": pages("/leases", lease_key, state=state),
        "leases of a provider": pages("/leases", lease_key, provider=provider),
        "leases of a provider and state": pages("/leases", lease_key, provider=provider, state=state),
        "leases of a job": pages("/leases", lambda chance: [chance.randint(1, 1000)], job_id=job),
        "lease": lambda chance: f"/leases/{lease(chance)}",
        "events": pages("/events", event_key),
        "events of a name": pages("/events", event_key, name=name),
        "events of a job": pages("/events", event_key, job_id=job),
        "events of a job and name": pages("/events", event_key, job_id=job, name=name),
        "events of a lease": pages("/events", event_key, lease_id=lease),
        "events of a lease and name": pages("/events", event_key, lease_id=lease, name=name),
        "events of an address": pages("/events", event_key, address=party),
        "events of an address and name": pages("/events", event_key, address=party, name=name),
        "providers": pages("/providers", stake_key),
        "slashes": pages("/slashes", lease_key),
        "job": lambda chance: f"/jobs/{job(chance)}",
        "address": lambda chance: f"/addresses/{party(chance)}",
        "stats": lambda chance: "/stats",
        "status": lambda chance: "/status",
    }


def after(key: list[Any]) -> str:
    """A page's key as the API writes it."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()
