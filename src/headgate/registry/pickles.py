"""Tells pickles from other bytes by walking their opcodes. Nothing is ever unpickled.

Source: the opcode table of Python's pickletools (protocols 0 to 5), restated here so that neither module is imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_STOP = 0x2E
_MAX_STEPS = 4096
_SURE_STEPS = 12  # bytes that walk this far without a mistake are taken for a pickle that goes on

_NAME = re.compile(rb"[A-Za-z_][\w.<>]*")
_TEXT_LINE = re.compile(rb"""(?:'.*'|".*")""")
_NUMBER_LINE = re.compile(rb"[+-]?[0-9]+L?")
_FLOAT_LINE = re.compile(rb"[+-]?(?:[0-9.]+(?:[eE][+-]?[0-9]+)?|inf|nan)")

# Opcodes with no argument, in all protocols.
_PLAIN = frozenset(b"(.012NR)]}albdeostuQ" + bytes((0x81, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8F)))
_PLAIN_LATE = frozenset((0x90, 0x91, 0x92, 0x93, 0x94, 0x97, 0x98))
# Opcodes with an argument of fixed length in bytes.
_FIXED = {
    **dict.fromkeys(b"Khq\x80\x82", 1),
    **dict.fromkeys(b"M\x83", 2),
    **dict.fromkeys(b"Jjr\x84", 4),
    **dict.fromkeys(b"G\x95", 8),
}
# Opcodes whose argument begins with its length: bytes of that length.
_COUNTED = {
    **dict.fromkeys(b"UC\x8a\x8c", 1),
    **dict.fromkeys(b"TBX\x8b", 4),
    **dict.fromkeys(b"\x8d\x8e\x96", 8),
}
# Opcodes whose argument is one line of text that must look so.
_LINES = {
    **dict.fromkeys(b"ILgp", _NUMBER_LINE),
    ord("F"): _FLOAT_LINE,
    ord("S"): _TEXT_LINE,
    ord("V"): re.compile(rb".*"),
    ord("P"): re.compile(rb".+"),
}


def looks_pickled(head: bytes, *, whole: bool) -> bool:
    """Whether `head`, the beginning of some bytes, is the beginning of a pickle of any protocol.

    `whole` says that `head` is all there is. Protocols 2 and later announce themselves by 0x80 and their number;
    0 and 1 do not, so their opcodes are walked: a pickle either reaches its STOP or goes far without a mistake.
    """
    if len(head) >= 3 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return True
    steps, position, structure = 0, 0, False
    while position < len(head) and steps < _MAX_STEPS:
        code = head[position]
        if code == _STOP:
            # "1." or "N." is far likelier a word of text than a pickle of nothing: ask for something built.
            return structure and steps >= 2
        structure = structure or code in b"(]})cpqrSVIFLXUTKJM"
        after = _step(head, position, code)
        if after is None:
            return False
        if after > len(head):
            return not whole and structure and steps >= 2
        position, steps = after, steps + 1
    return structure and steps >= _SURE_STEPS and not whole


def _step(head: bytes, position: int, code: int) -> int | None:
    """Where the next opcode begins; past the end when the argument does; None when this is no opcode."""
    argument = position + 1
    if code in _PLAIN or code in _PLAIN_LATE:
        return argument
    if code in _FIXED:
        return argument + _FIXED[code]
    if code in _COUNTED:
        width = _COUNTED[code]
        return argument + width + int.from_bytes(head[argument : argument + width], "little")
    if code in _LINES:
        return _line(head, argument, _LINES[code].fullmatch)
    if code in b"ci":
        middle = _line(head, argument, _NAME.fullmatch)
        return middle if middle is None or middle > len(head) else _line(head, middle, _NAME.fullmatch)
    return None


def _line(head: bytes, start: int, fits: Callable[[bytes], object]) -> int | None:
    end = head.find(b"\n", start)
    if end < 0:
        return len(head) + 1
    return end + 1 if fits(head[start:end].rstrip(b"\r")) else None
