"""Events as logs, for chains that run no contract."""

from typing import Any

from eth_abi import abi

from everlease.chain._generated.events import Event, Field
from everlease.chain.memory import Emitted


def as_log(address: str, event: Event) -> Emitted:
    """What the contract at ``address`` would emit."""

    def raw(field: Field) -> Any:
        value = getattr(event, field.name)
        if field.abi_type == "bytes32":
            return bytes.fromhex(value[2:])
        return value if field.enum is None else int(value)

    indexed = [field for field in event.FIELDS if field.indexed]
    plain = [field for field in event.FIELDS if not field.indexed]
    topics = ["0x" + event.TOPIC0.hex()]
    topics += ["0x" + abi.encode([f.abi_type], [raw(f)]).hex() for f in indexed]
    data = abi.encode([f.abi_type for f in plain], [raw(f) for f in plain])
    return address, tuple(topics), bytes(data)
