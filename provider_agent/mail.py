"""What jobs send to the gateway, and the store tokens that they ask it for."""

import asyncio
import secrets
from typing import Any

from everlease.wire.node import TokenGrant
from provider_agent.errors import LinkDown, StepFailed
from provider_agent.link import Link

TOKEN_WAIT_S = 20.0


class Mail:
    """The jobs' side of the link (host.Messenger)."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._asked: dict[str, asyncio.Future[TokenGrant]] = {}

    def post(self, key: str, body: dict[str, Any]) -> None:
        """Send for certain: kept in the journal until acknowledged."""
        self._link.post(key, body)

    async def deliver(self, body: dict[str, Any]) -> None:
        """Send and wait until acknowledged."""
        await self._link.deliver(body)

    async def fresh_token(self, job_id: str, fence: int) -> str:
        """Ask the gateway for a store token. Raises LinkDown, StepFailed."""
        request = secrets.token_hex(8)
        asked = self._asked[request] = asyncio.get_running_loop().create_future()
        try:
            await self._link.send({"type": "token_request", "request": request, "job_id": job_id, "fence": fence})
            async with asyncio.timeout(TOKEN_WAIT_S):
                grant: TokenGrant = await asked
        except TimeoutError as error:
            raise LinkDown("the marketplace did not grant a store token in time") from error
        finally:
            self._asked.pop(request, None)
        if not grant.ok:
            raise StepFailed(grant.error or "the marketplace refused a store token")
        return grant.token

    def granted(self, grant: TokenGrant) -> None:
        """The gateway's answer to a token request."""
        asked = self._asked.get(grant.request)
        if asked is not None and not asked.done():
            asked.set_result(grant)
