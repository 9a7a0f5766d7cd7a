"""``python -m marketplace``: serve until SIGTERM, then let nodes and streams go in order."""

import signal
import sys
from contextlib import suppress

import uvicorn
from pydantic import ValidationError

from everlease.chain.errors import ChainError
from everlease.db.engine import DatabaseUnavailable
from everlease.store.errors import StoreError
from marketplace.app import create_app
from marketplace.gateway.endpoint import Gateway
from marketplace.logs import configure_logs
from marketplace.parts import Parts
from marketplace.services.keys import MasterKeyInvalid, OtherMasterKey
from marketplace.serving import server_config
from marketplace.settings import MarketplaceSettings


class _Server(uvicorn.Server):
    """Ends streams and node sockets as soon as it is told to stop: uvicorn itself waits for them first.

    It stops as well once it is seen to have another master key than the database.
    """

    async def on_tick(self, counter: int) -> bool:
        parts: Parts = self.config.app.state.parts  # type: ignore[union-attr]
        return await super().on_tick(counter) or parts.keys.is_other

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        app = self.config.app
        parts: Parts = app.state.parts  # type: ignore[union-attr]
        gateway: Gateway = app.state.gateway  # type: ignore[union-attr]
        parts.followers.close()
        gateway.close()
        await super().shutdown(sockets)  # type: ignore[arg-type]


def main() -> int:
    """Exit code 2 for settings or files that can't be used, also where the database tells of that later."""
    try:
        settings = MarketplaceSettings()
        configure_logs(settings.log_level, settings.log_json)
        app = create_app(settings)
        parts: Parts = app.state.parts
        parts.deployment.check_if_reachable(parts.chain)
        with suppress(DatabaseUnavailable):  # /readyz says so, and checks the key again, as each hello does
            parts.check_master_key()
    except ValidationError as error:
        fields = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        print(f"marketplace: settings (EVERLEASE_MARKETPLACE_…): {fields}", file=sys.stderr)  # noqa: T201
        return 2
    except (ChainError, StoreError, MasterKeyInvalid) as error:
        print(f"marketplace: {error}", file=sys.stderr)  # noqa: T201
        return 2
    # uvicorn raises the signal again once it is done: an orderly end is exit code 0.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    _Server(server_config(app, settings)).run()
    if parts.keys.is_other:
        print(f"marketplace: {OtherMasterKey()}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
