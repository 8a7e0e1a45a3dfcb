"""Two languages in one training, from utt2lang to the transcript: the same states, another text for each token."""

from pathlib import Path

import numpy as np
import pytest
from conftest import FRAMES_PER_LETTER, LETTERS, WIDTH, command_line

pytest.importorskip("espnet2", reason="ESPnet is not installed")

from whisfusion_asr.api import Speech2Text
from whisfusion_asr.bin import decode
from whisfusion_asr.data.states import StatesTable, StatesWriter, merge
from whisfusion_asr.data.tokenizer import train_tokenizer
from whisfusion_asr.errors import UserError
from whisfusion_asr.tasks.asr import DiffusionASRTask

WORDS = ["abc", "dcb", "bad", "cdab"]
SHIFTED = str.maketrans(LETTERS, LETTERS[1:] + LETTERS[0])  # the second language writes the next letter
MODEL = {
    "decoder_conf": {"size": 32, "num_blocks": 2, "attention_heads": 2, "ffn_size": 64, "clock": True},
    "model_conf": {"canvas_conf": {"fit": "fixed", "length": 7}, "mask_ratio": [0.7, 1.0]},
    "optim": "muon", "optim_conf": {"lr": 0.003, "muon_lr": 0.02}, "grad_clip": 5.0,
    "scheduler": "warmup_hold_linear", "scheduler_conf": {"warmup_ratio": 0.05, "hold_ratio": 0.5, "floor": 0.02},
}


def texts() -> dict[str, tuple[str, str]]:
    """Utterance -> its language and text; the states of wordN are the same in both."""
    return {f"{language}-word{number}": (language, word if language == "en" else word.translate(SHIFTED))
            for language in ("de", "en") for number, word in enumerate(WORDS)}


@pytest.fixture(scope="module")
def bilingual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with utt2lang, whose training and validation set are the same eight utterances."""
    root, directions = tmp_path_factory.mktemp("bilingual"), np.random.default_rng(7).normal(size=(4, WIDTH))
    rows = texts()
    for name in ("train", "valid"):
        data = root / "data" / name
        data.mkdir(parents=True)
        with StatesWriter(root / "dump" / name, 1) as writer:
            for key in rows:
                word = [LETTERS.index(letter) for letter in WORDS[int(key[-1])]]
                writer.write(key, np.repeat(directions[word], FRAMES_PER_LETTER, axis=0).astype(np.float32))
        merge(root / "dump" / name, 1, list(rows))
        (data / "text").write_text("".join(f"{key} {text}\n" for key, (_, text) in rows.items()))
        (data / "utt2lang").write_text("".join(f"{key} {language}\n" for key, (language, _) in rows.items()))
        (data / "utt2spk").write_text("".join(f"{key} {key}\n" for key in rows))
        (data / "utt2num_samples").write_text("".join(f"{key} 16000\n" for key in rows))
    train_tokenizer([text for _, text in rows.values()], "char", None, root, languages=["en", "de"])
    return root


@pytest.fixture(scope="module")
def trained(bilingual: Path) -> Path:
    options = {"max_epoch": 3, "num_iters_per_epoch": 100, "batch_size": 8, "keep_nbest_models": 1}
    DiffusionASRTask.main(cmd=command_line(bilingual, bilingual / "exp", MODEL, **options))
    return bilingual / "exp"


def test_the_token_alone_decides_which_language_is_written(bilingual: Path, trained: Path) -> None:
    states, written = StatesTable(bilingual / "dump/valid"), texts()
    for language in ("en", "de"):
        speech2text = Speech2Text(trained, inference={"sampler": "single"}, lang=language)
        for number in range(len(WORDS)):
            found = speech2text.decode_states(f"utt{number}", states[f"en-word{number}"], 1.0)
            assert found.text == written[f"{language}-word{number}"][1]


def test_the_command_takes_utt2lang_or_the_one_that_is_asked_for(bilingual: Path, trained: Path) -> None:
    (bilingual / "decode.yaml").write_text("sampler: single\n")
    words = ["--exp_dir", trained, "--config", bilingual / "decode.yaml", "--data_dir", bilingual / "data/valid",
             "--states_dir", bilingual / "dump/valid"]
    wanted = {"utt2lang": {key: text for key, (_, text) in texts().items()},
              "de": {key: texts()[f"de-{key[3:]}"][1] for key in texts()}}
    for name, expected in wanted.items():
        out = bilingual / f"decoded_{name}"
        for last in (("--job", "1"), ("--merge", "true")):
            asked = () if name == "utt2lang" else ("--lang", name)
            decode.main([str(word) for word in (*words, "--out", out, *asked, *last)])
        assert dict(line.split() for line in (out / "text").read_text().splitlines()) == expected


def test_a_training_without_the_languages_of_its_data_says_what_to_write(bilingual: Path, tmp_path: Path) -> None:
    line = command_line(bilingual, tmp_path / "exp", MODEL, max_epoch=1)
    without = [i for i, word in enumerate(line) if "utt2lang" in word]
    line = [word for i, word in enumerate(line) if i not in without and i + 1 not in without]
    with pytest.raises(UserError, match="tokens are of several languages.*write utt2lang.*--languages"):
        DiffusionASRTask.main(cmd=line)


def test_a_language_without_a_token_is_named_with_those_there_are(bilingual: Path, tmp_path: Path) -> None:
    for name in ("train", "valid"):
        (tmp_path / f"{name}_utt2lang").write_text("".join(f"{key} fr\n" for key in texts()))
    line = [f"{tmp_path}/{word.split('/')[-2]}_utt2lang,language,text" if "utt2lang" in word else word
            for word in command_line(bilingual, tmp_path / "exp", MODEL, max_epoch=1)]
    with pytest.raises(UserError, match="-word.: language 'fr' is unknown; the tokens have de, en"):
        DiffusionASRTask.main(cmd=line)


def test_the_autoregressive_control_refuses_languages(bilingual: Path, tmp_path: Path) -> None:
    config = MODEL | {"model": "causal_asr", "decoder": "causal", "model_conf": {}}
    with pytest.raises(UserError, match="causal_asr writes one language"):
        DiffusionASRTask.main(cmd=command_line(bilingual, tmp_path / "exp", config, max_epoch=1))
