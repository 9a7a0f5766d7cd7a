"""Launching a job: the image into the store, the order signed, the job posted, the escrow funded.

A launch may break off between any two steps. Launched again, the same job file with the same image goes on with the
same order, so that nothing is posted or paid twice; see everlease.cli.launches.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from everlease.chain.typed_data import job_id, order_digest
from everlease.chain.wallet_queue import SendInterrupted
from everlease.cli.admission import check_capacity, check_market, check_money, check_order
from everlease.cli.context import Wallet
from everlease.cli.errors import CliError, ExitCode
from everlease.cli.images import LocalImages, StoredImage, upload_image
from everlease.cli.launches import Held, Launch, Launches, content_of
from everlease.cli.market import Market
from everlease.cli.orders import make_order
from everlease.cli.payments import deposit_of, fund
from everlease.cli.selection import job_with
from everlease.domain.job import ENDED, JobState
from everlease.domain.terms import Order
from everlease.wire.http import JobOut, JobRequest, MarketOut
from everlease.wire.jobfile import JobFile
from everlease.wire.spec import SpecModel
from everlease.wire.terms import OrderModel

Note = Callable[[str], None]
_OVER = ENDED | {JobState.CANCELLING}
_NO_REFUSALS = {401, 408, 425, 429}
"""Statuses of 400 to 499 after which the marketplace may have the order all the same."""
_NO_IMAGE = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True)
class Launched:
    """A job that is posted and funded. ``fund_tx``: the transaction's hash, None where an earlier launch paid."""

    job: JobOut
    fund_tx: str | None


@dataclass(frozen=True, slots=True)
class Options:
    """``source``: the job file's path, if it is one. ``new``: don't go on with a launch that broke off. ``queue``:
    launch also what no host of the market is large enough for. ``posted`` is told the job once the market has it."""

    source: Path | None = None
    new: bool = False
    queue: bool = False
    posted: Callable[[JobOut], None] = lambda _: None


def launch(
    market: Market,
    wallet: Wallet,
    images: LocalImages,
    job: JobFile,
    note: Note = lambda _: None,
    options: Options = Options(),
) -> Launched:
    """Everything from a checked job file to a funded escrow; what can be checked is checked before the upload.

    Raises CliError, ChainError, StoreError; KeyboardInterrupt says what was sent and what was not.
    """
    attempt = _Attempt(market, wallet, images, job, note, options)
    try:
        return attempt.run()
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(attempt.standing(error)) from error
    except Exception:
        if attempt.job_id:
            note(attempt.standing())
        raise
    finally:
        attempt.close()


class _Attempt:
    """One call of ``launch``. ``job_id`` is set once its order may be with the market."""

    def __init__(
        self, market: Market, wallet: Wallet, images: LocalImages, job: JobFile, note: Note, options: Options
    ) -> None:
        self._market, self._wallet, self._images = market, wallet, images
        self._job, self._note, self._options = job, note, options
        self._launches = Launches(wallet.folder / "launches")
        self._what = content_of(job, images.local_id(job.image))
        self._held: Held | None = None
        self._posted = self._funded = self._paid = False
        self.job_id = ""

    def close(self) -> None:
        """Leave what is not done to the next launch."""
        if self._held is not None:
            self._held.release()

    def standing(self, error: BaseException | None = None) -> str:
        """What was sent and what was not, in one sentence."""
        if not self.job_id:
            told = "nothing was posted and nothing was paid"
            return f"{told} for this launch; {error}" if isinstance(error, SendInterrupted) else told
        if self._paid:
            return f"job {self.job_id} is posted and paid for"
        where = f"job {self.job_id} {'is' if self._posted else 'may be'} posted"
        if isinstance(error, SendInterrupted):
            return f"{where}; {error}"
        if self._funded:
            return f"{where} and its deposit is in the escrow: launch the same file again to go on"
        return (
            f"{where} and its deposit was not seen paid: launch the same file again to go on, or "
            f"'everlease job fund {self.job_id}'; 'everlease job cancel {self.job_id}' drops it"
        )

    def run(self) -> Launched:
        terms = self._market.terms()
        check_market(terms, self._wallet)
        self._held = None if self._options.new else self._broken_off()
        self.job_id = self._held.job_id if self._held is not None else ""
        with self._wallet.turn():
            sent = self._wallet.settle(self._intent())
        self._funded = sent is not None
        self._look_at_earlier_ones()
        if self._held is not None:
            known = self._as_it_stands(self._held)
            if known is not None:
                self._note(f"job {known.id} was posted and paid for by a launch that broke off; --new launches another")
                self._paid = True
                self._options.posted(known)
                self._held.done()
                return Launched(known, sent.tx_hash if sent else None)
        self._check(terms)
        image = upload_image(self._market, self._images, self._job.image, self._note)
        spec = self._job.spec(image.digest, image.user)
        order = self._order(make_order(self._job, spec, terms, self._wallet.address, int(time.time())))
        return self._post_and_fund(order, spec, image, sent.tx_hash if sent else None)

    # -- what broke off before --

    def _broken_off(self) -> Held | None:
        """The oldest launch of the same content that nobody else goes on with."""
        for noted in self._launches.noted(self._wallet.deployment.escrow):
            held = self._launches.hold(noted) if noted.what == self._what else None
            if held is not None:
                return held
        return None

    def _intent(self) -> str:
        return deposit_of(self._held.job_id, self._held.order) if self._held is not None else ""

    def _as_it_stands(self, held: Held) -> JobOut | None:
        """The job of a launch that has nothing left to do. Else None; what is of no use any more is dropped."""
        chain = self._wallet.views.job(held.job_id)
        self._funded = chain.funded
        known = self._known(held.job_id)
        over = chain.cancelled or (known is not None and JobState(known.state) in _OVER)
        if chain.funded and known is not None and not over:
            return known
        stale = held.order.deadline - time.time() < self._job.lifetime / 2 and not chain.funded
        if over or stale:
            back = f"; 'everlease job refund {held.job_id}' takes its deposit back" if chain.funded else ""
            self._note(
                f"job {held.job_id}, whose launch broke off, is over or about to expire{back}: this is another one"
            )
            self._drop()
        else:
            self._note(f"going on with the launch of job {held.job_id}, which broke off")
            self._posted = known is not None
        return None

    def _drop(self) -> None:
        assert self._held is not None
        self._held.done()
        self._held, self.job_id, self._posted, self._funded = None, "", False, False

    def _known(self, job: str) -> JobOut | None:
        try:
            return job_with(self._market, job)
        except CliError as error:
            if error.code != ExitCode.NOT_FOUND:
                raise
            return None

    def _look_at_earlier_ones(self) -> None:
        """Launches of this file as it was before it was changed: none of them is paid for a second time unasked."""
        source = str(self._options.source.resolve()) if self._options.source is not None else ""
        for noted in self._launches.noted(self._wallet.deployment.escrow) if source else ():
            if noted.source == source and noted.what != self._what and (held := self._launches.hold(noted)) is not None:
                try:
                    self._look_at(held)
                finally:
                    held.release()

    def _look_at(self, held: Held) -> None:
        known, paid = self._known(held.job_id), self._wallet.views.job(held.job_id).funded
        if known is None and paid:
            self._note(f"the deposit of job {held.job_id} is paid, and this marketplace does not know the job")
            return
        if known is not None and JobState(known.state) not in _OVER:
            if not paid:
                self._note(
                    f"this file was changed since its launch as job {held.job_id} broke off, which is not paid for: "
                    f"'everlease job cancel {held.job_id}' drops it"
                )
            elif not self._options.new:
                raise CliError(
                    ExitCode.REFUSED,
                    f"this file or its image was changed since its launch as job {held.job_id} broke off, and that job "
                    "is paid for: look at it or cancel it, and launch with --new to pay for this one as well",
                )
        held.done()

    # -- the launch itself --

    def _check(self, terms: MarketOut) -> None:
        draft = self._job.spec(_NO_IMAGE, self._job.user or "0")
        now = int(time.time())
        order = make_order(self._job, draft, terms, self._wallet.address, now)
        check_order(order, self._wallet, now)
        if self._held is None or not self._wallet.views.job(self._held.job_id).funded:
            check_money(order, self._wallet)
        check_capacity(self._market, draft.to_domain(), self._note, queue=self._options.queue)

    def _order(self, fresh: Order) -> Order:
        """The order of the launch that broke off, if it is what would be signed now; else the fresh one, noted."""
        if self._held is not None:
            before = self._held.order
            same = replace(fresh, nonce=before.nonce, deadline=before.deadline) == before
            if same or self._wallet.views.job(self._held.job_id).funded:
                return before
            self._note(f"the market's terms or the image changed since: job {self._held.job_id} is left unpaid")
            self._drop()
        escrow = self._wallet.deployment.escrow
        source = str(self._options.source.resolve()) if self._options.source is not None else ""
        self._held = self._launches.begin(
            Launch(
                job_id=job_id(self._wallet.deployment.escrow_domain, fresh),
                escrow=escrow,
                order=OrderModel.from_domain(fresh),
                what=self._what,
                source=source,
                begun=time.time(),
            )
        )
        return fresh

    def _post_and_fund(self, order: Order, spec: SpecModel, image: StoredImage, sent: str | None) -> Launched:
        """In one turn of the wallet: an order is posted only when the money for it is there, and stays there."""
        assert self._held is not None
        with self._wallet.turn():
            done = self._wallet.settle(self._intent())
            paid = done is not None or sent is not None
            self._funded = paid or self._wallet.views.job(self._held.job_id).funded
            if not self._funded:
                self._require_money(order)
            posted = self._post(order, spec, image)
            funded = fund(self._wallet, order)
        self._paid = True
        self._note(f"deposit of job {posted.id} paid")
        self._held.done()
        return Launched(posted, funded or (done.tx_hash if done else sent))

    def _require_money(self, order: Order) -> None:
        try:
            self._wallet.require_balance(order.deposit)
        except CliError:
            if not self._posted:
                self._drop()
            raise

    def _post(self, order: Order, spec: SpecModel, image: StoredImage) -> JobOut:
        assert self._held is not None
        expected = self._held.job_id
        request = JobRequest(
            spec=spec,
            order=OrderModel.from_domain(order),
            order_signature=self._wallet.key.sign(order_digest(self._wallet.deployment.escrow_domain, order)),
            image_manifest=image.manifest,
            image_bytes=image.size,
        )
        self.job_id = expected
        try:
            posted = self._market.post("/v1/jobs", JobOut, request, spends=True)
        except CliError as error:
            refused = 400 <= error.status < 500 and error.status not in _NO_REFUSALS
            if refused and not self._posted and not self._funded:
                self._drop()
            raise
        if posted.id != expected or JobState(posted.state) in _OVER:
            raise CliError(
                ExitCode.INTERNAL,
                f"the marketplace was sent job {expected} and answers with job {posted.id}, {posted.state}: no deposit "
                "was paid",
            )
        self._posted = True
        self._options.posted(posted)
        return posted
