"""Whisper's tokens as a recipe's token list: what is in the list, and that every text can be written with it."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Model

from whisfusion_asr.bin import train_tokens
from whisfusion_asr.data.text_form import TextForm
from whisfusion_asr.data.tokenizer import load_tokenizer
from whisfusion_asr.data.whisper_tokens import BLANK, BYTES, WhisperTokenizer, choose_tokens
from whisfusion_asr.errors import UserError


@pytest.fixture(scope="module")
def tokenizer(toy_whisper_tokens: Path) -> WhisperTokenizer:
    return pickle.loads(pickle.dumps(load_tokenizer(toy_whisper_tokens)))


def test_the_pieces_are_whispers_own(toy_whisper: Path, tokenizer: WhisperTokenizer) -> None:
    """The ids of a text are those of Whisper's tokenizer for " " + text; capitals only become lower case."""
    model = Model.from_file(str(toy_whisper / "tokenizer.json"))
    wanted = model.encode(" the dog saw a letter", add_special_tokens=False).tokens
    assert [tokenizer.pieces[i] for i in tokenizer.encode("the  dog saw a letter ")] == wanted
    assert tokenizer.decode(tokenizer.encode("The Dog, saw a letter.")) == "The Dog, saw a letter."
    assert tokenizer.encode("THE DOG SAW A LETTER") == tokenizer.encode("the dog saw a letter")
    assert tokenizer.encode("") == [] and tokenizer.decode([0, 5]) == ""


def test_the_order_of_the_list(toy_whisper: Path, tmp_path: Path) -> None:
    """End, then by frequency, then what the texts' letters can spell, then bytes; no punctuation, no special token."""
    pieces = choose_tokens(["A DOG", "a dog", "a cat"], toy_whisper, tmp_path).pieces
    assert pieces[:4] == ["<|endoftext|>", f"{BLANK}a", f"{BLANK}dog", f"{BLANK}cat"]
    assert len(set(pieces)) == len(pieces) and set(BYTES) <= set(pieces)
    longer = [piece for piece in pieces[1:] if piece not in BYTES]
    assert all(set(piece) <= set(f"{BLANK}acdogt") for piece in longer)
    named = choose_tokens(["a dog", "the Capitals, and"], toy_whisper, tmp_path).pieces
    assert f"{BLANK}Capitals" in named and f"{BLANK}Capitals" not in pieces
    assert not any("<|" in piece for piece in pieces[1:])


def test_a_form_is_kept_with_the_list(toy_whisper: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("u1 A dog, a cat!\nu2 \"the dog\"\n")
    words = ["--token_type", "whisper", "--whisper_dir", str(toy_whisper), "--punctuation", "remove"]
    words += ["--text_case", "lower"]
    train_tokens.main(["--text", f"{tmp_path}/text", *words, "--out", f"{tmp_path}/tokens"])
    tokenizer = load_tokenizer(tmp_path / "tokens")
    assert tokenizer.decode(tokenizer.encode("The dog, a cat!")) == "the dog a cat"
    longer = [piece for piece in tokenizer.pieces[1:] if piece not in BYTES]
    assert longer and all(set(piece) <= set(f"{BLANK}acdeghot") for piece in longer)


@settings(deadline=None, max_examples=60)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_every_text_can_be_written(tokenizer: WhisperTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == " ".join((text.lower() if text.isupper() else text).split())


def test_a_token_outside_the_list_is_spelt_with_the_longest_known(
    tokenizer: WhisperTokenizer, toy_whisper_tokens: Path
) -> None:
    fewer = [piece for piece in tokenizer.pieces if piece != f"{BLANK}dog"]
    found = WhisperTokenizer(fewer, toy_whisper_tokens / "tokens.model").tokenize("dog")
    begins = [piece for piece in fewer if f"{BLANK}dog".startswith(piece)]
    assert "".join(found) == f"{BLANK}dog" and len(found) < 4
    assert found[0] == max(begins, key=len)


def test_words_and_their_pieces(tokenizer: WhisperTokenizer) -> None:
    pieces = tokenizer.tokenize("the dog z\u00fcrich")
    words = tokenizer.words(pieces)
    assert [word for word, _ in words] == ["the", "dog", "z\u00fcrich"]
    assert [place for _, places in words for place in places] == list(range(len(pieces)))


def test_byte_table_is_that_of_byte_level_bpe() -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    assert sorted(BYTES) == sorted(ByteLevel.alphabet()) and sorted(BYTES.values()) == list(range(256))
    assert BYTES[BLANK] == ord(" ") and BYTES["a"] == ord("a")


def test_the_command_writes_a_token_folder(toy_whisper: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("u1 the cat\nu2 the dog\n")
    words = ["--text", f"{tmp_path}/text", "--token_type", "whisper", "--out", f"{tmp_path}/tokens"]
    train_tokens.main([*words, "--whisper_dir", str(toy_whisper)])
    assert load_tokenizer(tmp_path / "tokens" / "tokens.txt").decode([1]) == "the"


def test_what_does_not_fit_is_one_line(toy_whisper: Path, toy_whisper_tokens: Path, tmp_path: Path, capsys) -> None:
    pieces = load_tokenizer(toy_whisper_tokens).pieces
    model = toy_whisper_tokens / "tokens.model"
    with pytest.raises(UserError, match="'xyzzy' is no token of .* make the list again with --token_type whisper"):
        WhisperTokenizer([*pieces, "xyzzy"], model)
    with pytest.raises(UserError, match="1 of the 256 single bytes are not in the list"):
        WhisperTokenizer([piece for piece in pieces if piece != "!"], model)
    with pytest.raises(UserError, match="text_case: Whisper does not write in capitals; expected keep or lower"):
        WhisperTokenizer(pieces, model, form=TextForm("upper"))
    (tmp_path / "tokens.model").write_text("{}")
    with pytest.raises(UserError, match="not the tokenizer.json of a Whisper folder"):
        WhisperTokenizer(pieces, tmp_path / "tokens.model")
    with pytest.raises(UserError, match="the text to choose tokens by is empty"):
        choose_tokens([" "], toy_whisper, tmp_path)
    (tmp_path / "text").write_text("u1 A\n")
    with pytest.raises(SystemExit, match="2"):
        train_tokens.main(["--text", f"{tmp_path}/text", "--token_type", "whisper", "--out", f"{tmp_path}/tokens"])
    assert "give its folder with --whisper_dir" in capsys.readouterr().err
