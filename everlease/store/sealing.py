"""Sealing of blocks: zstd where it pays, then AES-256-GCM bound to the job (docs/checkpoint-format.md, "Block")."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from everlease.domain.manifest import CID
from everlease.store.errors import BlockCorrupt, KeyMissing

NONCE_BYTES = 12
TAG_BYTES = 16
OVERHEAD_BYTES = 1 + NONCE_BYTES + TAG_BYTES
_RAW, _ZSTD = b"\x00", b"\x01"
_ZSTD_LEVEL = 1
_local = threading.local()


@dataclass(frozen=True)
class JobKeys:
    """What it takes to seal and open one job's blocks.

    `keys` maps a generation to its 32 bytes, `generation` is the one new blocks are sealed under, `dedup_secret`
    (32 bytes) keys the hash that recognises unchanged blocks. `contract` and `job_id` are 0x hex of 20 and 32 bytes.
    """

    chain_id: int
    contract: str
    job_id: str
    generation: int
    keys: Mapping[int, bytes] = field(repr=False)
    dedup_secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if self.generation not in self.keys:
            raise KeyMissing(self.generation)
        if any(len(key) != 32 for key in self.keys.values()) or len(self.dedup_secret) != 32:
            raise ValueError("generation keys and the dedup secret are 32 bytes each")
        head = (
            b"everlease/block/1"
            + self.chain_id.to_bytes(8, "big")
            + _hex_bytes(self.contract, 20)
            + _hex_bytes(self.job_id, 32)
        )
        object.__setattr__(
            self,
            "_ciphers",
            {number: (AESGCM(key), head + number.to_bytes(4, "big")) for number, key in self.keys.items()},
        )

    def fingerprint(self, payload: bytes) -> bytes:
        """Keyed BLAKE3 of a plaintext, 32 bytes; equal plaintexts of this job have equal fingerprints."""
        return blake3(payload, key=self.dedup_secret).digest()

    def seal(self, payload: bytes) -> bytes:
        """The stored bytes of `payload` under the current generation and a fresh nonce."""
        cipher, aad = self._cipher(self.generation)
        nonce = os.urandom(NONCE_BYTES)
        return nonce + cipher.encrypt(nonce, _pack(payload), aad)

    def open(self, cid: CID, generation: int, stored: bytes, max_length: int) -> bytes:
        """The payload of a stored block, at most `max_length` bytes. Raises KeyMissing or BlockCorrupt."""
        cipher, aad = self._cipher(generation)
        if len(stored) < OVERHEAD_BYTES:
            raise BlockCorrupt(cid, f"{len(stored)} bytes are too few for a sealed block")
        try:
            plaintext = cipher.decrypt(stored[:NONCE_BYTES], stored[NONCE_BYTES:], aad)
        except InvalidTag:
            raise BlockCorrupt(cid, "it was not sealed for this job and key generation") from None
        return _unpack(cid, plaintext, max_length)

    def _cipher(self, generation: int) -> tuple[AESGCM, bytes]:
        ciphers: dict[int, tuple[AESGCM, bytes]] = self.__dict__["_ciphers"]
        if generation not in ciphers:
            raise KeyMissing(generation)
        return ciphers[generation]


def _hex_bytes(text: str, size: int) -> bytes:
    data = bytes.fromhex(text.removeprefix("0x"))
    if len(data) != size:
        raise ValueError(f"{text!r} is not {size} bytes of hex")
    return data


def _pack(payload: bytes) -> bytes:
    """Codec byte and payload; zstd when it saves at least 1/16."""
    compressor: zstandard.ZstdCompressor | None = getattr(_local, "compressor", None)
    if compressor is None:
        compressor = _local.compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
    packed = compressor.compress(payload)
    if len(packed) <= len(payload) - (len(payload) >> 4) - 1:
        return _ZSTD + packed
    return _RAW + payload


def _unpack(cid: CID, plaintext: bytes, max_length: int) -> bytes:
    codec, body = plaintext[:1], plaintext[1:]
    if codec == _ZSTD:
        try:
            # The frame's own size is checked before anything is allocated for it.
            size = zstandard.get_frame_parameters(body).content_size
            if size > max_length:
                raise BlockCorrupt(cid, f"it unpacks to more than {max_length} bytes")
            decompressor: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
            if decompressor is None:
                decompressor = _local.decompressor = zstandard.ZstdDecompressor()
            body = decompressor.decompress(body, max_output_size=max_length)
        except zstandard.ZstdError:
            raise BlockCorrupt(cid, "its zstd frame is broken") from None
    elif codec != _RAW:
        raise BlockCorrupt(cid, f"codec {codec.hex()} is unknown")
    if len(body) > max_length:
        raise BlockCorrupt(cid, f"it unpacks to more than {max_length} bytes")
    return body
