"""Whisper's byte-level BPE behind the interface of the other tokenizers, restricted to the tokens a recipe can need.

The token list holds Whisper's own pieces, `<|endoftext|>` first. All 256 single bytes are among them, so that every
text can be written: a token outside the list is spelt with smaller ones. Text is written behind a blank, in the case
and with the punctuation that its form keeps; but what is in capitals only, as in LibriSpeech, in lower case, for
Whisper does not write like that.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers

from whisfusion_asr.data.text_form import AS_WRITTEN, TextForm, without_capitals_only
from whisfusion_asr.data.tokenizer import WHISPER_EOS, Tokenizer, write_tokens
from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write

BLANK = "\u0120"  # how byte-level BPE writes the blank before a word


def byte_pieces() -> dict[str, int]:
    """The character that stands for each byte in the pieces of byte-level BPE (GPT-2's table)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    table = {chr(byte): byte for byte in shown}
    return table | {chr(256 + place): byte for place, byte in enumerate(hidden)}


BYTES = byte_pieces()


def spelt(piece: str) -> str:
    """The text of a piece; bytes that are no whole character become the replacement sign."""
    return bytes(BYTES[letter] for letter in piece).decode("utf-8", errors="replace")


class WhisperTokenizer(Tokenizer):
    """Pieces of a token list that was made by `choose_tokens`.

    model: the tokenizer.json of the Whisper folder. Raises UserError: list and model that do not belong together, a
    form in capitals, which Whisper hardly knows.
    """

    def __init__(
        self, pieces: Sequence[str], model: str | Path, source: str = "token_list", form: TextForm = AS_WRITTEN
    ) -> None:
        super().__init__(pieces, form)
        if form.text_case == "upper":
            raise UserError(f"{source}: text_case: Whisper does not write in capitals; expected keep or lower")
        self._model = _read_model(model)
        again = "make the list again with --token_type whisper"
        foreign = [piece for piece in pieces if self._model.token_to_id(piece) is None]
        if foreign:
            raise UserError(f"{source}: {foreign[0]!r} is no token of {model} ({len(foreign)} such); {again}")
        absent = [letter for letter in BYTES if letter not in self._ids]
        if absent:
            raise UserError(f"{source}: {len(absent)} of the 256 single bytes are not in the list; {again}")

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text in the list's form; all of them are in the list."""
        pieces: list[str] = []
        for piece in whisper_pieces(self._model, self.form(text)):
            pieces += [piece] if piece in self._ids else self._smaller(piece)
        return pieces

    def _smaller(self, piece: str) -> list[str]:
        """The longest known beginning, again and again."""
        parts = []
        while piece:
            size = next(size for size in range(len(piece), 0, -1) if piece[:size] in self._ids)
            parts.append(piece[:size])
            piece = piece[size:]
        return parts

    def starts_word(self, piece: str) -> bool:
        """The blank before a word is part of its first piece."""
        return piece.startswith(BLANK)

    def join(self, pieces: Iterable[str]) -> str:
        """The text of a row of pieces."""
        return " ".join(spelt("".join(piece for piece in pieces if piece != WHISPER_EOS)).split())


def whisper_pieces(model: tokenizers.Tokenizer, text: str) -> list[str]:
    """Whisper's pieces of a text as we write it: a blank before it, single blanks between words."""
    words = " ".join(without_capitals_only(text).split())
    return model.encode(f" {words}", add_special_tokens=False).tokens if words else []


def choose_tokens(
    texts: Iterable[str], whisper_dir: str | Path, out_dir: str | Path, form: TextForm = AS_WRITTEN
) -> Tokenizer:
    """Write the `tokens.txt` and `tokens.model` (a copy of tokenizer.json) of a recipe, and return the tokenizer.

    texts: training transcripts; form: how they are written before, from now on
    The list: end of text, the tokens of the texts from the most frequent on, all other tokens that are made of the
    texts' characters, the single bytes. Raises UserError: no text, no tokenizer.json.
    """
    source = Path(whisper_dir) / "tokenizer.json"
    model = _read_model(source)
    texts = [without_capitals_only(form(text)) for text in texts]
    counts = Counter(piece for text in texts for piece in whisper_pieces(model, text))
    letters = {" ", *(letter for text in texts for letter in text)}
    if not counts:
        raise UserError("the text to choose tokens by is empty")
    vocabulary = model.get_vocab(with_added_tokens=False)
    if model.token_to_id(WHISPER_EOS) is None:
        raise UserError(f"{source}: has no token {WHISPER_EOS}; expected the tokenizer of a Whisper model")
    by_id = sorted(vocabulary, key=vocabulary.__getitem__)
    possible = [piece for piece in by_id if piece and letters.issuperset(spelt(piece))]  # one piece is empty
    frequent = sorted(counts, key=lambda piece: (-counts[piece], vocabulary[piece]))
    pieces = list(dict.fromkeys((WHISPER_EOS, *frequent, *possible, *BYTES)))
    out_dir = Path(out_dir)
    with atomic_write(out_dir / "tokens.model", "wb") as file:
        file.write(source.read_bytes())
    return write_tokens(out_dir, WhisperTokenizer(pieces, out_dir / "tokens.model", form=form))


def all_tokens(whisper_dir: str | Path) -> WhisperTokenizer:
    """Every text token of a Whisper folder under Whisper's own ids; the first id behind them is the end of text.

    Raises UserError: no tokenizer.json, or another kind of tokenizer.
    """
    source = Path(whisper_dir) / "tokenizer.json"
    model = _read_model(source)
    end = model.token_to_id(WHISPER_EOS)
    if end is None:
        raise UserError(f"{source}: has no token {WHISPER_EOS}; expected the tokenizer of a Whisper model")
    return WhisperTokenizer([model.id_to_token(number) for number in range(end)], source, str(source))


def _read_model(path: str | Path) -> tokenizers.Tokenizer:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; expected the tokenizer.json of a Whisper folder")
    text = Path(path).read_text(encoding="utf-8")
    try:
        kind = json.loads(text)["model"]["type"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the tokenizer.json of a Whisper folder ({error!r}); fetch it again") from None
    if kind != "BPE":
        raise UserError(f"{path}: a tokenizer of type {kind}; Whisper's is BPE")
    return tokenizers.Tokenizer.from_str(text)
