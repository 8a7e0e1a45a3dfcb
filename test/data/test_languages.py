"""Languages: their tokens in each kind of list, whose they are, and what is refused."""

import pickle
from pathlib import Path

import pytest

from whisfusion_asr.bin import train_tokens
from whisfusion_asr.data.languages import find_languages, language_id, read_languages
from whisfusion_asr.data.tokenizer import load_tokenizer, special_ids, train_tokenizer
from whisfusion_asr.data.validate import inspect
from whisfusion_asr.errors import UserError

TEXTS = ["the cat sees a dog", "der hund sieht die katze", "a dog sees the cat", "die katze sieht den hund"]


@pytest.mark.parametrize("token_type", ["unigram", "bpe", "char"])
def test_languages_have_the_ids_behind_the_special_ones(tmp_path: Path, token_type: str) -> None:
    train_tokenizer(TEXTS, token_type, 45, tmp_path, languages=["en", "de", "en"])
    tokenizer = pickle.loads(pickle.dumps(load_tokenizer(tmp_path)))
    assert tokenizer.pieces[:4] == ["<eos>", "<unk>", "<de>", "<en>"]
    assert tokenizer.languages == {"de": 2, "en": 3} == special_ids(tokenizer.pieces).languages
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert not {2, 3} & set(tokenizer.encode("the <en> cat <de>")), "no text is cut into them"


def test_lists_without_languages_have_none() -> None:
    assert special_ids(["<eos>", "<unk>", "<space>", "a"]).languages == {}
    assert special_ids(["<unk>", "<s>", "</s>", "<0x00>"]).languages == {}
    assert special_ids(["<|endoftext|>", "<en>"]).languages == {"en": 1}


def test_languages_end_at_the_first_other_piece() -> None:
    assert find_languages(["<eos>", "<unk>", "<de>", "<pt-br>", "a", "<en>"], 2) == {"de": 2, "pt-br": 3}
    assert find_languages(["<eos>", "<unk>", "<unk>"], 2) == {} == find_languages(["<eos>", "<de"], 1)


def test_the_token_of_a_language() -> None:
    assert language_id({"de": 2, "en": 3}, "en") == 3
    assert language_id({"en": 2}, None) == 2, "there is only one"
    assert language_id({}, None) is None


@pytest.mark.parametrize(
    ("known", "name", "message"),
    [
        ({"de": 2, "en": 3}, "fr", "language 'fr' is unknown; the tokens have de, en"),
        ({"de": 2, "en": 3}, None, "which language.*The tokens have de, en; name one .lang., or give a file utt2lang"),
        ({}, "en", "language 'en' is unknown; the tokens have none: they were made without --languages"),
    ],
)
def test_a_language_that_is_not_known(known: dict[str, int], name: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        language_id(known, name)


@pytest.mark.parametrize("name", ["EN", "english language", "e", "unk", "eos", "", "<en>"])
def test_what_is_no_code(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="expected a code in lower case: en, deu, pt-br"):
        train_tokenizer(TEXTS, "char", None, tmp_path, languages=["de", name])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("".join(f"utt{number} {text}\n" for number, text in enumerate(TEXTS)))
    words = ["--text", f"{tmp_path}/text", "--token_type", "char", "--languages", "en", "de", "--out"]
    train_tokens.main([*words, f"{tmp_path}/out"])
    assert load_tokenizer(tmp_path / "out").languages == {"de": 2, "en": 3}
    with pytest.raises(SystemExit, match="2"):
        train_tokens.main([*words, f"{tmp_path}/x", "--token_type", "whisper", "--whisper_dir", "x"])
    assert "--languages: Whisper's tokens have its own languages" in capsys.readouterr().err


def test_utt2lang_of_a_directory(good_dir: Path) -> None:
    assert read_languages(good_dir) == {}
    keys = [line.split()[0] for line in (good_dir / "utt2spk").read_text().splitlines()]
    (good_dir / "utt2lang").write_text("".join(f"{key} de\n" for key in keys))
    assert inspect(good_dir).problems == [] and read_languages(good_dir) == dict.fromkeys(keys, "de")
    (good_dir / "utt2lang").write_text("".join(f"{key} de en\n" for key in keys[:-1]))
    told = "\n".join(inspect(good_dir).problems)
    assert "utt2lang:1: ann-1 (de en): expected 2 fields: utterance and language" in told
    assert "utt2lang: without 1 key of utt2spk: bob-1" in told
