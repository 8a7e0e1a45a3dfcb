"""Text to token ids and back: sentencepiece (unigram, bpe, Llama's) or characters; `tokens.txt` names the ids.

How a list begins says which ids have a meaning, and nothing else does: HEADS. The end token fills a canvas after the
text, the first one is the text's end. The mask is one beyond the last id of any list.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import sentencepiece

from whisfusion_asr.data.languages import find_languages, language_pieces
from whisfusion_asr.data.text_form import AS_WRITTEN, TextForm, read_form, write_form
from whisfusion_asr.errors import UserError
from whisfusion_asr.files import atomic_write

EOS, UNK, SPACE = "<eos>", "<unk>", "<space>"
WHISPER_EOS = "<|endoftext|>"  # begins a list of Whisper's tokens, see data/whisper_tokens.py
TOKEN_TYPES = ("unigram", "bpe", "char")
MODEL_BLANK = "\u2581"  # sentencepiece writes a blank as this sign


@dataclass(frozen=True)
class SpecialIds:
    """eos: end of the text and padding; unk: unknown piece; bos: visible first token of a canvas, None without one.

    languages: language -> its token, empty for a list of one language
    """

    eos: int
    unk: int
    bos: int | None = None
    languages: Mapping[str, int] = field(default_factory=dict)


OWN_HEAD, LLAMA_HEAD, WHISPER_HEAD = (EOS, UNK), (UNK, "<s>", "</s>"), (WHISPER_EOS,)
HEADS = {
    OWN_HEAD: SpecialIds(eos=0, unk=1),
    LLAMA_HEAD: SpecialIds(eos=2, unk=0, bos=1),
    WHISPER_HEAD: SpecialIds(eos=0, unk=0),  # it has no unknown piece: every text can be spelt
}


def special_ids(pieces: Sequence[str]) -> SpecialIds:
    """The ids with a meaning, by the first pieces of a list; those of our own lists where it begins otherwise."""
    head = next((head for head in HEADS if tuple(pieces[: len(head)]) == head), OWN_HEAD)
    return replace(HEADS[head], languages=find_languages(pieces, len(head)))


def espnet_tokens(pieces: Sequence[str]) -> list[str]:
    """The tokens of a list in ESPnet's order: the blank of CTC has number 0, what begins and ends a text comes last."""
    ids = special_ids(pieces)
    special = {pieces[number] for number in (ids.eos, ids.unk, ids.bos) if number is not None}
    return ["<blank>", UNK, *(piece for piece in pieces if piece not in special), "<sos/eos>"]


class Tokenizer:
    """Pieces of a text and their ids; `load_tokenizer` gives the one that fits a token folder.

    form: how a text is written before it is cut into pieces
    """

    def __init__(self, pieces: Sequence[str], form: TextForm = AS_WRITTEN) -> None:
        self.pieces = list(pieces)
        self.form = form
        ids = special_ids(self.pieces)
        self.eos_id, self.unk_id, self.bos_id, self.languages = ids.eos, ids.unk, ids.bos, ids.languages
        self._ids = {piece: number for number, piece in enumerate(self.pieces)}

    @property
    def vocab_size(self) -> int:
        """Number of ids, V."""
        return len(self.pieces)

    @property
    def mask_id(self) -> int:
        """Id of a hidden slot, V: beyond the list, so that no text and no prediction holds it."""
        return self.vocab_size

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text, also such as the list does not know."""
        raise NotImplementedError

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without an end token; pieces the list does not know become `<unk>`."""
        return [self._ids.get(piece, self.unk_id) for piece in self.tokenize(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text up to the first end token. Raises ValueError: an id outside the list (a mask, for example)."""
        pieces = []
        for number in map(int, ids):
            if number == self.eos_id:
                break
            if not 0 <= number < self.vocab_size:
                raise ValueError(f"token id {number} is not one of 0 to {self.vocab_size - 1}")
            pieces.append(self.pieces[number])
        return self.join(pieces)

    def join(self, pieces: Iterable[str]) -> str:
        """The text of a row of pieces."""
        raise NotImplementedError

    def starts_word(self, piece: str) -> bool:
        """Whether a word begins with (or right behind) this piece."""
        raise NotImplementedError

    @property
    def inner(self) -> frozenset[int]:
        """Ids of the pieces that go on with a word."""
        ids = (index for index, piece in enumerate(self.pieces) if not self.starts_word(piece))
        return frozenset(ids) - {self.eos_id}

    def words(self, pieces: Sequence[str]) -> list[tuple[str, list[int]]]:
        """The words of a row of pieces, each with the places of its pieces in the row."""
        groups: list[list[int]] = []
        for place, piece in enumerate(pieces):
            if self.starts_word(piece) or not groups:
                groups.append([])
            groups[-1].append(place)
        named = [(self.join(pieces[place] for place in group), group) for group in groups]
        return [(word, group) for word, group in named if word]


class CharTokenizer(Tokenizer):
    """One piece a character; a run of blanks is one `<space>`."""

    def tokenize(self, text: str) -> list[str]:
        """The letters of a text, `<space>` between words."""
        return [SPACE if letter == " " else letter for letter in " ".join(self.form(text).split())]

    def starts_word(self, piece: str) -> bool:
        """The blank before a word counts as part of it."""
        return piece == SPACE

    def join(self, pieces: Iterable[str]) -> str:
        """The text of a row of letters."""
        return " ".join("".join(" " if piece == SPACE else piece for piece in pieces).split())


class SentencePieceTokenizer(Tokenizer):
    """Pieces of a sentencepiece model (which also normalises: NFKC, runs of blanks)."""

    def __init__(self, model: str | Path, form: TextForm = AS_WRITTEN) -> None:
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        except (OSError, RuntimeError) as error:
            raise UserError(f"{model}: not a sentencepiece model ({error}); train the tokens again") from None
        pieces = [self._processor.id_to_piece(number) for number in range(self._processor.vocab_size())]
        super().__init__(pieces, form)

    def tokenize(self, text: str) -> list[str]:
        """The pieces that the model cuts a text into."""
        return self._processor.encode(self.form(text), out_type=str)

    def starts_word(self, piece: str) -> bool:
        """Sentencepiece marks the first piece of a word."""
        return piece.startswith(MODEL_BLANK)

    def join(self, pieces: Iterable[str]) -> str:
        """The text of a row of pieces; MODEL_BLANK begins a word."""
        return " ".join("".join(pieces).replace(MODEL_BLANK, " ").split())


class LlamaTokenizer(SentencePieceTokenizer):
    """Llama's sentencepiece model: unk 0, bos 1, eos 2; what it has no piece for is spelled in bytes."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without the first token: the canvas brings it."""
        return self._processor.encode(self.form(text))

    def decode(self, ids: Iterable[int]) -> str:
        """The text up to the first end token; the first token and unknown ones are left out wherever they stand."""
        numbers = list(map(int, ids))
        super().decode(numbers)  # refuses what is no id
        end = numbers.index(self.eos_id) if self.eos_id in numbers else len(numbers)
        return self.join(self.pieces[n] for n in numbers[:end] if n not in (self.bos_id, self.unk_id))

    def join(self, pieces: Iterable[str]) -> str:
        """The text of a row of pieces; bytes are put together to letters."""
        return " ".join(self._processor.decode_pieces(list(pieces)).split())


def load_tokenizer(
    token_dir_or_tokens_txt: str | Path, token_type: str | None = None, model: str | Path | None = None
) -> Tokenizer:
    """The tokenizer of a token folder (or of its `tokens.txt`).

    token_type: unigram, bpe or char; None = char when there is no model beside the list
    model: sentencepiece model; None = `tokens.model` beside the list
    The form of texts is that of `text_form.yaml` beside the list. Raises UserError: a missing file, a list with an
    unknown beginning, one that repeats a piece or contradicts its model.
    """
    place = Path(token_dir_or_tokens_txt)
    tokens = place / "tokens.txt" if place.is_dir() else place
    pieces = _read_pieces(tokens)
    model = Path(model) if model else tokens.with_name("tokens.model")
    if token_type not in (None, *TOKEN_TYPES):
        raise UserError(f"token_type: '{token_type}' is not known; expected one of {', '.join(TOKEN_TYPES)}")
    if token_type == "char" or (token_type is None and not model.exists()):
        return make_tokenizer(pieces, None, str(tokens), read_form(tokens.parent))
    if not model.exists():
        raise UserError(f"{model}: no such file; token type {token_type} needs its sentencepiece model beside {tokens}")
    return make_tokenizer(pieces, model, str(tokens), read_form(tokens.parent))


def make_tokenizer(
    pieces: Sequence[str], model: str | Path | None, source: str, form: TextForm = AS_WRITTEN
) -> Tokenizer:
    """The tokenizer of a list of pieces: characters without a sentencepiece model, else the model's.

    A list that begins with Whisper's end of text is Whisper's own, and its model is a tokenizer.json.
    source: where the list comes from, for the message. Raises UserError when list and model differ.
    """
    if model is not None and pieces[0] == WHISPER_EOS:
        from whisfusion_asr.data.whisper_tokens import WhisperTokenizer  # late: it needs the package tokenizers

        return WhisperTokenizer(pieces, model, source, form)
    if model is None:
        return CharTokenizer(pieces, form)
    is_llama = tuple(pieces[: len(LLAMA_HEAD)]) == LLAMA_HEAD
    tokenizer = (LlamaTokenizer if is_llama else SentencePieceTokenizer)(model, form)
    _check_match(source, list(pieces), model, tokenizer.pieces)
    return tokenizer


def _read_pieces(tokens: Path) -> list[str]:
    if not tokens.is_file():
        raise UserError(f"{tokens}: no such file; expected one piece a line (stage parts writes it)")
    pieces = tokens.read_bytes().decode("utf-8").split("\n")  # one of Llama's pieces is a carriage return
    if pieces[-1] == "":
        pieces.pop()
    if not any(tuple(pieces[: len(head)]) == head for head in HEADS):
        raise UserError(f"{tokens}:1: the list begins with {pieces[:2]}; expected '{EOS}' and '{UNK}' on lines 1 and 2")
    seen: dict[str, int] = {}
    for number, piece in enumerate(pieces, start=1):
        if not piece or piece in seen:
            why = f"piece '{piece}' is already on line {seen[piece]}" if piece else "empty line; expected a piece"
            raise UserError(f"{tokens}:{number}: {why}; train the tokens again")
        seen[piece] = number
    return pieces


def _check_match(tokens: str, listed: list[str], model: str | Path, known: list[str]) -> None:
    if listed == known:
        return
    again = f"take the list and the model of one training ({model})"
    if len(listed) != len(known):
        raise UserError(f"{tokens}: {len(listed)} pieces, but the model has {len(known)}; {again}")
    line = next(number for number, pair in enumerate(zip(listed, known, strict=True), start=1) if pair[0] != pair[1])
    raise UserError(f"{tokens}:{line}: piece '{listed[line - 1]}', but the model has '{known[line - 1]}'; {again}")


def train_tokenizer(
    texts: Iterable[str], token_type: str, vocab_size: int | None, out_dir: str | Path, form: TextForm = AS_WRITTEN,
    languages: Sequence[str] = (),
) -> Tokenizer:
    """Make `tokens.txt` (and `tokens.model`, but for char) of sentences, and return the tokenizer.

    vocab_size: number of ids wanted (unigram gives fewer when the text does not hold as many); char takes every
        character and has no use for it
    form: how texts are written before, from now on
    languages: codes of those that get a token, see data/languages.py
    The same texts give the same files, byte by byte. Raises UserError: no text, an unknown type, an impossible size.
    """
    sentences = [text for text in map(form, texts) if text.strip()]
    if token_type not in TOKEN_TYPES:
        raise UserError(f"token_type: '{token_type}' is not known; expected one of {', '.join(TOKEN_TYPES)}")
    if not sentences:
        raise UserError("the text to make tokens of is empty")
    out_dir, named = Path(out_dir), language_pieces(languages)
    model = out_dir / "tokens.model"
    if token_type == "char":
        letters = sorted({letter for text in sentences for letter in CharTokenizer([]).tokenize(text)} - {SPACE})
        model.unlink(missing_ok=True)  # of an earlier training with another type
        return write_tokens(out_dir, CharTokenizer([EOS, UNK, *named, SPACE, *letters], form))
    if not vocab_size or vocab_size < 3:
        raise UserError(f"vocab_size: {vocab_size}; token type {token_type} needs a number above 2")
    with atomic_write(model, "wb") as file:
        file.write(_train_sentencepiece(sentences, token_type, vocab_size, named))
    return write_tokens(out_dir, SentencePieceTokenizer(model, form))


def write_tokens(out_dir: Path, tokenizer: Tokenizer) -> Tokenizer:
    """Write `tokens.txt` and the form of texts of a tokenizer, and return it."""
    write_form(out_dir, tokenizer.form)
    with atomic_write(out_dir / "tokens.txt") as file:
        file.writelines(piece + "\n" for piece in tokenizer.pieces)
    return tokenizer


def _train_sentencepiece(sentences: list[str], token_type: str, vocab_size: int, named: list[str]) -> bytes:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type=token_type,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            eos_id=0,
            eos_piece=EOS,
            unk_id=1,
            unk_piece=UNK,
            bos_id=-1,
            pad_id=-1,
            control_symbols=named,  # no text is cut into them, and their ids follow those above
            num_threads=1,  # the unigram sums depend on the number of threads
            # Longer ones are left out silently; less than 10 is refused.
            max_sentence_length=max(10, 1 + max(len(text.encode()) for text in sentences)),
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(f"vocab_size {vocab_size} for token type {token_type}: {str(error).splitlines()[-1]}") from None
    return model.getvalue()
