#!/usr/bin/env python3
"""Makes the vectors in this folder: one text file for each cause. README.md explains their keys.

    make.py           writes the files, the same bytes every time, and removes those it does not make
    make.py --check   compares, lists what differs, is missing or too many, and exits with 1 if any

Every vector is opened by `safe_backup.py` before it is written: a file cannot expect what the second
reading of the format does not find. Needs what that needs.
"""

import base64
import hashlib
import json
import sys
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Optional

sys.dont_write_bytecode = True

from safe_backup import (  # noqa: E402 - after the line above, which is about this import
    ANDROID_HEADER,
    BROKEN_GZIP,
    INFLATE_LIMIT,
    NONCE_LENGTH,
    NOT_AN_OBJECT,
    NOT_GZIP,
    NOT_JSON,
    OVERHEAD,
    SUCCESS,
    TOO_DEEP,
    TOO_LARGE,
    TOO_SHORT,
    WRONG_PASSWORD_OR_DAMAGED,
    Refused,
    derive,
    encrypt,
    gzip_member,
    open_backup,
    stored,
)

FOLDER = Path(__file__).resolve().parent
DERIVES = "derives"
COLUMNS = 80
# A document that is longer than this stands in its file as its hash.
LONGEST_LINE = 1000

# Up to here every compressor writes one stored block; longer contents it divides as it likes.
ONE_BLOCK = 4096

# The envelopes' password and ID, unless the cause lies there: scrypt takes its time.
PASSWORD = b"shootdeathstar"
THREEMA_ID = b"ECHOECHO"
# A password in which Unicode's two normal forms differ.
COMPOSED = "p\u00fcssiK\u00f6sch-\u00e9".encode()
DECOMPOSED = "pu\u0308ssiKo\u0308sch-e\u0301".encode()

DOCUMENT = (
    '{"info":{"version":1,"device":"harness/en"},"user":{"privatekey":'
    '"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","nickname":"t\u00e9st","links":[]},"contacts":[],'
    '"groups":[],"distributionlists":[],"settings":{"syncContacts":false}}'
).encode()

# A document that repeats itself enough for the compression levels to differ.
CONTACTS = json.dumps(
    {
        "info": {"version": 1, "device": "sample/en"},
        "user": {"privatekey": base64.b64encode(bytes(range(32))).decode()},
        "contacts": [
            {
                "identity": f"SAMPLE{number:02}",
                "publickey": base64.b64encode(bytes([number] * 32)).decode(),
                "verification": number % 3,
                "nickname": f"sample {number}",
            }
            for number in range(1, 7)
        ],
        "settings": {"syncContacts": False},
    },
    separators=(",", ":"),
).encode()

# What zlib 1.2.13 makes of them, (document, level): not made anew, because other versions of zlib
# write other bytes.
DEFLATED = {
    (DOCUMENT, 6): base64.b64decode(
        "PY7NisJAEITfpc8B3dsS2MMYf2FFFBYU2cPspE2axB6Z7kRF8kA+hy/mZBFvVcVHVd2A+OAhvUGLQcgzpB8J"
        "5NiSQ0ihtIFRZIAMXQKNYOjRU6DWKlZ4jYgxk8yc19NR4RbZ2n+PzXA1vpjNpFz+TDe77WxU2dnlnM/Lzy9I"
        "gMlVbI99uT7uojGqiSuBdP8bJ5xntU7/bQJF8M3ppXMSDfTXaDxZR/2KBVWJC+l/yZVd9i442Fqw654="
    ),
    (CONTACTS, 1): base64.b64decode(
        "jdJba4MwFAfwrzLOszB7ZQh9iNcVWjY7CitjD1mMNtRGMam2iN99KewCRiEP/7eT88s5nBYYTwtwWqhpJVjB"
        "wZlYkNCaEQoOCHwuc/pIOXQWXASt7pVlxWos6YneVAVCgYeaOHQzsvbiYuMj+8W/ol1w3O7D3eE9ck84ujbJ"
        "8/FpdW9CCi4xkQKcjxZYQrlk8t7nDW1fN4E9AQvKy1fOyE/7OHCRWVbqqRqCpYxg+TsJV404Pv/P8jBRvxiS"
        "p305W3vILLo8tUCXpyPyrC83Wx+ZRZftIXk2Is97sumqVZ0uq7vRZ56PyIu+HO9D1yy6PLjtxYi87MvZIXLN"
        "osuD215C92mBoFIynqlDb0HcOPH+Dj/FuaBd9w0="
    ),
    (CONTACTS, 6): base64.b64decode(
        "jZNba4MwGIb/yviuhWlPDKEX8bhCZbOjsDJ2kcVoQ20Uk2qL+N8XYQewCrl47r68T76XpAXG0wLsFmpaCVZw"
        "sC0DElozQsEGgc9lTh8ph86Ai6BVP1lWrMaSnuhNTSDku6iJAycjGzcuth4yX7wr2vnHaB/sDu+hc8LhtUme"
        "j0/rPoQUXGIiBdgfLbCEcslkn/OGotetb1pgQHn5yhn5iY99R5O1OqqWYCkjWP5uwlUQx+f/XR4sdYsx82xo"
        "zjauJvfm2Zh5NmGeD81N5GlybzbHzPMJ82Jg1q1aodn2YsK8HJrjfaCJZtvLCfNqaM4OoSaaba+g+zRAUCkZ"
        "z0T/Y8SNE/fv4ac4F7TrvgE="
    ),
    (CONTACTS, 9): base64.b64decode(
        "jdNba4MwFAfwrzLOs1C1F4bQh3htobLZUVgZe8hitKE2ikm1RfzuU9gFrEIe/m8n55dzSBpgPMnBaqCipWA5"
        "B8vQIKYVIxQsEPhSZHRGObQaXAUt+8qiZBWW9EzvXQVCnoPqyLdTsnWifOci/cW9ob13Cg/+/vge2Gcc3Op4"
        "c3pe901IziUmUoD10QCLKZdM9n3eUPi683QDNCiuXxkjP+0jz1bMujvaDcESRrD8nYR3jTi+/M/yZHS3GJPN"
        "oZxuHcU8yuaYbE7I86Fch65iHmV9TJ5PyIuBbKuvW3Hbiwl5OZSjg68YxW0vJ+TVUE6PgWIUt72C9lMDQaVk"
        "PBX9jxF3Tpy/h5/gTNC2/QY="
    ),
}


# A vector


@dataclass(frozen=True)
class Vector:
    """One file. `document` is for successes alone."""

    cause: str
    comment: str
    expect: str
    password: bytes = PASSWORD
    threema_id: bytes = THREEMA_ID
    sealed: Optional[bytes] = None
    limit: int = INFLATE_LIMIT
    document: Optional[bytes] = None
    sealing_again: bool = False

    def name(self):
        return name_of(self.expect, self.cause)

    def text(self):
        backup_id, key = derived(self.password, self.threema_id)
        lines = [
            f"comment: {self.comment}",
            f"expect: {self.expect}",
            password_line(self.password),
            f"threema id: {self.threema_id.decode('ascii')}",
            f"backup id: {backup_id.hex()}",
            f"key: {key.hex()}",
        ]
        if self.limit != INFLATE_LIMIT:
            lines.append(f"limit: {self.limit}")
        if self.document is not None:
            lines += document_lines(self.document)
        if self.sealing_again:
            lines.append("sealing again: same bytes")
        if self.sealed is not None:
            digits = self.sealed.hex()
            lines += [f"sealed length: {len(self.sealed)}", ""]
            lines += [digits[at : at + COLUMNS] for at in range(0, len(digits), COLUMNS)]
        return "\n".join(lines) + "\n"

    def check(self):
        """That the second reading of the format finds what the file will expect."""
        if self.sealed is None:
            return
        _, key = derived(self.password, self.threema_id)
        try:
            document, found = open_backup(self.sealed, key, self.limit), SUCCESS
        except Refused as refused:
            document, found = None, str(refused)
        if (found, document) != (self.expect, self.document):
            sys.exit(f"{self.name()}: expects {self.expect!r}, but it is {found!r}")


def name_of(expect, cause):
    return f"{expect.replace(' ', '-')}-{cause}.txt"


def password_line(password):
    text = password.decode("latin-1")
    plain = text.isascii() and text.isprintable() and text.strip() == text
    return f"password: {text}" if plain else f"password hex: {password.hex()}"


def document_lines(document):
    text = document.decode("utf-8")
    if text.isprintable() and text.strip() == text and len(text) <= LONGEST_LINE:
        return [f"document: {text}"]
    digest = hashlib.sha256(document).hexdigest()
    return [f"document sha256: {digest}", f"document length: {len(document)}"]


@lru_cache(maxsize=None)
def derived(password, threema_id):
    return derive(password, threema_id)


def sealed_under(password, threema_id, contents, nonce):
    return encrypt(contents, derived(password, threema_id)[1], nonce)


def nonce_of(name):
    """A nonce for each file, always the same."""
    return hashlib.sha256(name.encode()).digest()[:NONCE_LENGTH]


def derives(cause, comment, password, threema_id=THREEMA_ID):
    """A vector of the derivation alone."""
    return Vector(cause, comment, DERIVES, password, threema_id)


def opens(cause, comment, contents, document=DOCUMENT, nonce=None, limit=INFLATE_LIMIT):
    """A backup with these contents, which opens to the document."""
    nonce = nonce or nonce_of(name_of(SUCCESS, cause))
    sealed = sealed_under(PASSWORD, THREEMA_ID, contents, nonce)
    return Vector(
        cause,
        comment,
        SUCCESS,
        sealed=sealed,
        limit=limit,
        document=document,
        sealing_again=contents == gzip_member(document) and len(document) < ONE_BLOCK,
    )


def opens_to(cause, comment, document):
    """A backup as Android writes it, of a document that is out of the ordinary."""
    return opens(cause, comment, gzip_member(document), document)


def refused(expect, cause, comment, contents, limit=INFLATE_LIMIT):
    """A backup that decrypts; what is inside is wrong."""
    nonce = nonce_of(name_of(expect, cause))
    sealed = sealed_under(PASSWORD, THREEMA_ID, contents, nonce)
    return Vector(cause, comment, expect, sealed=sealed, limit=limit)


def damaged(cause, comment, sealed, password=PASSWORD, threema_id=THREEMA_ID):
    """A backup that does not decrypt."""
    return Vector(cause, comment, WRONG_PASSWORD_OR_DAMAGED, password, threema_id, sealed)


def changed(original, position):
    """The same bytes but for one bit at a position, which may count from the end."""
    copy = bytearray(original)
    copy[position] ^= 1
    return bytes(copy)


# Gzip and deflate, right and wrong


def header(
    method=8, text=False, extra=None, name=None, comment=None, checksum=False,
    reserved=0, time=0, extra_flags=0, system=0,
):  # fmt: skip
    """A header of gzip (RFC 1952 section 2.3) with any field."""
    flags = reserved | text << 0 | checksum << 1
    flags |= (extra is not None) << 2 | (name is not None) << 3 | (comment is not None) << 4
    made = bytes([0x1F, 0x8B, method, flags])
    made += time.to_bytes(4, "little") + bytes([extra_flags, system])
    if extra is not None:
        made += len(extra).to_bytes(2, "little") + extra
    for text_field in (name, comment):
        if text_field is not None:
            made += text_field + b"\0"
    if checksum:
        made += (zlib.crc32(made) & 0xFFFF).to_bytes(2, "little")
    return made


def bits(*fields):
    """Fields of (value, width) as deflate packs them: from the lowest bit of each byte on."""
    number = width = 0
    for value, wide in fields:
        number |= value << width
        width += wide
    return number.to_bytes((width + 7) // 8, "little")


def code(value, width):
    """A Huffman code as a field: those are packed from their highest bit on."""
    return int(format(value, f"0{width}b")[::-1], 2), width


def literal(byte):
    """A byte in the fixed code (RFC 1951 section 3.2.6)."""
    return code(0x30 + byte, 8) if byte < 144 else code(0x190 + byte - 144, 9)


FINAL_FIXED_BLOCK = [(1, 1), (1, 2)]
END_OF_BLOCK = code(0, 7)
# 258 bytes, each like the one before it: symbol 285, distance 1.
REPEAT_258 = [code(0xC5, 8), code(0, 5)]
# Three bytes from before two bytes: symbol 257, distance 2.
THREE_FROM_TWO_BACK = [code(1, 7), code(1, 5)]


def fixed(contents, repeats=0):
    """A block in the fixed code: literals, and then their last byte 258 times more, `repeats` times."""
    literals = [literal(byte) for byte in contents]
    return bits(*FINAL_FIXED_BLOCK, *literals, *REPEAT_258 * repeats, END_OF_BLOCK)


# The vectors


def derivations():
    yield derives(
        "published",
        "The vector that Threema publishes in the unit tests of its apps.",
        PASSWORD,
    )
    yield derives(
        "eight-digits", "The shortest password that the apps take.", b"12345678", b"ABCD1234"
    )
    yield derives("one-character", "A single character; no length is refused.", b"a")
    yield derives(
        "gateway-id",
        "A Threema ID with an asterisk, as gateways have.",
        b"correct horse battery staple",
        b"*THREEMA",
    )
    yield derives(
        "lowercase-id",
        "An ID in small letters is another salt; the apps spell it in capitals first.",
        PASSWORD,
        b"echoecho",
    )
    yield derives("capital-letter", "Capitals count.", b"Shootdeathstar")
    yield derives(
        "composed", "Letters with marks as one character each (NFC).", COMPOSED, b"0ABCDEFG"
    )
    yield derives(
        "decomposed",
        "The same text in the other normal form (NFD) is another password.",
        DECOMPOSED,
        b"0ABCDEFG",
    )
    yield derives(
        "emoji",
        "Characters outside the Basic Multilingual Plane are UTF-8, four bytes each.",
        "\U0001f512\U0001f511 sesame\u2026".encode(),
        b"ZZZZ9999",
    )
    yield derives("spaces-around", "Nothing is trimmed.", b" leading and trailing ")
    yield derives("line-break-at-the-end", "A line break at the end counts.", PASSWORD + b"\n")
    yield derives(
        "tab-and-line-break", "A tab and a line break within count.", b"shoot\tdeath\r\nstar"
    )
    yield derives(
        "byte-order-mark", "A byte order mark in front counts.", "\ufeffshootdeathstar".encode()
    )
    yield derives("nul-within", "U+0000 within does not end the password.", b"shoot\0deathstar")
    yield derives(
        "nul-at-the-end",
        "U+0000 at the end changes nothing: HMAC fills short keys up with zeros (see published).",
        PASSWORD + b"\0",
    )
    yield derives("64-bytes", "As long as a block of HMAC.", b"0123456789abcdef" * 4)
    longer = b"0123456789abcdef" * 4 + b"!"
    yield derives("65-bytes", "Longer than a block of HMAC, which then takes its hash.", longer)
    yield derives(
        "65-bytes-hashed",
        "The SHA-256 of the 65 bytes gives the same key; no keyboard types it, it is not UTF-8.",
        hashlib.sha256(longer).digest(),
    )
    yield derives("4096-characters", "The longest password that the apps take.", b"a" * 4096)


def gzip_variants():
    yield opens(
        "stored",
        "Level 0 and a header of zeros, as Android has written since 2022.",
        gzip_member(DOCUMENT),
        nonce=bytes(range(NONCE_LENGTH)),
    )
    yield opens(
        "deflated",
        "Level 6 and a header of zeros, as Android wrote before.",
        gzip_member(DOCUMENT, DEFLATED[DOCUMENT, 6]),
        nonce=bytes(range(NONCE_LENGTH)),
    )
    for level, extra_flags, comment in (
        (1, 4, "Level 1; the header says that the compressor tried least."),
        (6, 0, "Level 6; the header says nothing of the compressor."),
        (9, 2, "Level 9; the header says that the compressor tried hardest."),
    ):
        fields = header(extra_flags=extra_flags, system=3)
        contents = gzip_member(CONTACTS, DEFLATED[CONTACTS, level], fields)
        yield opens(f"level-{level}", comment, contents, CONTACTS)
    yield opens(
        "fixed-code", "A block in deflate's fixed code.", gzip_member(DOCUMENT, fixed(DOCUMENT))
    )
    yield opens(
        "small-stored-blocks",
        "Stored blocks of 100 bytes.",
        gzip_member(CONTACTS, stored(CONTACTS, 100)),
        CONTACTS,
    )
    yield opens(
        "empty-stored-blocks",
        "Empty stored blocks before and after the one with the document.",
        gzip_member(DOCUMENT, b"\0\0\0\xff\xff\0" + stored(DOCUMENT)[1:] + stored(b"")),
    )
    large = b'{"sample":"' + b"0123456789abcdef" * 4096 + b'"}'
    yield opens(
        "largest-stored-block",
        "A stored block of 65535 bytes, the most there can be, and what is left in a second.",
        gzip_member(large),
        large,
    )

    for cause, comment, fields in (
        ("header-ios", "The header of iOS at level 0.", dict(extra_flags=4, system=0x13)),
        ("header-ios-deflating", "The header of iOS at level 6.", dict(system=0x13)),
        ("header-linux", "The header of zlib on Linux at level 0.", dict(extra_flags=4, system=3)),
        ("header-unknown-system", "Operating system 255, unknown.", dict(system=255)),
        ("header-text", "FTEXT, which says that the contents are probably text.", dict(text=True)),
        ("header-time", "A time.", dict(time=1704067200)),
        ("header-name", "A file name.", dict(name=b"backup.json")),
        ("header-empty-name", "A file name of no characters.", dict(name=b"")),
        ("header-comment", "A comment.", dict(comment=b"made by hand")),
        ("header-extra", "An extra field.", dict(extra=b"Sa\x04\x00safe")),
        ("header-empty-extra", "An extra field of no bytes.", dict(extra=b"")),
        ("header-extra-with-magic", "An extra field that begins as gzip does.", dict(extra=b"\x1f\x8b\x08\0")),
        ("header-checksum", "A checksum of the header.", dict(checksum=True)),
        (
            "header-everything",
            "Every field that a header can have.",
            dict(
                text=True, time=1704067200, extra_flags=2, system=11, extra=b"Sa\x04\x00safe",
                name=b"backup.json", comment=b"made by hand", checksum=True,
            ),
        ),
    ):  # fmt: skip
        yield opens(cause, comment, gzip_member(DOCUMENT, header=header(**fields)))

    half, other_half = gzip_member(DOCUMENT[:100]), gzip_member(DOCUMENT[100:])
    empty = gzip_member(b"")
    yield opens("two-members", "Two members are one document.", half + other_half)
    yield opens(
        "two-unlike-members",
        "Two members with other headers and other blocks.",
        gzip_member(DOCUMENT[:100], fixed(DOCUMENT[:100]), header(name=b"1", checksum=True))
        + other_half,
    )
    yield opens(
        "three-members",
        "Three members are one document.",
        b"".join(gzip_member(part) for part in (DOCUMENT[:7], DOCUMENT[7:200], DOCUMENT[200:])),
    )
    yield opens(
        "empty-member-first", "A first member without contents.", empty + gzip_member(DOCUMENT)
    )
    yield opens(
        "empty-member-last", "A last member without contents.", gzip_member(DOCUMENT) + empty
    )
    yield opens(
        "empty-member-within",
        "A member without contents between two others.",
        half + empty + other_half,
    )
    yield opens(
        "hundred-empty-members",
        "A hundred members without contents before the document.",
        empty * 100 + gzip_member(DOCUMENT),
    )
    for cause, comment, following in (
        ("zeros-after", "Zeros after the last member, as of a tape.", bytes(512)),
        ("text-after", "Text after the last member is left alone.", b"\r\n-- \r\nno gzip here\r\n"),
        ("document-after", "Another document after the last member is left alone.", DOCUMENT),
        ("half-magic-after", "Half of the magic after the last member is left alone.", b"\x1f"),
        ("other-magic-after", "A byte off the magic after the last member is left alone.", b"\x1f\x9d\x90"),
        ("member-after-zero", "A member after a byte that is none is left alone.", b"\0" + gzip_member(DOCUMENT)),
    ):  # fmt: skip
        yield opens(cause, comment, gzip_member(DOCUMENT) + following)

    yield opens(
        "exactly-the-limit",
        "A document of exactly as many bytes as are allowed.",
        gzip_member(DOCUMENT),
        limit=len(DOCUMENT),
    )
    yield opens(
        "million-spaces",
        "A document a hundred times as large as its backup, within the limit.",
        gzip_member(b"{} " + b" " * 258 * 4000, fixed(b"{} ", 4000)),
        b"{} " + b" " * 258 * 4000,
    )


def documents():
    nested = b'{"a":' + b"[" * 500 + b"]" * 500 + b"}"
    for cause, comment, document in (
        ("empty-object", "An object without anything.", b"{}"),
        (
            "unknown-fields",
            "Fields of the future, at every level.",
            b'{"info":{"version":1,"device":"sample/en","build":7},"user":{"privatekey":'
            b'"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","colour":"green"},"contacts":[{"identity":'
            b'"SAMPLE01","mood":{"today":[1,null]}}],"settings":{"syncContacts":false,"volume":11},'
            b'"stickers":[]}',
        ),
        ("duplicate-keys", "The same key twice, in the outermost object and within.",
         b'{"a":1,"a":2,"b":{"c":1,"c":1}}'),
        ("keys-in-no-order", "Keys that a sorting program would move.", b'{"z":1,"a":2,"m":3,"":4}'),
        ("escaped-slashes", "Slashes with a backslash, as iOS and PHP write them.",
         b'{"device":"sample\\/en","a":"a/b"}'),
        ("escaped-letters", "Letters and an emoji as escapes.",
         b'{"a":"t\\u00e9st","b":"\\uD83D\\ude00","\\u0063":"\\u0000"}'),
        ("lone-surrogate", "Half of an emoji as an escape: JSON's grammar allows it.", b'{"nickname":"\\ud83d"}'),
        ("emoji", "Emoji, one of them of several characters, as UTF-8.",
         '{"nickname":"\U0001f600 \U0001f469\u200d\U0001f4bb"}'.encode()),
        ("both-normal-forms", "The same letter in both normal forms stays in both.",
         '{"nfc":"\u00e9","nfd":"e\u0301"}'.encode()),
        ("line-separators", "U+2028 and U+007F need no escape in JSON.", '{"a":"\u2028\u007f"}'.encode()),
        ("numbers", "Numbers that no machine type holds, and spellings that a program would shorten.",
         b'{"a":1e400,"b":123456789012345678901234567890,"c":2.50,"d":-0,"e":1E+2}'),
        ("spaces-around", "White space of every kind that JSON knows, around and within.",
         b" \t\r\n{ \"a\" :\t1\r\n}\n \t"),
        ("line-breaks", "A document on several lines.", b'{\n  "info": {\n    "version": 1\n  }\n}\n'),
        ("nested", "500 arrays in each other.", nested),
    ):  # fmt: skip
        yield opens_to(cause, comment, document)


def too_short():
    backup = sealed_under(PASSWORD, THREEMA_ID, gzip_member(DOCUMENT), nonce_of(TOO_SHORT))
    for cause, comment, sealed in (
        ("nothing", "No bytes.", b""),
        ("one-byte", "One byte.", backup[:1]),
        ("nonce", "A nonce and nothing else.", backup[:NONCE_LENGTH]),
        (
            "part-of-the-tag",
            "A nonce and all of the tag but its last byte.",
            backup[: OVERHEAD - 1],
        ),
        (
            "no-ciphertext",
            "A nonce and the right tag of an empty ciphertext: it would decrypt, to nothing.",
            sealed_under(PASSWORD, THREEMA_ID, b"", nonce_of(TOO_SHORT)),
        ),
    ):
        yield Vector(cause, comment, TOO_SHORT, sealed=sealed)


def damages():
    contents, nonce = gzip_member(DOCUMENT), nonce_of(WRONG_PASSWORD_OR_DAMAGED)
    backup_id, key = derived(PASSWORD, THREEMA_ID)
    backup = encrypt(contents, key, nonce)
    tag, ciphertext = backup[NONCE_LENGTH:OVERHEAD], backup[OVERHEAD:]
    for cause, comment, sealed in (
        ("first-byte", "A changed bit in the first byte of the nonce.", changed(backup, 0)),
        ("nonce-first-half", "A changed bit in the part of the nonce that makes the subkey.", changed(backup, 15)),
        ("nonce-second-half", "A changed bit in the last byte of the nonce.", changed(backup, 23)),
        ("tag-first-byte", "A changed bit in the first byte of the tag.", changed(backup, 24)),
        ("tag-last-byte", "A changed bit in the last byte of the tag.", changed(backup, 39)),
        ("tag-zero", "A tag of zeros.", nonce + bytes(16) + ciphertext),
        ("ciphertext-first-byte", "A changed bit in the first byte of the ciphertext.", changed(backup, 40)),
        ("ciphertext-33rd-byte", "A changed bit in the cipher's second block; the first also holds the tag's key.",
         changed(backup, 72)),
        ("last-byte", "A changed bit in the last byte.", changed(backup, -1)),
        ("byte-missing-at-the-end", "The last byte is missing.", backup[:-1]),
        ("byte-missing-in-front", "The first byte is missing.", backup[1:]),
        ("byte-more-at-the-end", "A zero after the end.", backup + b"\0"),
        ("byte-more-in-front", "A zero in front.", b"\0" + backup),
        ("line-break-at-the-end", "A line break after the end, as an editor adds it.", backup + b"\n"),
        ("half", "The first half, as of a transfer that broke off.", backup[: len(backup) // 2]),
        ("41-bytes", "As short as a backup can be, and nothing but zeros.", bytes(41)),
        ("tag-at-the-end", "The tag behind the ciphertext, as most other formats have it.", nonce + ciphertext + tag),
        ("nonce-at-the-end", "The nonce behind the ciphertext.", tag + ciphertext + nonce),
        ("no-nonce", "Tag and ciphertext without the nonce.", tag + ciphertext),
        ("hexadecimal", "A backup in hexadecimal digits.", backup.hex().encode()),
        ("web-page", "No backup but a page for people, as of a captive portal.",
         b"<!DOCTYPE html>\n<title>Sign in to the network</title>\n"),
        ("not-encrypted", "Gzip where the ciphertext should be.", nonce + tag + contents),
        ("key-halves-swapped", "Sealed under the first half of scrypt's output, which is the backup id.",
         encrypt(contents, backup_id, nonce)),
        ("key-all-zero", "Sealed under a key of zeros.", encrypt(contents, bytes(32), nonce)),
    ):  # fmt: skip
        yield damaged(cause, comment, sealed)

    composed = sealed_under(COMPOSED, b"0ABCDEFG", contents, nonce)
    padded = sealed_under(b" leading and trailing ", THREEMA_ID, contents, nonce)
    for cause, comment, sealed, password, threema_id in (
        ("capital-letter", "The password with a capital letter.", backup, b"Shootdeathstar", THREEMA_ID),
        ("line-break-in-the-password", "The password with a line break at its end.",
         backup, PASSWORD + b"\n", THREEMA_ID),
        ("trimmed-password", "The password without its spaces.", padded, b"leading and trailing", THREEMA_ID),
        ("decomposed-password", "The password in the other normal form.", composed, DECOMPOSED, b"0ABCDEFG"),
        ("another-id", "Another person's Threema ID.", backup, PASSWORD, b"ABCD1234"),
        ("lowercase-id", "The Threema ID in small letters.", backup, PASSWORD, b"echoecho"),
    ):  # fmt: skip
        yield damaged(cause, comment, sealed, password, threema_id)


def wrong_contents():
    member, deflated = gzip_member(DOCUMENT), DEFLATED[CONTACTS, 6]
    adler = zlib.adler32(DOCUMENT).to_bytes(4, "big")
    for cause, comment, contents in (
        ("document", "The document itself, without gzip.", DOCUMENT),
        ("one-byte", "One byte, the least that there can be.", b"{"),
        ("half-magic", "The first byte of gzip and no more.", b"\x1f"),
        ("other-magic", "The second byte of the magic is another.", b"\x1f\x8c" + member[2:]),
        ("byte-in-front", "Gzip after a byte that does not belong there.", b"\0" + member),
        ("zlib", "Deflate in zlib's wrapping instead of gzip's.", b"\x78\x01" + stored(DOCUMENT) + adler),
        ("raw-deflate", "Deflate without any wrapping.", deflated),
        ("sealed-twice", "A sealed backup in a sealed backup.",
         sealed_under(PASSWORD, THREEMA_ID, member, nonce_of("inner"))),
    ):  # fmt: skip
        yield refused(NOT_GZIP, cause, comment, contents)

    compressed = gzip_member(CONTACTS, deflated)
    extra_promised = header(extra=b"Sa\x04\x00safe")
    named, checked = header(name=b"backup.json"), header(name=b"backup.json", checksum=True)
    two_back = bits(*FINAL_FIXED_BLOCK, literal(ord("{")), *THREE_FROM_TWO_BACK, END_OF_BLOCK)
    into_the_first = bits(*FINAL_FIXED_BLOCK, *THREE_FROM_TWO_BACK, END_OF_BLOCK)
    for cause, comment, contents in (
        ("cut-after-magic", "Ends after the magic.", member[:2]),
        ("cut-in-the-header", "Ends before the last byte of the header.", member[:9]),
        ("cut-after-the-header", "Ends after the header.", member[:10]),
        ("cut-in-the-extra-field", "Ends within the extra field.", extra_promised[:-1]),
        ("cut-in-the-extra-length", "Ends within the length of the extra field.", extra_promised[:11]),
        ("cut-in-the-name", "Ends within the file name.", named[:-1]),
        ("cut-in-the-header-checksum", "Ends within the checksum of the header.", checked[:-1]),
        ("cut-in-stored-data", "Ends within a stored block.", member[:100]),
        ("cut-in-deflated-data", "Ends within a deflated block.", compressed[:200]),
        ("cut-before-the-last-block", "Ends after a block that is not the last.", member[:10] + b"\0" + member[11:-8]),
        ("cut-before-the-trailer", "Ends before checksum and length.", member[:-8]),
        ("cut-in-the-checksum", "Ends within the checksum.", member[:-6]),
        ("cut-before-the-length", "Ends before the length.", member[:-4]),
        ("cut-in-the-length", "Ends before the last byte of the length.", member[:-1]),
        ("wrong-checksum", "The checksum is another.", changed(member, -8)),
        ("checksum-backwards", "The checksum with its bytes in the other order.",
         member[:-8] + member[-8:-4][::-1] + member[-4:]),
        ("wrong-length", "The length is another.", changed(member, -4)),
        ("wrong-data", "A byte of the document is another.", changed(member, 50)),
        ("wrong-method", "Compression method 7, which is reserved.", header(method=7) + member[10:]),
        ("reserved-flag-20", "Flag 0x20, which is reserved.", header(reserved=0x20) + member[10:]),
        ("reserved-flag-40", "Flag 0x40, which is reserved.", header(reserved=0x40) + member[10:]),
        ("reserved-flag-80", "Flag 0x80, which is reserved.", header(reserved=0x80) + member[10:]),
        ("wrong-header-checksum", "The checksum of the header is another.", changed(checked, -1) + member[10:]),
        ("block-type-3", "A block of type 3, which is reserved.",
         gzip_member(DOCUMENT, bits((1, 1), (3, 2)) + DOCUMENT)),
        ("stored-lengths-disagree", "The length of a stored block and its complement disagree.", changed(member, 13)),
        ("too-many-codes", "A dynamic block that announces 288 codes for literals and lengths.",
         gzip_member(b"", bits((1, 1), (2, 2), (31, 5), (0, 5), (0, 4)) + bytes(8))),
        ("no-code-lengths", "A dynamic block whose code for code lengths is empty.",
         gzip_member(b"", bits((1, 1), (2, 2), (0, 5), (0, 5), (0, 4)) + bytes(8))),
        ("distance-too-far", "A repetition from before the beginning.", gzip_member(b"{{{{", two_back)),
        ("distance-into-the-first-member", "A second member that repeats from the first.",
         gzip_member(b"{}") + gzip_member(b"{}{", into_the_first)),
        ("wrong-checksum-of-the-second", "The checksum of a second member is another.",
         member + changed(gzip_member(b" "), -8)),
        ("second-member-cut", "A second member ends within its data.", member + gzip_member(b" " * 100)[:50]),
        ("second-member-magic-only", "The magic of a second member and no more.", member + b"\x1f\x8b"),
        ("second-member-wrong-method", "What follows begins as a member does, and its method is unknown.",
         member + header(method=7) + gzip_member(b" ")[10:]),
        ("first-member-broken", "A broken first member before a good second.", changed(gzip_member(b" "), -8) + member),
    ):  # fmt: skip
        yield refused(BROKEN_GZIP, cause, comment, contents)
    yield refused(
        BROKEN_GZIP,
        "wrong-checksum-at-the-limit",
        "As many bytes as are allowed, and then a wrong checksum.",
        changed(member, -8),
        limit=len(DOCUMENT),
    )

    bomb = gzip_member(b"{} " + b" " * 258 * 4000, fixed(b"{} ", 4000))
    for cause, comment, contents, limit in (
        ("by-one-byte", "One byte more than is allowed.", member, len(DOCUMENT) - 1),
        ("bomb", "A hundred times as large as its backup.", bomb, 1_000_000),
        ("bomb-without-an-end", "Larger than allowed, and then cut: nobody reads so far.", bomb[:-20], 1_000_000),
        ("length-lies", "A bomb that says that it has two bytes.", bomb[:-4] + b"\2\0\0\0", 1_000_000),
        ("checksum-wrong-too", "Larger than allowed, and its checksum is wrong: nobody reads so far.",
         changed(member, -8), 200),
        ("two-members", "Two members, each within the limit.",
         gzip_member(DOCUMENT[:100]) + gzip_member(DOCUMENT[100:]), 150),
    ):  # fmt: skip
        yield refused(TOO_LARGE, cause, comment, contents, limit)


def no_documents():
    text = DOCUMENT.decode()
    for cause, comment, document in (
        ("empty", "No characters.", b""),
        ("spaces", "White space and nothing else.", b" \r\n"),
        ("plain-text", "Text.", b"not json"),
        ("cut", "The last brace is missing.", DOCUMENT[:-1]),
        ("cut-in-a-text", "Ends within a text.", DOCUMENT[:30]),
        ("text-after", "Text after the document.", DOCUMENT + b" x"),
        ("second-document", "Two documents.", b"{}{}"),
        ("nul-after", "U+0000 after the document, as in C.", DOCUMENT + b"\0"),
        ("byte-order-mark", "A byte order mark in front.", b"\xef\xbb\xbf" + DOCUMENT),
        ("utf-16", "UTF-16 with a byte order mark.", b"\xff\xfe" + text.encode("utf-16-le")),
        ("utf-16-without-mark", "UTF-16 without a byte order mark.", '{"a":1}'.encode("utf-16-le")),
        ("latin-1", "A letter in Latin-1.", text.encode("latin-1")),
        ("overlong-utf-8", "A slash in two bytes.", b'{"a":"\xc0\xaf"}'),
        ("surrogates-in-utf-8", "An emoji as two surrogates of three bytes each (CESU-8).",
         b'{"a":"\xed\xa0\xbd\xed\xb8\x80"}'),
        ("line-break-in-a-text", "A line break within a text, not as an escape.", b'{"a":"1\n2"}'),
        ("unknown-escape", "An escape that JSON does not have.", b'{"a":"\\x41"}'),
        ("form-feed", "White space that JSON does not know.", b"{\x0c}"),
        ("no-break-space", "White space that Unicode knows and JSON does not.", "{\u00a0}".encode()),
        ("comma-at-the-end", "A comma after the last field.", b'{"a":1,}'),
        ("comment", "A comment, as in JavaScript.", b'{"a":1/*one*/}'),
        ("single-quotes", "Single quotes.", b"{'a':1}"),
        ("key-without-quotes", "A key without quotes.", b"{a:1}"),
        ("not-a-number", "NaN, as JavaScript knows it.", b'{"a":NaN}'),
        ("zero-in-front", "A number that begins with zero.", b'{"a":01}'),
        ("capital-true", "A word in capitals.", b'{"a":True}'),
    ):  # fmt: skip
        yield refused(NOT_JSON, cause, comment, gzip_member(document))
    for cause, comment, document in (
        ("array", "An array.", b"[]"),
        ("array-of-documents", "A document in an array.", b"[" + DOCUMENT + b"]"),
        ("text", "A text.", b'"text"'),
        ("document-in-a-text", "A document as a text.", b'"{}"'),
        ("number", "A number.", b"1"),
        ("true", "A truth value, after a space.", b" true"),
        ("null", "null.", b"null"),
    ):
        yield refused(NOT_AN_OBJECT, cause, comment, gzip_member(document))
    yield refused(
        TOO_DEEP,
        "arrays",
        "16,514 levels, and then cut: nobody reads so far.",
        gzip_member(b'{"a":[' + b"[" * 258 * 64, fixed(b'{"a":[', 64)),
    )


def vectors():
    """The text of each file, by name."""
    groups = (
        derivations, gzip_variants, documents, too_short, damages, wrong_contents, no_documents,
    )  # fmt: skip
    files = {}
    for vector in (vector for group in groups for vector in group()):
        vector.check()
        if vector.name() in files:
            sys.exit(f"two vectors have the name {vector.name()}")
        files[vector.name()] = vector.text().encode()
    return files


def main(arguments):
    if arguments not in ([], ["--check"]):
        sys.exit(__doc__)
    for (document, level), deflated in DEFLATED.items():
        if zlib.decompress(deflated, -zlib.MAX_WBITS) != document:
            sys.exit(f"DEFLATED is not what it says, at level {level}")
    made = vectors()
    found = {path.name: path.read_bytes() for path in FOLDER.glob("*.txt")}
    problems = [f"missing: {name}" for name in sorted(made.keys() - found.keys())]
    problems += [f"too many: {name}" for name in sorted(found.keys() - made.keys())]
    problems += [
        f"different: {name}"
        for name in sorted(made.keys() & found.keys())
        if made[name] != found[name]
    ]
    if arguments:
        print("\n".join(problems) or f"{len(made)} vectors are as they should be")
        sys.exit(1 if problems else 0)
    for name in found.keys() - made.keys():
        (FOLDER / name).unlink()
    for name, text in made.items():
        (FOLDER / name).write_bytes(text)
    print(f"{len(made)} vectors")


if __name__ == "__main__":
    main(sys.argv[1:])
