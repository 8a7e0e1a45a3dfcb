"""NIST's trn format: one utterance a line, `token token TAB (speaker-utterance)`.

sclite reads some characters as syntax: a lone `{` swallows the rest of the line, `}` ends alternatives, `@` is a word
that does not count, `;` starts a comment, a final `*` is cut off, and so is a backslash anywhere. Each is written by
name (`<lbrace>` ...) in references and hypotheses alike, which changes no alignment. A blank inside a token becomes
`<space>`, as ESPnet writes it in character scoring.
"""

import string
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from whisfusion_asr.errors import UserError

LISTED = 50
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
_NAMES = {
    " ": "<space>",
    "{": "<lbrace>",
    "}": "<rbrace>",
    ";": "<semicolon>",
    "*": "<asterisk>",
    "@": "<at>",
    "\\": "<backslash>",
}
_TOKEN_TABLE = str.maketrans(_NAMES)
_ID_TABLE = str.maketrans({"(": "<lparen>", ")": "<rparen>"})


def ascii_lower(text: str) -> str:
    """Lower case as sclite makes it before it compares: ASCII letters only, so that Ä and ä differ."""
    return text.translate(_LOWER)


def ascii_upper(text: str) -> str:
    """Upper case as sclite makes it where it marks wrong tokens: ASCII letters only."""
    return text.translate(_UPPER)


def escape(tokens: Iterable[str]) -> list[str]:
    """The tokens with blanks and sclite's special characters spelled out by name."""
    return list(map(_escaped, tokens))


@lru_cache(maxsize=1 << 16)  # tokens repeat: a corpus has far fewer words than running words
def _escaped(token: str) -> str:
    return token.translate(_TOKEN_TABLE)


def tokens(text: str) -> list[str]:
    """The tokens of a row that is joined by blanks; `escape` left no blank inside one."""
    return text.split(" ") if text else []


def trn_id(speaker: str, utterance: str) -> str:
    """`(speaker-utterance)`. Parentheses in names are spelled out: sclite takes the last pair of a line for the id."""
    return f"({speaker.translate(_ID_TABLE)}-{utterance.translate(_ID_TABLE)})"


def read_trn(path: str | Path) -> dict[str, str]:
    """The lines of a trn file by id `(speaker-utterance)`: tokens with a blank between two.

    raises UserError: no such file, no lines, a line without an id, a repeated id
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected lines `words TAB (speaker-utterance)`; score the set first")
    rows: dict[str, str] = {}
    with open(path, encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            text, _, identifier = line.rstrip("\n").rpartition("\t")
            if not identifier.startswith("(") or identifier in rows:
                problem = "id occurs twice" if identifier in rows else "no tabulator and (speaker-utterance) at its end"
                raise UserError(f"{path}:{number}: {problem}; score again to rewrite the file")
            rows[identifier] = text
    if not rows:
        raise UserError(f"{path}: holds no utterance; score again to rewrite the file")
    return rows


def scored_speaker(identifier: str) -> str:
    """The speaker as `sclite -i rm` sees it: what precedes the first hyphen (`(121-121726-...)` is speaker 121)."""
    return identifier[1:].partition("-")[0]


def drawn_speakers(identifiers: Sequence[str]) -> list[str]:
    """The speaker of each utterance of a set, for drawing whole speakers.

    sclite's, so that LibriSpeech's READER-CHAPTER is a reader. That of utt2spk where sclite's is none: where every
    utterance is its own speaker because speakers are unknown, and where all share what precedes the hyphen, a corpus.
    """
    scored, full = [scored_speaker(each) for each in identifiers], [_full_speaker(each) for each in identifiers]
    unknown = all(f"({speaker}-{speaker})" == each for speaker, each in zip(full, identifiers, strict=True))
    return full if unknown or len(set(scored)) == 1 else scored


def _full_speaker(identifier: str) -> str:
    """The longest S of `(S-U)` with which U begins, as Kaldi wants it of utterances; sclite's where there is none."""
    pair = identifier[1:-1]
    ends = [place for place, letter in enumerate(pair) if letter == "-" and pair[place + 1 :].startswith(pair[:place])]
    return pair[: ends[-1]] if ends else scored_speaker(identifier)


def other_utterances(expected: Collection[str], found: Collection[str]) -> str:
    """How the utterances found differ from those expected: `2 missing (a, b), 1 extra (c)`; empty where they do not."""
    kinds = (([key for key in expected if key not in found], "missing"),
             ([key for key in found if key not in expected], "extra"))
    return ", ".join(f"{len(keys)} {what} ({listed(keys)})" for keys, what in kinds if keys)


def listed(keys: Sequence[str]) -> str:
    """Utterances for a message of one line: all of them up to LISTED, and how many more."""
    more = len(keys) - LISTED
    return ", ".join(keys[:LISTED]) + (f" and {more} more" if more > 0 else "")
