"""Finds this node's own leases on chain: after an outage, or a loss of the journal, none may be left unanswered."""

import logging

from everlease.chain.base import ChainReader, Header
from everlease.chain.deployment import Deployment
from everlease.chain.own_leases import Opened, opened_by, params_of
from everlease.chain.typed_data import lease_id
from everlease.chain.views import Views
from everlease.domain.lease import LeaseState
from everlease.domain.terms import LeaseParams
from everlease.wire.terms import LeaseParamsModel
from provider_agent.journal import Journal
from provider_agent.records import LeaseRecord

log = logging.getLogger(__name__)
AGAIN = 128
"""Blocks that are looked at again: a reorg may have put a lease where none was."""
RANGES_A_LOOK = 25
_MARK = "leases"


class OwnLeases:
    """Blocking. ``look`` goes on where the last one, of this or an earlier process, ended."""

    def __init__(
        self, chain: ChainReader, deployment: Deployment, journal: Journal, *, provider: str, node: str
    ) -> None:
        self._chain, self._deployment, self._journal = chain, deployment, journal
        self._provider, self._node = provider.lower(), node.lower()
        self._views = Views(chain, deployment)

    def look(self, head: Header) -> bool:
        """Journal each lease of ours up to ``head`` that lives and isn't journaled. Whether it got that far.

        Raises ChainError, sqlite3.Error; what was found stays.
        """
        begin = self._deployment.block
        first = max(begin, self._journal.mark(_MARK, begin) - AGAIN)
        looks = opened_by(self._chain, self._deployment, self._provider, first, head.number)
        for number, looked in enumerate(looks, 1):
            for opened in looked.found:
                if opened.event.node.lower() == self._node:
                    self._take(opened)
            self._journal.put_mark(_MARK, looked.last)
            if number == RANGES_A_LOOK:
                return looked.last >= head.number
        return True

    def _take(self, opened: Opened) -> None:
        name = opened.event.lease_id
        known = self._journal.lease(name)
        if known is not None and not known.settled:
            return
        if self._views.lease(name).state is LeaseState.NONE:
            return
        params = known.params.to_domain() if known is not None else self._params(opened)
        if params is None:
            log.error("lease %s is this node's, and its terms can't be read from the chain", name[:10])
            return
        log.warning("lease %s of this node was found on chain", name[:10])
        model = LeaseParamsModel.from_domain(params)
        fence = known.fence if known is not None else 0
        self._journal.put_lease(LeaseRecord(lease_id=name, params=model, fence=fence))

    def _params(self, opened: Opened) -> LeaseParams | None:
        for record in self._journal.bids(opened.event.job_id):
            params = record.params(opened.event.rate)
            if lease_id(params) == opened.event.lease_id:
                return params
        return params_of(self._chain, self._deployment, opened)
