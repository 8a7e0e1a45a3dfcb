"""The original Whisper's search: transformers' own tokens, probabilities by teacher forcing, batches, refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from whisfusion_asr.errors import UserError
from whisfusion_asr.models.running import Int8Linear
from whisfusion_asr.models.whisper_vocabulary import read_vocabulary
from whisfusion_asr.pretrained.whisper import copy_encoder
from whisfusion_asr.pretrained.whisper_generate import OriginalWhisper

LENGTHS = (16000, 4000, 9001)


@pytest.fixture(scope="module")
def folder(toy_whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy Whisper with banned tokens: the three that it would choose first without a ban, and one as a first."""
    place = tmp_path_factory.mktemp("banned") / "whisper"
    shutil.copytree(toy_whisper, place)
    free = OriginalWhisper(str(toy_whisper), max_new_tokens=4)(speech()).utterances
    often = sorted({token for each in free for token in each.tokens})[:3]
    banned = {"is_multilingual": True, "suppress_tokens": often, "begin_suppress_tokens": [5]}
    (place / "generation_config.json").write_text(json.dumps(banned))
    return place


def speech(lengths: tuple[int, ...] = LENGTHS) -> list[torch.Tensor]:
    """Tones with noise."""
    noise = torch.Generator().manual_seed(0)
    return [torch.sin(torch.arange(n) * 0.03 * (i + 1)) * 0.3 + 0.05 * torch.randn(n, generator=noise)
            for i, n in enumerate(lengths)]  # fmt: skip


def of_transformers(folder: Path, **search: Any) -> list[list[int]]:
    """The tokens behind the prefix as Whisper's own class in transformers finds them."""
    vocabulary = read_vocabulary(str(folder))
    whisper = WhisperForConditionalGeneration.from_pretrained(folder).float().eval()
    end = vocabulary["<|endoftext|>"]
    whisper.generation_config = GenerationConfig(
        **json.loads((folder / "generation_config.json").read_text()), eos_token_id=end, pad_token_id=end,
        decoder_start_token_id=vocabulary["<|startoftranscript|>"], max_length=40,
        lang_to_id={"<|de|>": vocabulary["<|de|>"]}, task_to_id={"transcribe": vocabulary["<|transcribe|>"]},
        no_timestamps_token_id=vocabulary["<|notimestamps|>"],
    )  # fmt: skip
    extract = WhisperFeatureExtractor()
    features = extract([each.numpy() for each in speech()], sampling_rate=16000, return_tensors="pt").input_features
    rows = whisper.generate(features, language="de", task="transcribe", return_timestamps=False, **search).tolist()
    rows = [row[4:] if row[0] == vocabulary["<|startoftranscript|>"] else row for row in rows]
    return [[token for token in row if token < end] for row in rows]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_it_is_the_search_of_transformers(folder: Path, num_beams: int) -> None:
    found = OriginalWhisper(str(folder), language="de", num_beams=num_beams, max_new_tokens=8)(speech())
    assert [each.tokens for each in found.utterances] == of_transformers(folder, num_beams=num_beams, max_new_tokens=8)
    assert all(seconds > 0 for seconds in found.seconds.values())


def test_banned_tokens_are_never_written(toy_whisper: Path, folder: Path) -> None:
    banned = set(json.loads((folder / "generation_config.json").read_text())["suppress_tokens"])
    with_ban = OriginalWhisper(str(folder), max_new_tokens=8)(speech()).utterances
    without = OriginalWhisper(str(folder), max_new_tokens=8, suppress=False)(speech()).utterances
    assert not any(banned & set(each.tokens) for each in with_ban)
    assert any(banned & set(each.tokens) for each in without)
    assert without == OriginalWhisper(str(toy_whisper), max_new_tokens=8)(speech()).utterances


def test_probabilities_are_those_of_the_text_given_at_once(toy_whisper: Path) -> None:
    model = OriginalWhisper(str(toy_whisper), max_new_tokens=6)
    (found,) = model(speech()[:1]).utterances
    whisper = WhisperForConditionalGeneration.from_pretrained(toy_whisper).float().eval()
    features = WhisperFeatureExtractor()(speech()[0].numpy(), sampling_rate=16000, return_tensors="pt").input_features
    given = torch.tensor([[*model.prefix, *found.tokens]])
    with torch.no_grad():
        logits = whisper(input_features=features, decoder_input_ids=given).logits[0, len(model.prefix) - 1 :]
    expected = logits.log_softmax(-1)[range(len(found.tokens)), found.tokens]
    assert found.tokens and found.log_probs == pytest.approx(expected.tolist(), abs=1e-4)
    chosen = [*found.log_probs, *([] if found.end_log_prob is None else [found.end_log_prob])]
    assert found.steps == len(chosen) and found.mean_log_prob == pytest.approx(sum(chosen) / len(chosen))


def test_int8_is_the_same_search_but_for_rounding(toy_whisper: Path) -> None:
    """The linear layers of the decoder and the one that names the tokens; the encoder is left as it is."""
    plain, other = (OriginalWhisper(str(toy_whisper), max_new_tokens=4, precision=how) for how in ("float32", "int8"))
    kinds = {type(layer) for layer in other.whisper.modules()}
    assert Int8Linear in kinds and torch.nn.Linear not in kinds
    wanted, found = (model(speech()).utterances for model in (plain, other))
    for one, two in zip(wanted, found, strict=True):
        assert one.tokens[0] == two.tokens[0] and one.log_probs != two.log_probs
        assert two.log_probs[0] == pytest.approx(one.log_probs[0], abs=0.05)
    heard = [model.encoder(speech()[0][None], torch.tensor([LENGTHS[0]]))[0] for model in (plain, other)]
    assert torch.equal(*heard)


def test_neighbours_in_a_batch_change_nothing(toy_whisper: Path) -> None:
    model = OriginalWhisper(str(toy_whisper), max_new_tokens=8)
    together = model(speech()).utterances
    for each, alone in zip(together, (model([wave]).utterances[0] for wave in speech()), strict=True):
        assert each.tokens == alone.tokens and each.log_probs == pytest.approx(alone.log_probs, abs=1e-4)
    assert model.cpu_seconds["encode"] > 0 and model.cpu_seconds["decode"] > 0


def test_room_that_ends_is_told(toy_whisper: Path) -> None:
    (short,) = OriginalWhisper(str(toy_whisper), max_new_tokens=1)(speech()[:1]).utterances
    assert short.end_log_prob is None and len(short.tokens) == short.steps == 1


@pytest.mark.parametrize(("conf", "message"), [
    ({"max_new_tokens": 37}, "max_new_tokens: 37 do not fit behind the 4 tokens"),
    ({"language": "xx"}, r"language: .* has no token <\|xx\|>"),
])  # fmt: skip
def test_what_the_model_cannot_do_is_refused(toy_whisper: Path, conf: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        OriginalWhisper(str(toy_whisper), **conf)


def test_more_than_a_window_is_refused(toy_whisper: Path) -> None:
    with pytest.raises(UserError, match="lasts 30.00 s, Whisper's encoder takes at most 30 s"):
        OriginalWhisper(str(toy_whisper))([torch.zeros(480001)])


def test_an_encoder_alone_writes_nothing(toy_whisper: Path, tmp_path: Path) -> None:
    copy_encoder(toy_whisper, tmp_path)
    for name in ("tokenizer.json", "generation_config.json"):
        shutil.copy(toy_whisper / name, tmp_path)
    with pytest.raises(UserError, match="an encoder alone writes no text"):
        OriginalWhisper(str(tmp_path))


def test_the_real_one_hears_words_and_silence(real_whisper: Path, shared_data: Path) -> None:
    from whisfusion_asr.data.audio import load_audio

    lines = (shared_data / "LibriSpeech/lists/test_tiny/wav.scp").read_text().splitlines()
    words = load_audio(str(shared_data / "LibriSpeech" / lines[0].split()[1]))
    spoken, silent = OriginalWhisper(str(real_whisper))([torch.from_numpy(words), torch.zeros(48000)]).utterances
    assert len(spoken.tokens) > 3 and spoken.mean_log_prob > -1 and spoken.end_log_prob is not None
    assert spoken.no_speech < 0.5 < silent.no_speech
