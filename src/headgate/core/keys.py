"""API keys as text: how one is made, checked for typing errors and hashed. Knows no database.

A key is `hg_`, 43 characters that carry 256 random bits, and 6 with the CRC-32 of what stands before them: a
mistyped key is refused without a look into the database, and a scanner for leaked secrets can be sure.
"""

from __future__ import annotations

import hmac
import re
from zlib import crc32

from headgate.core.chance import Chance
from headgate.core.secret import Secret

MARK = "hg_"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY_LENGTH = 43  # 62**43 > 2**256
_CHECK_LENGTH = 6  # 62**6 > 2**32
_SHAPE = re.compile(rf"{MARK}[0-9A-Za-z]{{{_BODY_LENGTH + _CHECK_LENGTH}}}", re.ASCII)
_SHOWN_LENGTH = len(MARK) + 6


def make_key(chance: Chance) -> Secret:
    """A new key of 256 random bits. Show it once; keep only `hash_key` of it."""
    body = MARK + _encode(int.from_bytes(chance.token_bytes(32), "big"), _BODY_LENGTH)
    return Secret(body + _encode(crc32(body.encode()), _CHECK_LENGTH))


def check_shape(key: str) -> bool:
    """Whether `key` could be one of ours: mark, length, alphabet and checksum are right."""
    if not _SHAPE.fullmatch(key):
        return False
    return key[-_CHECK_LENGTH:] == _encode(crc32(key[:-_CHECK_LENGTH].encode()), _CHECK_LENGTH)


def hash_key(key: str, pepper: bytes) -> str:
    """What is kept of a key: HMAC-SHA-256 under the installation's pepper, 64 hexadecimal digits.

    Why no slow hash: a key holds 256 random bits, so there is nothing to guess; the pepper makes a stolen
    database useless on its own.
    """
    return hmac.digest(pepper, key.encode(), "sha256").hex()


def key_prefix(key: str) -> str:
    """The first characters of a key, by which people tell keys apart; safe to show and to log."""
    return key[:_SHOWN_LENGTH]


def _encode(number: int, length: int) -> str:
    digits: list[str] = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
