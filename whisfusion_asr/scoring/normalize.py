"""Text normalisers by name. The name is written beside every rate: rates under two normalisers do not compare."""

import re
import unicodedata
from collections.abc import Callable

from whisfusion_asr.errors import UserError


def none(text: str) -> str:
    """The text as it is (sclite still ignores the case of ASCII letters)."""
    return text


def basic(text: str) -> str:
    """Lower case; punctuation and symbols become blanks, except an apostrophe inside a word ("don't", not "'tis")."""
    text = unicodedata.normalize("NFC", text).lower().replace("’", "'")
    text = "".join(" " if char != "'" and unicodedata.category(char)[0] in "PS" else char for char in text)
    return " ".join(re.sub(r"(?<!\w)'|'(?!\w)", " ", text).split())


NORMALIZERS: dict[str, Callable[[str], str]] = {"none": none, "basic": basic}


def get_normalizer(name: str) -> Callable[[str], str]:
    """The function registered under a name.

    raises UserError: an unknown name
    """
    if name not in NORMALIZERS:
        raise UserError(f"normalizer '{name}' is unknown: expected one of {', '.join(NORMALIZERS)}")
    return NORMALIZERS[name]
