"""Every table; importing this package makes ``Base.metadata`` complete."""

from everlease.db.models import identity, jobs, mirror, nodes, outages, outbox
from everlease.db.models.base import Base

__all__ = ["Base", "identity", "jobs", "mirror", "nodes", "outages", "outbox"]
