"""Tokens: round trips, the two fixed ids, lists that do not fit."""

import pickle
from pathlib import Path

import pytest

from whisfusion_asr.bin import prepare_text, train_tokens
from whisfusion_asr.data.tokenizer import CharTokenizer, Tokenizer, espnet_tokens, load_tokenizer, train_tokenizer
from whisfusion_asr.errors import UserError

TEXTS = [f"{who} {does} the {what}" for who in ("the cat", "a dog", "my aunt") for does in ("sees", "takes", "wants")
         for what in ("small house", "old boat", "letter")]  # fmt: skip


@pytest.fixture(scope="module", params=["unigram", "bpe", "char"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    train_tokenizer(TEXTS, request.param, 40, folder)
    return folder


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    return pickle.loads(pickle.dumps(load_tokenizer(folder)))


def test_decode_is_the_inverse_of_encode(tokenizer: Tokenizer) -> None:
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode("  my   aunt ")) == "my aunt"
    assert tokenizer.encode("") == []


def test_ids_are_lines_of_the_list(folder: Path, tokenizer: Tokenizer) -> None:
    lines = (folder / "tokens.txt").read_text().splitlines()
    assert lines == tokenizer.pieces
    assert lines[:2] == ["<eos>", "<unk>"]
    assert len(lines) == tokenizer.vocab_size
    assert [lines[number] for number in tokenizer.encode("the cat")] == tokenizer.tokenize("the cat")
    assert load_tokenizer(folder / "tokens.txt").pieces == lines


@pytest.mark.parametrize("head", [["<eos>", "<unk>"], ["<unk>", "<s>", "</s>"]])
def test_espnet_counts_from_the_blank_and_ends_with_its_end_token(head: list[str]) -> None:
    assert espnet_tokens([*head, "<space>", "a", "b"]) == ["<blank>", "<unk>", "<space>", "a", "b", "<sos/eos>"]


def test_text_ends_at_the_first_end_token(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a dog")
    assert tokenizer.decode([*ids, 0, *tokenizer.encode("cat"), 0]) == "a dog"
    assert tokenizer.decode([0, *ids]) == ""
    assert not {0, tokenizer.vocab_size} & set(ids)


@pytest.mark.parametrize("token_type", ["unigram", "bpe"])
def test_texts_of_single_words(tmp_path: Path, token_type: str) -> None:
    tokenizer = train_tokenizer(["zero", "one", "two", "three", "seven", "nine"], token_type, 60, tmp_path)
    assert tokenizer.decode(tokenizer.encode("seven")) == "seven"


def test_unknown_letters_and_ids(tokenizer: Tokenizer) -> None:
    assert 1 in tokenizer.encode("a Ж")
    assert "<unk>" in tokenizer.decode(tokenizer.encode("a Ж"))
    for number in (tokenizer.vocab_size, -1):
        with pytest.raises(ValueError, match=f"token id {number} is not one of 0 to {tokenizer.vocab_size - 1}"):
            tokenizer.decode([number])


@pytest.mark.parametrize("token_type", ["unigram", "bpe", "char"])
def test_same_text_gives_the_same_files(tmp_path: Path, token_type: str) -> None:
    for folder in ("one", "two"):
        train_tokenizer(iter(TEXTS), token_type, 40, tmp_path / folder)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_long_sentences_are_not_left_out(tmp_path: Path) -> None:
    """sentencepiece skips a sentence of more than 4192 bytes without a word."""
    assert "z" in "".join(train_tokenizer([*TEXTS, "z " * 3000], "bpe", 60, tmp_path).pieces)


@pytest.mark.parametrize(
    ("texts", "token_type", "size", "message"),
    [
        (["", "  "], "bpe", 30, "the text to make tokens of is empty"),
        (TEXTS, "word", 30, "token_type: 'word' is not known; expected one of unigram, bpe, char"),
        (TEXTS, "bpe", None, "vocab_size: None; token type bpe needs a number"),
        (TEXTS, "bpe", 5, "vocab_size 5 for token type bpe: .*ocab"),
    ],
)
def test_impossible_training(tmp_path: Path, texts: list[str], token_type: str, size: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train_tokenizer(texts, token_type, size, tmp_path)
    assert not (tmp_path / "tokens.txt").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<eos>\n", "<blank>\n", r"tokens.txt:1: the list begins with \['<blank>', '<unk>'\]; expected '<eos>'"),
        ("\nTOKEN\n", "\nqqqq\n", r"tokens.txt:10: piece 'qqqq', but the model has"),
        ("\nTOKEN\n", "\n", r"39 pieces, but the model has 40"),
        ("\nTOKEN\n", "\n\n", r"tokens.txt:10: empty line"),
        ("\nTOKEN\n", "\n<unk>\n", r"tokens.txt:10: piece '<unk>' is already on line 2"),
    ],
)
def test_list_that_does_not_fit_its_model(tmp_path: Path, old: str, new: str, message: str) -> None:
    tokenizer = train_tokenizer(TEXTS, "bpe", 40, tmp_path)
    tokens = (tmp_path / "tokens.txt").read_text()
    old = old.replace("TOKEN", tokenizer.pieces[9])
    assert old in tokens
    (tmp_path / "tokens.txt").write_text(tokens.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tokens.txt: no such file"):
        load_tokenizer(tmp_path)
    train_tokenizer(TEXTS, "char", None, tmp_path)
    with pytest.raises(UserError, match="tokens.model: no such file; token type bpe needs its sentencepiece model"):
        load_tokenizer(tmp_path, "bpe")
    (tmp_path / "tokens.model").write_bytes(b"no model")
    with pytest.raises(UserError, match="tokens.model: not a sentencepiece model"):
        load_tokenizer(tmp_path)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("".join(f"k{number:02d} {text}\n" for number, text in enumerate(TEXTS)))
    (tmp_path / "plain").write_text("the cat\n\na  dog\n")
    train_tokens.main(["--text", f"{tmp_path}/text", "--plain_text", f"{tmp_path}/plain", "--token-type", "unigram",
                       "--vocab_size", "2000", "--out", f"{tmp_path}/tokens"])  # fmt: skip
    size = load_tokenizer(tmp_path / "tokens").vocab_size
    assert f"{size} unigram tokens of 2000 asked" in capsys.readouterr().out
    for _ in range(2):  # a second run writes the same, it never appends
        prepare_text.main(["--text", f"{tmp_path}/plain", "--plain", "true", "--token_list", f"{tmp_path}/tokens",
                           "--out", f"{tmp_path}/dump"])  # fmt: skip
    assert (tmp_path / "dump" / "text").read_text() == "plain-1 the cat\nplain-3 a dog\n"
    lengths = [len(load_tokenizer(tmp_path / "tokens").encode(text)) for text in ("the cat", "a dog")]
    assert (tmp_path / "dump" / "shape").read_text() == "plain-1 {}\nplain-3 {}\n".format(*lengths)


def test_command_without_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train_tokens.main(["--vocab_size", "20", "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert "--text: no file given" in capsys.readouterr().err


@pytest.mark.parametrize("token_type", ["unigram", "char"])
def test_words_are_those_of_the_text(tmp_path, token_type):
    tokenizer = train_tokenizer(["the cat sat", "a mat that sat"], token_type, 14, tmp_path)
    pieces = tokenizer.tokenize("that cat sat")
    words = tokenizer.words(pieces)
    assert [word for word, _ in words] == ["that", "cat", "sat"]
    assert [place for _, places in words for place in places] == list(range(len(pieces)))
    assert tokenizer.words([]) == []


def test_the_inner_pieces_are_those_that_begin_no_word() -> None:
    tokenizer = CharTokenizer(["<eos>", "<unk>", "<space>", "a", "b"])
    assert tokenizer.inner == {1, 3, 4}, "a word begins with its blank"
