"""Sign-in with Ethereum (EIP-4361) and the tokens that follow from it."""

import hashlib
import re
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from eth_account.messages import defunct_hash_message
from siwe import SiweMessage

from everlease.chain import typed_data
from everlease.chain.typed_data import CodeReader
from everlease.db import Database, identity
from everlease.db.models.identity import TokenRow
from marketplace.problems import ProblemError
from marketplace.settings import MarketplaceSettings

_MAX_AGE = timedelta(minutes=10)
_SKEW = timedelta(minutes=1)
_MAX_CLIENTS = 10_000
AT_ONCE, WALLETS_AT_ONCE = 8, 2


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new token; ``secret`` leaves the service once and is stored as its digest only."""

    secret: str
    row: TokenRow


class SignIn:
    """Issues nonces, checks signed messages, issues and resolves tokens."""

    def __init__(self, settings: MarketplaceSettings, chain_id: int, db: Database, chain: CodeReader) -> None:
        self._settings = settings
        self._chain_id = chain_id
        self._db = db
        self._chain = chain
        self._turns, self._chain_turns = Turns(AT_ONCE), Turns(WALLETS_AT_ONCE)

    def nonce(self) -> tuple[str, datetime]:
        """A fresh nonce and when it expires."""
        nonce = secrets.token_hex(16)
        with self._db.transaction() as tx:
            return nonce, identity.issue_nonce(tx, nonce, timedelta(seconds=self._settings.nonce_lifetime_s))

    def verify(self, text: str, signature: str, label: str) -> IssuedToken:
        """Check a signed message, use its nonce up and issue a token; raises ProblemError (401, 422 or 503)."""
        with self._turns.turn():
            return self._verify(text, signature, label)

    def _verify(self, text: str, signature: str, label: str) -> IssuedToken:
        message = self._parse(text)
        self._check(message, datetime.now(UTC))
        digest = bytes(defunct_hash_message(text=text))
        # Who signed is checked before the nonce is used up: a stranger can't burn somebody's nonce.
        if not self._signed(digest, message.address, signature):
            raise _refused("the signature is not that of the address in the message")
        secret = "evl_" + secrets.token_urlsafe(32)
        with self._db.transaction() as tx:
            if not identity.use_nonce(tx, message.nonce):
                raise _refused("the nonce is unknown, expired or was used before: ask for a new one")
            lifetime = timedelta(seconds=self._settings.token_lifetime_s)
            row = identity.add_token(tx, digest_of(secret), message.address.lower(), label, lifetime)
        return IssuedToken(secret, row)

    def owner(self, secret: str) -> str | None:
        """The address a token speaks for, in lower case, or None."""
        with self._db.transaction() as tx:
            return identity.token_owner(tx, digest_of(secret))

    def _signed(self, digest: bytes, address: str, signature: str) -> bool:
        """A contract wallet is asked by a call that may take as long as its endpoint lets it, so a few at once."""
        if typed_data.verify(digest, address, signature):
            return True
        with self._chain_turns.turn():
            return typed_data.verify(digest, address, signature, self._chain)

    def _parse(self, text: str) -> SiweMessage:
        try:
            return SiweMessage.from_message(text)
        except Exception as error:
            # siwe raises whatever its grammar, its date parser or pydantic raise.
            raise ProblemError(422, "malformed-sign-in", "the message is not an EIP-4361 sign-in message") from error

    def _check(self, message: SiweMessage, now: datetime) -> None:
        domain, origin = self._settings.sign_in_domain, self._settings.origin
        if message.domain != domain:
            raise _refused(f"the message is for {message.domain}, this marketplace is {domain}")
        if str(message.uri).rstrip("/") != origin:
            raise _refused(f"the message's URI is {message.uri}, it has to be {origin}")
        if message.chain_id != self._chain_id:
            raise _refused(f"the message is for chain {message.chain_id}, this marketplace is on {self._chain_id}")
        issued = _instant(message.issued_at)
        if not now - _MAX_AGE <= issued <= now + _SKEW:
            raise _refused("the message was not issued within the last ten minutes: sign a new one")
        if message.expiration_time is not None and _instant(message.expiration_time) <= now:
            raise _refused("the message has expired: sign a new one")
        if message.not_before is not None and _instant(message.not_before) > now:
            raise _refused("the message is not valid yet")


class Turns:
    """So many at once; whoever comes beyond that is told to come again, and keeps no thread busy meanwhile."""

    def __init__(self, at_once: int) -> None:
        self._free = threading.BoundedSemaphore(at_once)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Take a turn for as long as the block lasts; raises ProblemError (503)."""
        if not self._free.acquire(blocking=False):
            raise ProblemError(503, "busy", "many are signing in at this moment: try again", Retry_After="1")
        try:
            yield
        finally:
            self._free.release()


class RateLimit:
    """At most ``per_minute`` attempts per client in a sliding minute, in this process; memory is bounded."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()

    def admit(self, client: str) -> None:
        """Count an attempt; raises ProblemError (429) where there were too many."""
        now = self._clock()
        attempts = self._seen.setdefault(client, deque())
        self._seen.move_to_end(client)
        while attempts and attempts[0] <= now - 60:
            attempts.popleft()
        if len(attempts) >= self._per_minute:
            wait = int(attempts[0] + 60 - now) + 1
            raise ProblemError(429, "too-many-attempts", f"too many attempts: wait {wait} s", Retry_After=str(wait))
        attempts.append(now)
        while len(self._seen) > _MAX_CLIENTS:
            self._seen.popitem(last=False)


def digest_of(secret: str) -> str:
    """sha256 of a token, hex: the only form in which it is stored."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _refused(reason: str) -> ProblemError:
    return ProblemError(401, "sign-in-refused", reason, WWW_Authenticate="Bearer")


def _instant(text: str) -> datetime:
    # Fractions beyond microseconds are legal in RFC 3339 and unknown to fromisoformat.
    trimmed = re.sub(r"(\.\d{6})\d+", r"\1", str(text)).replace("Z", "+00:00").replace("z", "+00:00")
    instant = datetime.fromisoformat(trimmed)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
