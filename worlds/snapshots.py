"""Snapshots of environments as bytes: versioned, checksummed, without pickle.

The emulator accepts most of its states with flipped bits without an error (measured: 28 of 30).
`unseal` therefore verifies the checksum before it returns any part of a snapshot.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import Any

from modules.messages import WorldError
from modules.strange_files import plain_json

_MAGIC = b"SXTW"
_VERSION = 1
_DIGEST_BYTES = 32
MOST_BLOB = 1 << 26
"""The largest state of an environment, bytes."""
_HEAD = struct.Struct("<4sHI")


def seal(identity: dict[str, Any], facts: dict[str, Any], blobs: list[bytes]) -> bytes:
    """A snapshot: the environment's `identity` and `facts` as JSON, the `blobs` compressed.

    Layout: SHA-256, magic, version, length of the JSON header, header, blobs.
    """
    packed = [zlib.compress(blob, 1) for blob in blobs]
    header = json.dumps(
        {"identity": identity, "facts": facts, "sizes": [len(blob) for blob in packed]},
        separators=(",", ":"),
    ).encode()
    body = b"".join([_HEAD.pack(_MAGIC, _VERSION, len(header)), header, *packed])
    return hashlib.sha256(body).digest() + body


def unseal(data: bytes, identity: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """The facts and blobs of a snapshot.

    Raises: WorldError if the bytes are damaged, written by a later version, or of an environment
    whose identity differs.
    """
    body = data[_DIGEST_BYTES:]
    if len(body) < _HEAD.size or hashlib.sha256(body).digest() != data[:_DIGEST_BYTES]:
        raise WorldError(
            f"snapshot: expected intact bytes, got {len(data)} bytes whose checksum differs; "
            "take an older snapshot"
        )
    magic, version, length = _HEAD.unpack_from(body)
    if magic != _MAGIC or version > _VERSION:
        raise WorldError(
            f"snapshot: expected version {_VERSION} or older, got {version}; update sextet"
        )
    facts, sizes, stored = _header(body[_HEAD.size : _HEAD.size + length])
    for name in dict.fromkeys((*identity, *stored)):
        if stored.get(name) != identity.get(name):
            raise WorldError(
                f"snapshot {name}: expected {identity.get(name)!r}, got {stored.get(name)!r}; "
                "restore it into an environment with the settings it was taken with"
            )
    blobs, offset = [], _HEAD.size + length
    for size in sizes:
        blobs.append(_blob(body[offset : offset + size]))
        offset += size
    if offset != len(body):
        raise WorldError(f"snapshot: expected {offset} bytes, got {len(body)}")
    return facts, blobs


def _header(text: bytes) -> tuple[dict[str, Any], list[int], dict[str, Any]]:
    """Facts, sizes of the blobs, and identity. Raises WorldError."""
    try:
        header = plain_json(text)
        facts, sizes, stored = header["facts"], header["sizes"], header["identity"]
    except (ValueError, KeyError, TypeError) as error:
        raise WorldError(f"snapshot: expected a header, got {error}") from None
    whole = isinstance(sizes, list) and all(type(size) is int and size >= 0 for size in sizes)
    if not (isinstance(facts, dict) and whole and isinstance(stored, dict)):
        raise WorldError("snapshot: expected facts, sizes and an identity, got others")
    return facts, sizes, stored


def _blob(packed: bytes) -> bytes:
    opened = zlib.decompressobj()
    try:
        data = opened.decompress(packed, MOST_BLOB)
    except zlib.error as error:
        raise WorldError(f"snapshot: expected compressed bytes, got {error}") from None
    if not opened.eof:
        raise WorldError(f"snapshot: expected at most {MOST_BLOB:,} bytes a blob, got more")
    return data
