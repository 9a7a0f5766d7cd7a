"""The scenarios by name: each takes a stage, raises what it found broken, and returns its note for the report."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hosts.stage import Stage

Play = Callable[["Stage"], str]


@dataclass(frozen=True, slots=True)
class Scenario:
    """``core``: played on every kind of host, by `make hosts`. ``kinds``: the two hosts where it isn't two of one."""

    name: str
    play: Play
    core: bool
    kinds: tuple[str, str] | None


SCENARIOS: dict[str, Scenario] = {}


def scenario(*, core: bool = False, kinds: tuple[str, str] | None = None) -> Callable[[Play], Play]:
    """Register a function under its own name."""

    def register(play: Play) -> Play:
        SCENARIOS[play.__name__] = Scenario(play.__name__, play, core, kinds)
        return play

    return register
