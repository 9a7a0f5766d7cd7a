"""The declarative base and the column types that every table shares."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from sqlalchemy import JSON, BigInteger, DateTime, MetaData, Numeric, String, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.types import TypeDecorator


class UInt256(TypeDecorator[int]):
    """A Python int in NUMERIC(78, 0): exact for every EVM word."""

    impl = Numeric(78, 0)
    cache_ok = True

    def process_result_value(self, value: Decimal | None, dialect: Any) -> int | None:
        return None if value is None else int(value)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


Hex32 = Annotated[str, mapped_column(String(66))]
Hex32Key = Annotated[str, mapped_column(String(66), primary_key=True)]
Address = Annotated[str, mapped_column(String(42))]
AddressKey = Annotated[str, mapped_column(String(42), primary_key=True)]
Cid = Annotated[str, mapped_column(String(110))]
Units = Annotated[int, mapped_column(UInt256())]
BigInt = Annotated[int, mapped_column(BigInteger())]
Serial = Annotated[int, mapped_column(BigInteger(), primary_key=True, autoincrement=True)]
Json = Annotated[dict[str, Any], mapped_column(JSONB())]
JsonText = Annotated[dict[str, Any], mapped_column(JSON())]
"""JSON that is only ever read back whole: kept as it was written, which costs less than JSONB."""
JsonList = Annotated[list[Any], mapped_column(JSONB())]
LongText = Annotated[str, mapped_column(Text())]
Instant = Annotated[datetime, mapped_column(DateTime(timezone=True))]
CreatedAt = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())]
