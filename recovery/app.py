"""Entry point of workers and beat: ``celery -A recovery.app worker``, ``celery -A recovery.app beat``."""

from recovery.broker import make_app
from recovery.settings import RecoverySettings

app = make_app(RecoverySettings())
