"""Backups that check themselves: one look at the bytes says which version they are, or that they are torn.

A body names its backup, its version and its length, and carries a hash of all of it. Half of one, one with a piece of
another, one that is too long and one under a wrong id are therefore known without remembering what was uploaded.
"""

from __future__ import annotations

import hashlib
import random
import struct

# What stands for a version where there is no backup. Versions count from 1.
ABSENT = 0

# The smallest that is a backup at all: a nonce, a tag, and one byte.
SMALLEST = 41
# Eight bytes of the id, the version, the length; then the hash of these and of what follows it.
_HEAD = struct.Struct(">8sQI")
_HASH_BYTES = 16


class Torn(Exception):
    """Bytes that no client uploaded as they are; the text says in what way."""


class Bodies:
    """Makes the bodies of one run."""

    def __init__(self, seed: str, largest: int) -> None:
        self._largest = largest
        # Cut out at another place for each version, so that two versions differ in nearly every byte.
        self._noise = random.Random(seed).randbytes(2 * largest)

    def make(self, backup: str, version: int, length: int) -> bytes:
        """The body of this version of the backup with the id `backup`."""
        head = _HEAD.pack(bytes.fromhex(backup[:16]), version, length)
        start = version * 7919 % self._largest
        filling = self._noise[start : start + length - _HEAD.size - _HASH_BYTES]
        return head + _hash(head, filling) + filling

    def length(self, choice: random.Random) -> int:
        """A length: the bounds, those around a page, small, middle and large ones, all often enough."""
        kind = choice.randrange(10)
        if kind == 0:
            return choice.choice([SMALLEST, SMALLEST + 1, 4095, 4096, 4097, self._largest - 1, self._largest])
        if kind <= 3:
            return choice.randint(SMALLEST, 4096)
        if kind <= 7:
            return choice.randint(4096, 65536)
        return choice.randint(65536, self._largest)


def read(backup: str, body: bytes) -> int:
    """The version that `body` is; `Torn` if it is not one whole version of the backup with this id."""
    if len(body) < SMALLEST:
        raise Torn(f"{len(body)} bytes, which is less than any upload had")
    name, version, length = _HEAD.unpack_from(body)
    after_hash = _HEAD.size + _HASH_BYTES
    if name != bytes.fromhex(backup[:16]):
        raise Torn(f"{len(body)} bytes that do not begin as an upload under this id does")
    if length != len(body):
        raise Torn(f"{len(body)} bytes that begin as version {version}, which has {length}")
    if body[_HEAD.size : after_hash] != _hash(body[: _HEAD.size], body[after_hash:]):
        raise Torn(f"{length} bytes that begin as version {version}, with something else in them")
    return int(version)


def _hash(head: bytes, filling: bytes) -> bytes:
    hashed = hashlib.blake2b(head, digest_size=_HASH_BYTES)
    hashed.update(filling)
    return hashed.digest()
