"""PostgreSQL: models, migrations and repositories. Services see repositories and ``Tx``, never SQLAlchemy itself."""

from everlease.db.engine import Database, Tx

__all__ = ["Database", "Tx"]
