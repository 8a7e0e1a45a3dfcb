"""The original Whisper over a data directory: settings, what a transcript tells, the command and its jobs."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from whisfusion_asr.bin import decode_whisper, score
from whisfusion_asr.original import compression_ratio
from whisfusion_asr.report.decoded import read_decoded

SECONDS = {"a1": 0.7, "a2": 1.1, "b1": 0.4, "b2": 0.9, "b3": 1.3}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """wav.scp and utt2spk of five noises, no transcripts."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for key, seconds in SECONDS.items():
        soundfile.write(folder / f"{key}.wav", 0.3 * rng.normal(size=int(16000 * seconds)), 16000)
    (folder / "wav.scp").write_text("".join(f"{key} {folder / key}.wav\n" for key in SECONDS))
    (folder / "utt2spk").write_text("".join(f"{key} {key[0]}\n" for key in SECONDS))
    return folder


def run(whisper: Path, data: Path, out: Path, jobs: int, *words: str) -> list[dict]:
    """Decode in some jobs and merge; returns candidates.jsonl."""
    command = ["--whisper_dir", whisper, "--data_dir", data, "--out", out, "--num_jobs", jobs, *words]
    for task in [*(["--job", job] for job in range(1, jobs + 1)), ["--merge", "true"]]:
        decode_whisper.main([str(word) for word in [*command, *task]])
    return list(records(out))


def records(out: Path) -> Iterator[dict]:
    """The lines of candidates.jsonl."""
    for line in (out / "candidates.jsonl").read_text().splitlines():
        yield json.loads(line)


@pytest.fixture(scope="module")
def decoded(toy_whisper: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("decoded")
    run(toy_whisper, data, out, 1, "--inference_args", "max_new_tokens=9 batch_size=2")
    return out


def test_jobs_and_batches_change_no_text(toy_whisper: Path, data: Path, decoded: Path, tmp_path: Path) -> None:
    found = run(toy_whisper, data, tmp_path, 2, "--inference_args", "max_new_tokens=9 batch_size=1")
    assert [(each["utt_id"], each["token_int"]) for each in found] == [
        (each["utt_id"], each["token_int"]) for each in records(decoded)]  # fmt: skip
    assert (tmp_path / "text").read_text() == (decoded / "text").read_text()


def test_a_transcript_tells_what_its_filters_need(decoded: Path) -> None:
    for each in records(decoded):
        (candidate,) = each["candidates"]
        assert each["duration"] == pytest.approx(SECONDS[each["utt_id"]])
        assert candidate["text"] == each["text"] and candidate["tokens"] == each["token_int"]
        assert each["passes"] == each["rows"] == len(each["tokens"]) + ("canvas_full" not in each["flags"])
        assert len(candidate["token_confidence"]) == len(each["tokens"]) and 0 < each["confidence"] <= 1
        assert candidate["mean_log_prob"] < 0 and candidate["compression_ratio"] == pytest.approx(
            compression_ratio(each["text"]), abs=1e-3)  # fmt: skip
        assert candidate["no_speech"] is None  # the toy has no such token
        assert set(each["timing"]) == {"encode", "decode"}


def test_the_conditions_and_both_times_are_kept(decoded: Path) -> None:
    meta = json.loads((decoded / "meta.json").read_text())
    parts = {part: sum(each["timing"][part] for each in records(decoded)) for part in ("encode", "decode")}
    assert meta["seconds"] == pytest.approx(parts, abs=1e-3)
    assert meta["decode_seconds"] == pytest.approx(sum(parts.values()), abs=2e-3)
    assert all(meta["cpu_seconds"][part] > 0 for part in parts)
    assert (meta["batch"], meta["dtype"], meta["sampler"]) == ("2 utterances", "float32", "greedy")
    assert meta["search"]["max_new_tokens"] == 9 and meta["language"] == "en"


def test_it_is_scored_and_read_as_every_decoding(data: Path, decoded: Path, tmp_path: Path) -> None:
    texts = {each["utt_id"]: each["text"].upper() for each in records(decoded)}
    (tmp_path / "text").write_text("".join(f"{key} {text}".rstrip() + "\n" for key, text in texts.items()))
    (tmp_path / "utt2spk").write_text((data / "utt2spk").read_text())
    words = ["--ref", tmp_path / "text", "--hyp", decoded / "text", "--out", decoded, "--normalizer", "basic"]
    score.main([str(word) for word in words])
    assert json.loads((decoded / "summary.json").read_text())["wer"]["errors"] == 0
    found = read_decoded(decoded, tmp_path)
    assert found.normalizer == "basic" and [each.counts.errors for each in found.utterances] == [0] * len(SECONDS)


@pytest.mark.parametrize(("change", "message"), [
    ("num_beams=0", "num_beams: expected at least 1, got 0"),
    ("beam=3", "unknown key beam; did you mean num_beams?"),
    ("batch_size=many", "batch_size: expected a whole number, got 'many'"),
    ("decoder=diffusion", "decoder: expected whisper, got 'diffusion'"),
    ("precision=int4", "precision: expected float32, bfloat16, int8, got 'int4'"),
])
def test_wrong_settings_are_one_line(toy_whisper: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
                                     change: str, message: str) -> None:  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        run(toy_whisper, data, tmp_path / "out", 1, "--inference_args", change)
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and message in line and not (tmp_path / "out").exists()


def test_a_folder_must_be_there(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path / "none", data, tmp_path / "out", 1)
    assert "none: no such folder; give a complete Whisper model" in capsys.readouterr().err


def test_repetitions_compress_well() -> None:
    assert compression_ratio("") == 0.0
    text = "one two three "
    assert compression_ratio(text * 20) > 2.4 > compression_ratio("the quick brown fox jumps over the lazy dog")
    import zlib

    assert math.isclose(compression_ratio(text), len(text) / len(zlib.compress(text.encode())))
