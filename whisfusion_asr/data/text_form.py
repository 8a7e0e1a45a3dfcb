"""How transcripts are written before they become tokens: case and punctuation, recorded beside the token list."""

import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from whisfusion_asr.config import read_yaml
from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write

CASES = ("keep", "upper", "lower")
PUNCTUATION = ("keep", "remove")
FILE = "text_form.yaml"
_APOSTROPHES = "'\u2019"


@dataclass(frozen=True)
class TextForm:
    """text_case: keep, upper or lower. punctuation: keep, or remove (apostrophes inside words stay, a dash between two
    words parts them).

    raises UserError: another value
    """

    text_case: str = "keep"
    punctuation: str = "keep"

    def __post_init__(self) -> None:
        for name, known in (("text_case", CASES), ("punctuation", PUNCTUATION)):
            if getattr(self, name) not in known:
                raise UserError(f"{name}: {getattr(self, name)!r} is unknown; expected one of {', '.join(known)}")

    def __call__(self, text: str) -> str:
        """The text in this form."""
        if self.punctuation == "remove":
            text = _without_punctuation(text)
        return text if self.text_case == "keep" else getattr(text, self.text_case)()


AS_WRITTEN = TextForm()


def without_capitals_only(text: str) -> str:
    """A text that is in capitals throughout in lower case, any other as it is: Whisper writes no text in capitals."""
    return text.lower() if text.isupper() else text


def read_form(token_dir: str | Path) -> TextForm:
    """The form that a token folder records; texts are kept as they are where it records none."""
    path = Path(token_dir, FILE)
    if not path.is_file():
        return AS_WRITTEN
    content = read_yaml(path)
    known = TextForm.__dataclass_fields__
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise UserError(f"{path}: unknown key {', '.join(unknown)}; it knows {', '.join(known)}")
    return TextForm(**content)


def write_form(token_dir: str | Path, form: TextForm) -> None:
    """Record a form; a folder without the file keeps texts as they are, so that none is written for that."""
    path = Path(token_dir, FILE)
    if form == AS_WRITTEN:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as file:
        yaml.safe_dump(asdict(form), file)


def _without_punctuation(text: str) -> str:
    letters = []
    for place, letter in enumerate(text):
        kind = unicodedata.category(letter)
        inside = 0 < place < len(text) - 1 and text[place - 1].isalnum() and text[place + 1].isalnum()
        if not kind.startswith("P") or (letter in _APOSTROPHES and inside):
            letters.append(letter)
        elif kind == "Pd":
            letters.append(" ")
    return " ".join("".join(letters).split())
