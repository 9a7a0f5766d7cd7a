"""Alembic runs this; the open connection is handed in by everlease.db.migrate as an attribute."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext

from everlease.db.models import Base
from everlease.db.models.base import UInt256


def render_item(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    """Write our own type as the plain SQL type it is, so that a migration never imports today's models."""
    if kind == "type" and isinstance(item, UInt256):
        return "sa.Numeric(78, 0)"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_item=render_item,
    compare_server_default=False,
)
with context.begin_transaction():
    context.run_migrations()
