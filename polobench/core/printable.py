"""Text that others wrote, made safe for one line of a terminal."""

from __future__ import annotations


def printable(text: object) -> str:
    """The text on one line, without control characters: names and reasons come from studies and plug-ins."""
    return "".join(sign if sign.isprintable() else " " for sign in str(text))
