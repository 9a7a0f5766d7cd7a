"""The Celery application: late acknowledgement, JSON only, one task at a time, everything bounded in time."""

from celery import Celery

from recovery import routes, transport
from recovery.settings import RecoverySettings
from recovery.tasks import register


def make_app(settings: RecoverySettings) -> Celery:
    """An app with its tasks and its beat schedule; connects on first use.

    A task is handed out again only after the visibility timeout, four times the hard limit of any task, so no second
    worker starts one that still runs.
    """
    transport.install()
    app = Celery("everlease.recovery", broker=settings.broker_url, set_as_current=False)
    limit = settings.task_time_limit
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_time_limit=limit,
        task_soft_time_limit=max(limit - 5, 1),
        broker_transport_options={
            "visibility_timeout": 4 * limit,
            "socket_timeout": 5,
            "socket_connect_timeout": 5,
            "max_retries": 1,
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_publish_retry=False,
        task_default_queue="recovery",
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        enable_utc=True,
        beat_schedule=schedule(),
        beat_scheduler="celery.beat:Scheduler",
    )
    register(app, settings)
    return app


def schedule() -> dict[str, dict[str, object]]:
    """Sweeps, by seconds. A sweep that waited longer than its interval is dropped: the next one does the same."""
    every = {
        routes.SWEEP_JOBS: 15.0,
        routes.SWEEP_COMMANDS: 2.0,
        routes.SWEEP_LEASES: 3.0,
        routes.SWEEP_STORAGE: 300.0,
        routes.PUMP: 2.0,
    }
    return {
        name: {"task": name, "schedule": seconds, "options": {"expires": seconds}} for name, seconds in every.items()
    }
