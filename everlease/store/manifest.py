"""Manifests as bytes: canonical encoding, signature, sealing into a block (docs/checkpoint-format.md, "Manifest")."""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
import sys
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils.crypto import keccak

from everlease.domain.manifest import (
    CID,
    MANIFEST_VERSION,
    MAX_ENTRIES,
    MAX_REFS,
    BlockRef,
    FileEntry,
    Manifest,
    ManifestError,
    check_manifest,
    check_successor,
)
from everlease.store.base import MAX_BLOCK_BYTES, BlockStore, get_block, put_block
from everlease.store.cid import digest_of, from_digest, parse_cid
from everlease.store.errors import BlockCorrupt, KeyMissing, ManifestInvalid
from everlease.store.sealing import JobKeys

MAGIC = b"EVLM"
SIGNATURE_BYTES = 65
MAX_MANIFEST_BYTES = MAX_BLOCK_BYTES
_HEAD_BYTES = len(MAGIC) + 1 + SIGNATURE_BYTES
_SIGNED_PREFIX = b"everlease/manifest/1\x00"
_ZERO_BLOCK = 0xFFFFFFFF
_MAX_VALUES = 16 * MAX_ENTRIES
"""An entry has 14 values."""
_ENTRY_FIELDS = ("path", "kind", "size", "mode", "uid", "gid", "mtime_ns", "target", "layout", "space")
_HEADER_FIELDS = (
    "version",
    "chain_id",
    "contract",
    "job_id",
    "seq",
    "fence",
    "epoch",
    "lease_id",
    "node",
    "mode",
    "generation",
    "predecessor",
    "created_at",
)


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """A manifest as it was read: its own CID and the address that signed it (checksummed 0x hex)."""

    cid: CID
    manifest: Manifest
    signer: str


def encode_manifest(manifest: Manifest) -> bytes:
    """The canonical body. Raises ManifestInvalid if the manifest breaks its rules."""
    try:
        check_manifest(manifest)
    except ManifestError as error:
        raise ManifestInvalid(error.reason) from error
    body: dict[str, Any] = {name: getattr(manifest, name) for name in _HEADER_FIELDS}
    body["requirements"] = dict(manifest.requirements)
    body["stats"] = dict(manifest.stats)
    body["entries"] = [_encode_entry(entry) for entry in sorted(manifest.entries, key=lambda entry: entry.path)]
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def decode_manifest(body: bytes) -> Manifest:
    """The manifest in a canonical body. Raises ManifestInvalid for what `encode_manifest` would not have written."""
    # Few bytes can stand for many objects: all are counted before any is made.
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > _MAX_VALUES:
        raise ManifestInvalid(f"the manifest has more than {_MAX_VALUES} values")
    try:
        fields = json.loads(body.decode("ascii"))
        if sum(map(_refs_in, fields["entries"])) > MAX_REFS:
            raise ManifestInvalid(f"the manifest has more than {MAX_REFS} block references")
        entries = tuple(_decode_entry(entry) for entry in fields["entries"])
        header = {name: fields[name] for name in _HEADER_FIELDS}
        if header["predecessor"] is not None:
            header["predecessor"] = parse_cid(header["predecessor"])
        _check_types(header, fields["requirements"], fields["stats"])
        manifest = Manifest(entries=entries, requirements=fields["requirements"], stats=fields["stats"], **header)
        # Re-encoding also proves sorted keys and the absence of unknown fields.
        canonical = encode_manifest(manifest) == body
    except ManifestInvalid:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, struct.error) as error:
        raise ManifestInvalid(f"the manifest is malformed ({type(error).__name__})") from error
    if not canonical:
        raise ManifestInvalid("the manifest is not in canonical form")
    return manifest


def sign_manifest(manifest: Manifest, node_key: bytes | str) -> bytes:
    """Magic, version, signature by `node_key` (32 bytes or 0x hex), body: the payload of a manifest block."""
    body = encode_manifest(manifest)
    account = Account.from_key(node_key)
    if account.address.lower() != manifest.node.lower():
        raise ManifestInvalid(f"the manifest names node {manifest.node}, the key is {account.address}'s")
    if _HEAD_BYTES + len(body) > MAX_MANIFEST_BYTES:
        raise ManifestInvalid(f"the manifest has {len(body)} bytes, {MAX_MANIFEST_BYTES} are allowed")
    signature = bytes(account.sign_message(_signable(body)).signature)
    return MAGIC + bytes([MANIFEST_VERSION]) + signature + body


def verify_manifest(cid: CID, payload: bytes) -> SignedManifest:
    """Check form and signature of a manifest block's payload. Raises ManifestInvalid unless its own node signed it."""
    if len(payload) < _HEAD_BYTES or payload[:5] != MAGIC + bytes([MANIFEST_VERSION]):
        raise ManifestInvalid(f"block {cid} is not a manifest of version {MANIFEST_VERSION}")
    signature, body = payload[5:_HEAD_BYTES], payload[_HEAD_BYTES:]
    manifest = decode_manifest(body)
    if signature[-1] not in (27, 28):
        # The library reads others as parities too (EIP-155), so that one signature had many spellings.
        raise ManifestInvalid(f"the signature of manifest {cid} is malformed")
    try:
        signer = str(Account.recover_message(_signable(body), signature=signature))
    except Exception as error:
        # eth_keys raises several unrelated types for r, s and v out of range.
        raise ManifestInvalid(f"the signature of manifest {cid} is malformed") from error
    if signer.lower() != manifest.node.lower():
        raise ManifestInvalid(f"manifest {cid} names node {manifest.node} and was signed by {signer}")
    return SignedManifest(cid, manifest, signer)


def commitment(payload: bytes) -> tuple[str, str]:
    """(digest, signature) of a signed manifest's payload, 0x hex: what a commit shows to those who hold no key."""
    return "0x" + keccak(_SIGNED_PREFIX + payload[_HEAD_BYTES:]).hex(), "0x" + payload[5:_HEAD_BYTES].hex()


def committed_by(digest: str, signature: str) -> str:
    """The address that signed a commitment (checksummed 0x hex). Raises ManifestInvalid for malformed signatures."""
    try:
        message = encode_defunct(primitive=bytes.fromhex(digest.removeprefix("0x")))
        return str(Account.recover_message(message, signature=signature))
    except Exception as error:
        # eth_keys raises several unrelated types for r, s and v out of range.
        raise ManifestInvalid("the signature of the manifest is malformed") from error


def write_manifest(store: BlockStore, manifest: Manifest, keys: JobKeys, node_key: bytes | str) -> CID:
    """Sign, seal and store a manifest; the CID is the checkpoint's name and the chain's next head."""
    if manifest.generation != keys.generation:
        raise ManifestInvalid(f"the manifest names generation {manifest.generation}, the key is {keys.generation}")
    return put_block(store, keys.seal(sign_manifest(manifest, node_key)))


def read_manifest(store: BlockStore, cid: CID, keys: JobKeys) -> SignedManifest:
    """Fetch, open and verify a manifest.

    Raises BlockNotFound, BlockCorrupt, ManifestInvalid, or KeyMissing when it names a generation the caller lacks.
    """
    stored = get_block(store, cid)
    signed = verify_manifest(cid, _open_any(cid, stored, keys))
    manifest = signed.manifest
    identity = (manifest.chain_id, manifest.contract.lower(), manifest.job_id.lower())
    if identity != (keys.chain_id, keys.contract.lower(), keys.job_id.lower()):
        raise ManifestInvalid(f"manifest {cid} belongs to another job")
    for generation in manifest.generations():
        if generation not in keys.keys:
            raise KeyMissing(generation)
    return signed


def walk_chain(store: BlockStore, head: CID, keys: JobKeys, limit: int = 10_000) -> Iterator[SignedManifest]:
    """The chain from `head` backwards, each link verified. Raises ManifestInvalid where a link does not hold.

    Retention removes old manifests, so a caller stops at the oldest it retains; a removed one raises BlockNotFound.
    """
    current = read_manifest(store, head, keys)
    for _ in range(limit):
        yield current
        if current.manifest.predecessor is None:
            return
        previous = read_manifest(store, current.manifest.predecessor, keys)
        try:
            check_successor(current.manifest, previous.manifest, previous.cid)
        except ManifestError as error:
            raise ManifestInvalid(error.reason) from error
        current = previous


def _open_any(cid: CID, stored: bytes, keys: JobKeys) -> bytes:
    """A manifest's generation is inside it, so the keys are tried from the newest."""
    for generation in sorted(keys.keys, reverse=True):
        try:
            return keys.open(cid, generation, stored, MAX_MANIFEST_BYTES)
        except BlockCorrupt as error:
            failure = error
    raise failure


def _signable(body: bytes) -> Any:
    return encode_defunct(primitive=keccak(_SIGNED_PREFIX + body))


def _encode_entry(entry: FileEntry) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(entry, name) for name in _ENTRY_FIELDS}
    refs = entry.blocks
    fields["digests"] = _base64(b"".join(digest_of(ref.cid) for ref in refs if ref.cid is not None))
    fields["positions"] = _column("Q", [ref.position for ref in refs])
    fields["lengths"] = _column("I", [ref.length for ref in refs])
    fields["generations"] = _column("I", [_ZERO_BLOCK if ref.cid is None else ref.generation for ref in refs])
    return fields


def _refs_in(fields: dict[str, Any]) -> int:
    """Rows of the longest column of an entry's block table, by the length of its base64."""
    sizes = {"positions": 8, "lengths": 4, "generations": 4}
    return max(len(fields[name]) * 3 // 4 // size for name, size in sizes.items())


def _decode_entry(fields: dict[str, Any]) -> FileEntry:
    digests = base64.b64decode(fields["digests"], validate=True)
    positions = _values("Q", fields["positions"])
    lengths = _values("I", fields["lengths"])
    generations = _values("I", fields["generations"])
    named = sum(1 for generation in generations if generation != _ZERO_BLOCK)
    if not len(positions) == len(lengths) == len(generations) or len(digests) != 32 * named:
        raise ManifestInvalid("the columns of a block table differ in length")
    refs: list[BlockRef] = []
    offset = 0
    for position, length, generation in zip(positions, lengths, generations, strict=True):
        if generation == _ZERO_BLOCK:
            refs.append(BlockRef(None, position, 0, length))
        else:
            refs.append(BlockRef(from_digest(digests[offset : offset + 32]), position, generation, length))
            offset += 32
    entry = FileEntry(blocks=tuple(refs), **{name: fields[name] for name in _ENTRY_FIELDS})
    strings = (entry.path, entry.kind, entry.target, entry.layout, entry.space)
    numbers = (entry.size, entry.mode, entry.uid, entry.gid, entry.mtime_ns)
    if not all(type(value) is str for value in strings) or not all(type(value) is int for value in numbers):
        raise ManifestInvalid("a field of an entry has the wrong type")
    if entry.kind not in ("file", "directory", "symlink") or entry.layout not in ("offset", "aligned"):
        raise ManifestInvalid(f"kind {entry.kind!r} or layout {entry.layout!r} is unknown")
    return entry


def _check_types(header: Mapping[str, Any], requirements: Any, stats: Any) -> None:
    integers = ("version", "chain_id", "seq", "fence", "epoch", "generation")
    strings = ("contract", "job_id", "lease_id", "node", "mode")
    typed = [type(header[name]) is int for name in integers] + [type(header[name]) is str for name in strings]
    if not all(typed):
        raise ManifestInvalid("a field of the manifest has the wrong type")
    if header["mode"] not in ("process", "files"):
        raise ManifestInvalid(f"mode {header['mode']!r} is unknown")
    if type(header["created_at"]) not in (int, float) or not math.isfinite(header["created_at"]):
        raise ManifestInvalid("created_at is not a time")
    if type(requirements) is not dict or not all(type(value) is str for value in requirements.values()):
        raise ManifestInvalid("requirements map names to strings")
    if type(stats) is not dict or not all(type(value) in (int, float) for value in stats.values()):
        raise ManifestInvalid("stats map names to numbers")


def _column(code: str, values: list[int]) -> str:
    column = array(code, values)
    if sys.byteorder == "little":
        column.byteswap()
    return _base64(column.tobytes())


def _values(code: str, text: str) -> list[int]:
    try:
        column = array(code, base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ManifestInvalid("a block table is not base64") from error
    if sys.byteorder == "little":
        column.byteswap()
    return column.tolist()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
