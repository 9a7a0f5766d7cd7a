"""The marketplace's API as the command line uses it: silent sign-in, one sentence for every problem, streams."""

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils.address import to_checksum_address
from pydantic import BaseModel, ValidationError

from everlease.chain.keys import Key
from everlease.cli.errors import CliError, ExitCode, from_problem
from everlease.durable import private_folder, write_private
from everlease.locking import take
from everlease.wire.http import MarketOut, NonceOut, SignedIn

Model = TypeVar("Model", bound=BaseModel)
_MARGIN_S = 60.0


class TokenCache:
    """Bearer tokens by market and address in one file for its owner alone. ``note`` gets a sentence about a wait."""

    def __init__(self, path: Path, note: Callable[[str], None] = lambda _: None) -> None:
        self._path, self._note = path, note

    def get(self, market: str, address: str) -> str | None:
        """A token that lives for a minute at least."""
        entry = self._read().get(f"{market} {address}")
        if entry is None or float(entry["expires_at"]) < time.time() + _MARGIN_S:
            return None
        return str(entry["token"])

    def put(self, market: str, address: str, token: str | None, expires_at: float = 0.0) -> None:
        """Remember a token; None forgets it."""
        content = self._read()
        content.pop(f"{market} {address}", None)
        if token is not None:
            content[f"{market} {address}"] = {"token": token, "expires_at": expires_at}
        write_private(self._path, json.dumps(content).encode())

    @contextmanager
    def turn(self) -> Iterator[None]:
        """No other command signs in meanwhile: many at once need one token."""
        private_folder(self._path.parent)
        lock = self._path.with_name(f"{self._path.name}.lock")
        try:
            handle = take(lock)
        except BlockingIOError:
            self._note("another command is signing in: waiting for it")
            handle = take(lock, wait=True)
        try:
            yield
        finally:
            os.close(handle)

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


class Market:
    """A client of one marketplace; with a key it signs in by itself when a call needs it."""

    def __init__(self, url: str, key: Key | None, cache: TokenCache) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._cache = cache
        self._http = httpx.Client(base_url=self.url, timeout=httpx.Timeout(30.0, connect=5.0))

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def terms(self) -> MarketOut:
        """Chain, contracts, watcher and suggested terms."""
        return self.get("/v1/market", MarketOut, signed_in=False)

    def get(
        self, path: str, model: type[Model], *, signed_in: bool = True, params: Mapping[str, Any] | None = None
    ) -> Model:
        """GET one document."""
        return _parsed(self._call("GET", path, signed_in=signed_in, params=_given(params)), model)

    def post(self, path: str, model: type[Model], body: BaseModel | None = None, *, spends: bool = False) -> Model:
        """POST a document; ``spends`` adds an idempotency key."""
        headers = {"Idempotency-Key": secrets.token_hex(16)} if spends else {}
        content = body.model_dump_json() if body is not None else "{}"
        headers["Content-Type"] = "application/json"
        return _parsed(self._call("POST", path, signed_in=True, content=content, headers=headers), model)

    @contextmanager
    def stream(self, path: str, *, after: int | None = None) -> Iterator[Iterator["ServerEvent"]]:
        """Follow server-sent events; ``after`` is the last id that was seen."""
        headers = {"Accept": "text/event-stream", **self._authorisation()}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        try:
            with self._http.stream("GET", path, headers=headers, timeout=httpx.Timeout(90.0, connect=5.0)) as response:
                if not response.is_success:
                    response.read()
                    raise from_problem(response)
                yield parse_events(response.iter_lines())
        except httpx.HTTPError as error:
            raise self._down(error) from error

    def _call(self, method: str, path: str, *, signed_in: bool, **request: Any) -> httpx.Response:
        headers = dict(request.pop("headers", {}))
        for attempt in (1, 2):
            authorisation = self._authorisation() if signed_in else {}
            try:
                response = self._http.request(method, path, headers={**headers, **authorisation}, **request)
            except httpx.HTTPError as error:
                raise self._down(error) from error
            if response.status_code == 401 and signed_in and attempt == 1 and self._key is not None:
                self._cache.put(self.url, self._key.address, None)
                continue
            if not response.is_success:
                raise from_problem(response)
            return response
        raise AssertionError("unreachable")

    def _down(self, error: httpx.HTTPError) -> CliError:
        reason = str(error) or type(error).__name__
        return CliError(
            ExitCode.UNAVAILABLE,
            f"the marketplace at {self.url} can't be reached ({reason}): is it up? 'everlease up' starts a local one",
        )

    def _authorisation(self) -> dict[str, str]:
        if self._key is None:
            raise CliError(ExitCode.REFUSED, "this takes a wallet: name its keystore with --key or EVERLEASE_KEY_FILE")
        token = self._cache.get(self.url, self._key.address)
        if token is None:
            with self._cache.turn():
                token = self._cache.get(self.url, self._key.address) or self._sign_in(self._key)
        return {"Authorization": f"Bearer {token}"}

    def _sign_in(self, key: Key) -> str:
        nonce = _parsed(self._call("POST", "/v1/auth/nonce", signed_in=False), NonceOut)
        text = sign_in_message(nonce, key.address, datetime.now(UTC))
        signed = Account.sign_message(encode_defunct(text=text), key.secret)
        body = {"message": text, "signature": "0x" + bytes(signed.signature).hex(), "label": "cli"}
        answer = _parsed(self._call("POST", "/v1/auth/verify", signed_in=False, json=body), SignedIn)
        self._cache.put(self.url, key.address, answer.token, answer.expires_at)
        return answer.token


def sign_in_message(nonce: NonceOut, address: str, now: datetime) -> str:
    """The EIP-4361 text, as its grammar has it."""
    issued, expires = now.replace(microsecond=0), now.replace(microsecond=0) + timedelta(minutes=5)
    return (
        f"{nonce.domain} wants you to sign in with your Ethereum account:\n{to_checksum_address(address)}\n\n"
        f"{nonce.statement}\n\nURI: {nonce.uri}\nVersion: 1\nChain ID: {nonce.chain_id}\nNonce: {nonce.nonce}\n"
        f"Issued At: {issued.isoformat().replace('+00:00', 'Z')}\n"
        f"Expiration Time: {expires.isoformat().replace('+00:00', 'Z')}"
    )


class ServerEvent(BaseModel):
    """One server-sent event; ``data`` is its JSON."""

    id: int | None
    event: str
    data: Any


def parse_events(lines: Iterator[str]) -> Iterator[ServerEvent]:
    """Server-sent events (WHATWG HTML, 9.2.6) out of lines; comments and events without data are skipped."""
    identifier: int | None = None
    kind, data = "message", list[str]()
    for line in lines:
        if not line:
            if data:
                yield ServerEvent(id=identifier, event=kind, data=json.loads("\n".join(data)))
            kind, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and value.isdigit():
            identifier = int(value)


def _given(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (params or {}).items() if value is not None}


def _parsed(response: httpx.Response, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise CliError(
            ExitCode.INTERNAL, f"the marketplace's answer to {response.request.url.path} is of another version"
        ) from error
