"""Field types and the strict base of every message: unknown fields are refused, sizes are bounded."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Hex32 = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$"), AfterValidator(str.lower)]
"""Lower case once it is in: rows, events and keys are compared as text."""
Signature = Annotated[str, Field(pattern=r"^0x[0-9a-f]{2,4096}$")]
Cid = Annotated[str, Field(pattern=r"^b[a-z2-7]{20,100}$")]
Units = Annotated[int, Field(ge=0, lt=2**128)]
"""Base units of the settlement asset; on HTTP a JSON integer."""
UnixSeconds = Annotated[int, Field(ge=0, lt=2**40)]
Short = Annotated[str, Field(max_length=200)]
Sentence = Annotated[str, Field(max_length=2000)]


class Message(BaseModel):
    """Frozen, strict about names, never larger than its fields allow."""

    model_config = ConfigDict(frozen=True, extra="forbid")
