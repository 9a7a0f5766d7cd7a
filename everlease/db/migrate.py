"""Bring a database to the newest schema. Safe to call from several processes at once: one works, the others wait."""

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError

from everlease.db.engine import DatabaseUnavailable
from everlease.db.models import Base

_FOLDER = Path(__file__).parent / "migrations"
_LOCK = 0x6576_6C73
"""Key of the advisory lock that makes concurrent upgrades take turns."""


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for an open connection; nothing is read from an ini file."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connection"] = connection
    return config


def upgrade(url: str) -> None:
    """Apply every migration that ``url`` (``postgresql+psycopg://…``) lacks, all in one transaction."""
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            command.upgrade(alembic_config(connection), "head")
    except OperationalError as error:
        raise DatabaseUnavailable(str(error.orig).strip().split("\n")[0]) from error
    finally:
        engine.dispose()


def differences(url: str) -> list[object]:
    """What models and database disagree on; empty after ``upgrade``."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))
    finally:
        engine.dispose()
