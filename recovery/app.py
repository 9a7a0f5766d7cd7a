"""Entry point of workers and beat: ``celery -A recovery.app worker``, ``celery -A recovery.app beat``."""

from recovery import logs
from recovery.broker import make_app
from recovery.settings import RecoverySettings

_settings = RecoverySettings()
logs.configure(_settings.log_level, as_json=_settings.log_json)
app = make_app(_settings)
