"""What ESPnet's jobs wrote becomes one decode directory."""

import json
from pathlib import Path

import pytest

from whisfusion_asr.decoding.espnet_parts import merge_espnet_parts
from whisfusion_asr.errors import UserError

# asr_inference prints its scores as tensors; an utterance in which it found nothing has only its key
FIRST = {"text": "c a dog\na \n", "token": "c ▁a ▁dog\na \n", "token_int": "c 3 4\na \n",
         "score": "c tensor(-1.25)\na tensor(-2., device='cuda:0')\n"}  # fmt: skip
SECOND = {"text": "b cat\n", "token": "b ▁cat\n", "token_int": "b 5\n", "score": "b 0\n"}
DURATIONS = {"a": 2.0, "b": 3.0, "c": 5.0}


def write_part(out: Path, job: int, files: dict[str, str], **conditions: object) -> None:
    """The part of a job, as the program and the command around it leave it."""
    place = out / "logdir" / f"output.{job}"
    (place / "1best_recog").mkdir(parents=True)
    for name, content in files.items():
        (place / "1best_recog" / name).write_text(content, encoding="utf-8")
    if conditions:
        (place / "conditions.json").write_text(json.dumps(conditions))


@pytest.fixture
def decoded(tmp_path: Path) -> Path:
    """A decode directory with the parts of two jobs."""
    write_part(tmp_path, 1, FIRST, threads=1, peak_memory_mib=300.5, decode_seconds=1.5)
    write_part(tmp_path, 2, SECOND, threads=1, peak_memory_mib=299.0, decode_seconds=0.5)
    return tmp_path


def test_files_are_sorted_by_key_and_scores_are_numbers(decoded: Path) -> None:
    merge_espnet_parts(decoded, 2, DURATIONS, {})
    for place in (decoded, decoded / "1best_recog"):
        assert (place / "text").read_text() == "a\nb cat\nc a dog\n"
        assert (place / "token").read_text(encoding="utf-8") == "a\nb ▁cat\nc ▁a ▁dog\n"
        assert (place / "token_int").read_text() == "a\nb 5\nc 3 4\n"
        assert (place / "score").read_text() == "a -2.\nb 0\nc -1.25\n"


def test_meta_has_the_settings_and_the_sums(decoded: Path) -> None:
    totals = merge_espnet_parts(decoded, 2, DURATIONS, {"device": "cpu"})
    meta = json.loads((decoded / "meta.json").read_text())
    assert totals == {"utterances": 3, "audio_seconds": 10.0, "decode_seconds": 2.0, "rtf": 0.2}
    assert meta == totals | {"device": "cpu", "threads": 1, "peak_memory_mib": 300.5, "jobs": 2}


def test_utterances_must_be_those_of_the_set(decoded: Path) -> None:
    with pytest.raises(UserError, match=r"1 utterances missing \['d'\], 0 too many"):
        merge_espnet_parts(decoded, 2, DURATIONS | {"d": 1.0}, {})
    with pytest.raises(UserError, match=r"0 utterances missing \[\], 1 too many \['c'\]"):
        merge_espnet_parts(decoded, 2, {"a": 2.0, "b": 3.0}, {})
    assert not (decoded / "text").exists()


def test_a_missing_or_unfinished_part_is_named(decoded: Path) -> None:
    with pytest.raises(UserError, match="output.3/1best_recog/text: the part of job 3 of 3 is missing"):
        merge_espnet_parts(decoded, 3, DURATIONS, {})
    (decoded / "logdir/output.2/conditions.json").unlink()
    with pytest.raises(UserError, match="output.2/conditions.json: missing, the job did not come to its end"):
        merge_espnet_parts(decoded, 2, DURATIONS, {})
