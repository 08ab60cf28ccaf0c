#!/usr/bin/env python3
"""The Threema Safe backup format: a second reading of it, beside the one in `src/backup/`.

    password, Threema ID  ->  scrypt  ->  backup id (32 bytes), key (32 bytes)
    document (JSON)       ->  gzip    ->  XSalsa20-Poly1305  ->  nonce (24) | tag (16) | ciphertext

Nothing is shared with the program that it checks: scrypt is OpenSSL's, the cipher is libsodium's,
inflating is zlib's, and gzip around it is read here, byte by byte (RFC 1952).

As a command it seals and opens single backups. The password is every byte of a file:

    safe_backup.py seal PASSWORD_FILE THREEMA_ID [LEVEL] <document >backup
    safe_backup.py open PASSWORD_FILE THREEMA_ID <backup >document

LEVEL is gzip's, from 0 to 9; without it 0, as the apps write.
Needs Python 3.8 and PyNaCl (`pip install pynacl`, or the package `python3-nacl`).
"""

import hashlib
import json
import os
import re
import struct
import sys
import zlib

try:
    from nacl.bindings import crypto_secretbox, crypto_secretbox_open
    from nacl.exceptions import CryptoError
except ImportError:
    sys.exit("PyNaCl is missing: pip install pynacl, or the package python3-nacl")

NONCE_LENGTH = 24
TAG_LENGTH = 16
OVERHEAD = NONCE_LENGTH + TAG_LENGTH
# How large a document may be: the bound of the Rust program, in bytes.
INFLATE_LIMIT = 64 << 20
# How many arrays and objects may stand within each other. (Python's own parser takes about 1000.)
LEVELS = 16384

# The outcomes, by the names that they have in the vectors.
SUCCESS = "success"
TOO_SHORT = "too short"
WRONG_PASSWORD_OR_DAMAGED = "wrong password or damaged"
NOT_GZIP = "not gzip"
BROKEN_GZIP = "broken gzip"
TOO_LARGE = "too large"
NOT_JSON = "not json"
NOT_AN_OBJECT = "not an object"
TOO_DEEP = "too deep"


class Refused(Exception):
    """A backup that does not open; the argument is one of the outcomes."""


def derive(password, threema_id):
    """The backup id and the key of a password and a Threema ID, all of them bytes.

    The password counts byte by byte: nothing is trimmed, nothing is normalised.
    """
    if len(threema_id) != 8:
        raise ValueError("a Threema ID has 8 bytes")
    derived = hashlib.scrypt(
        password, salt=threema_id, n=65536, r=8, p=1, dklen=64, maxmem=128 << 20
    )
    return derived[:32], derived[32:]


# Sealing


# The header that Android writes: magic, deflate, no flags, no time, no extra flags, system 0.
ANDROID_HEADER = bytes.fromhex("1f8b0800000000000000")


def stored(contents, block_length=65535):
    """Deflate without compression (RFC 1951 section 3.2.4), in blocks of so many bytes."""
    starts = range(0, max(len(contents), 1), block_length)
    blocks = b""
    for start in starts:
        block = contents[start : start + block_length]
        last = start == starts[-1]
        blocks += struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block
    return blocks


def gzip_member(contents, deflated=None, header=ANDROID_HEADER):
    """A member of gzip: header, deflated contents (if not given, stored), checksum and length."""
    deflated = stored(contents) if deflated is None else deflated
    trailer = struct.pack("<II", zlib.crc32(contents), len(contents) & 0xFFFFFFFF)
    return header + deflated + trailer


def encrypt(gzip, key, nonce):
    """Seals what is inside a backup; libsodium already writes the tag before the ciphertext."""
    return nonce + crypto_secretbox(gzip, nonce, key)


# Opening


def open_backup(sealed, key, limit=INFLATE_LIMIT):
    """The document in a sealed backup, which may have at most `limit` bytes."""
    if len(sealed) <= OVERHEAD:
        raise Refused(TOO_SHORT)
    try:
        gzip = crypto_secretbox_open(sealed[NONCE_LENGTH:], sealed[:NONCE_LENGTH], key)
    except CryptoError:
        raise Refused(WRONG_PASSWORD_OR_DAMAGED) from None
    document = gunzip(gzip, limit)
    check_document(document)
    return document


def gunzip(gzip, limit):
    """The contents of all members. What follows them and has no magic is left alone, as in Java."""
    if not gzip.startswith(b"\x1f\x8b"):
        raise Refused(NOT_GZIP)
    contents = b""
    while gzip.startswith(b"\x1f\x8b"):
        member, gzip = gunzip_member(gzip, limit - len(contents))
        contents += member
    return contents


def gunzip_member(gzip, limit):
    """The contents of the first member, and what follows it."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        contents = inflater.decompress(gzip[header_length(gzip) :], limit + 1)
    except zlib.error:
        raise Refused(BROKEN_GZIP) from None
    if len(contents) > limit:
        raise Refused(TOO_LARGE)
    trailer, rest = inflater.unused_data[:8], inflater.unused_data[8:]
    expected = struct.pack("<II", zlib.crc32(contents), len(contents) & 0xFFFFFFFF)
    if not inflater.eof or trailer != expected:
        raise Refused(BROKEN_GZIP)
    return contents, rest


def header_length(gzip):
    """How long the header of a member is (RFC 1952 section 2.3); magic was seen."""
    has_crc, has_extra, has_name, has_comment, reserved = 0x02, 0x04, 0x08, 0x10, 0xE0
    if len(gzip) < 10 or gzip[2] != 8 or gzip[3] & reserved:
        raise Refused(BROKEN_GZIP)
    flags, length = gzip[3], 10
    if flags & has_extra:
        length += 2 + int.from_bytes(gzip[length : length + 2], "little")
    for flag in (has_name, has_comment):
        if flags & flag:
            end = gzip.find(b"\0", length)
            if end == -1:
                raise Refused(BROKEN_GZIP)
            length = end + 1
    if flags & has_crc:
        expected = (zlib.crc32(gzip[:length]) & 0xFFFF).to_bytes(2, "little")
        if gzip[length : length + 2] != expected:
            raise Refused(BROKEN_GZIP)
        length += 2
    if length > len(gzip):
        raise Refused(BROKEN_GZIP)
    return length


def check_document(document):
    """Any JSON object in UTF-8 (RFC 8259) is a document."""

    def not_a_number(name):
        raise ValueError(name)

    if levels(document) > LEVELS:
        raise Refused(TOO_DEEP)
    try:
        value = json.loads(document.decode("utf-8"), parse_constant=not_a_number)
    except ValueError:
        raise Refused(NOT_JSON) from None
    if not isinstance(value, dict):
        raise Refused(NOT_AN_OBJECT)


def levels(document):
    """How many arrays and objects stand within each other at the most."""
    level = deepest = 0
    for bracket in re.findall(rb'[][{}]|"(?:[^"\\]|\\.)*"?', document, re.DOTALL):
        level += bracket in (b"[", b"{")
        level -= bracket in (b"]", b"}")
        deepest = max(deepest, level)
    return deepest


def main(arguments):
    """The command: what it says goes to stderr, what it makes to stdout."""
    if len(arguments) not in (3, 4) or arguments[0] not in ("seal", "open"):
        sys.exit(__doc__)
    command, password_file, threema_id, *level = arguments
    with open(password_file, "rb") as file:
        _, key = derive(file.read(), threema_id.encode("ascii"))
    read = sys.stdin.buffer.read()
    if command == "open":
        try:
            made = open_backup(read, key)
        except Refused as refused:
            sys.exit(str(refused))
    else:
        deflater = zlib.compressobj(int(level[0]) if level else 0, wbits=-zlib.MAX_WBITS)
        gzip = gzip_member(read, deflater.compress(read) + deflater.flush())
        made = encrypt(gzip, key, os.urandom(NONCE_LENGTH))
    sys.stdout.buffer.write(made)


if __name__ == "__main__":
    main(sys.argv[1:])
