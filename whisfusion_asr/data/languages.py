"""Languages that one model writes: a token of each in the list, the languages of a set in its utt2lang.

A list has the tokens `<en>`, `<de>`, ... right behind its first special ones. No text is cut into them; one of them is
visible on every canvas (diffusion/canvas.py).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from whisfusion_asr.data.tables import read_table
from whisfusion_asr.errors import UserError

CODE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})?")
TAKEN = ("eos", "unk")  # codes whose token would be a special one
CODE_RULE = "expected a code in lower case: en, deu, pt-br"


def is_code(value: str) -> bool:
    """Whether this can be a language in utt2lang."""
    return CODE.fullmatch(value) is not None and value not in TAKEN


def language_pieces(languages: Iterable[str]) -> list[str]:
    """The tokens of some languages, sorted, each once. Raises UserError for what is no code."""
    for name in languages:
        if not is_code(name):
            raise UserError(f"language {name!r}: {CODE_RULE}")
    return [f"<{name}>" for name in sorted(set(languages))]


def find_languages(pieces: Sequence[str], first: int) -> dict[str, int]:
    """Language -> id, for the language tokens that stand in a list from id `first` on without a gap."""
    found = {}
    for number, piece in enumerate(pieces[first:], first):
        name = piece[1:-1]
        if piece != f"<{name}>" or not is_code(name):
            break
        found[name] = number
    return found


def language_id(known: Mapping[str, int], name: str | None) -> int | None:
    """The token of a language; the only one there is where none is named; None where the list has no languages.

    Raises UserError: a language that is not known, or none named where there are several.
    """
    listed = ", ".join(known) or "none: they were made without --languages"
    if name is None and len(known) > 1:
        raise UserError(f"which language? The tokens have {listed}; name one (lang), or give a file utt2lang")
    if name is not None and name not in known:
        raise UserError(f"language {name!r} is unknown; the tokens have {listed}")
    return next(iter(known.values()), None) if name is None else known[name]


def read_languages(data_dir: str | Path) -> dict[str, str]:
    """Language of each utterance by utt2lang; empty where the directory has none."""
    path = Path(data_dir) / "utt2lang"
    return read_table(path) if path.is_file() else {}
