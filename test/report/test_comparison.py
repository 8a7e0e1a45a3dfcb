"""COMPARISON.md of systems whose errors, costs and conditions are known."""

import json
import struct
from pathlib import Path

import pytest

from whisfusion_asr.bin.compare import main
from whisfusion_asr.report.comparison import on_front
from whisfusion_asr.report.training import read_training, trainings
from whisfusion_asr.scoring import compare_systems, read_score_dir, score_files

REFERENCES = {f"s{number % 16:02d}-{number:03d}": "the cat sat on a mat" for number in range(80)}
META = {"sampler": "pdd", "audio_seconds": 200.0, "decode_seconds": 2.0, "passes": 4.0, "rows": 12.5,
        "device": "cpu", "threads": 1, "jobs": 2, "batch": "500 slots and frames",
        "processor": "a chip", "peak_memory_mib": 512.4, "dtype": "float32"}  # fmt: skip
LOG = "host INFO: {part}: {count:,} trainable, 7 frozen parameters\nhost INFO: 1epoch results: [train] time={time}\n"


def decoded(place: str, every: int, name: str = "test", meta: dict | None = None, speaker: int = 3) -> None:
    """A scored set in which every so-many-th utterance lacks its first two words; speaker: letters of its name."""
    out = Path(place, name)
    out.mkdir(parents=True)
    texts = {key: text.split(" ", 2)[2] if number % every == 0 else text
             for number, (key, text) in enumerate(REFERENCES.items())}
    for file, rows in (("ref", REFERENCES), ("text", texts), ("utt2spk", {key: key[:speaker] for key in REFERENCES})):
        (out / file).write_text("".join(f"{key} {value}\n" for key, value in rows.items()))
    score_files(*(out / file for file in ("ref", "text", "utt2spk")), out)
    (out / "candidates.jsonl").write_text(json.dumps({"timing": {"decode": 1.0}}) + "\n")
    if meta is not None:
        (out / "meta.json").write_text(json.dumps(META | meta))


def trained(place: str, part: str, count: int, time: str, *init: str) -> None:
    """An experiment with a log of one epoch."""
    Path(place).mkdir(parents=True, exist_ok=True)
    Path(place, "train.log").write_text(LOG.format(part=part, count=count, time=time))
    Path(place, "w.pth").write_text("")
    Path(place, "config.yaml").write_text(json.dumps({"init_param": list(init)}))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """exp/ar: 20 of 80 utterances with two errors; exp/x: 8 by diffusion, 20 by CTC; encoder and text model."""
    monkeypatch.chdir(tmp_path)
    trained("exp/enc", "ctc", 30, "2 minutes")
    trained("exp/text", "decoder.blocks", 500, "4 minutes")
    trained("exp/x", "decoder.blocks", 500, "30 seconds", "exp/text/w.pth", "exp/enc/w.pth:ctc:ctc")
    trained("exp/ar", "decoder.blocks", 600, "3 minutes", "exp/enc/w.pth:ctc:ctc")
    decoded("exp/ar/greedy", 4, meta={"sampler": "autoregressive", "decode_seconds": 10.0, "batch": "1 utterance"})
    decoded("exp/x/pdd", 10, meta={})
    decoded("exp/x/ctc", 4, meta={"sampler": "ctc_greedy", "decode_seconds": 0.2})
    (tmp_path / "exp/x/pdd/run.sh").write_text("./asr.sh --stage 5\n")
    return tmp_path


SYSTEMS = ["ar=exp/ar/greedy", "pdd=exp/x/pdd", "ctc=exp/x/ctc"]


def compare(*words: str) -> tuple[list[list[str]], dict, str]:
    """Cells of the first table, the JSON and the page."""
    main([*words, "--out", "exp/COMPARISON.md"])
    page = Path("exp/COMPARISON.md").read_text()
    table = page[: page.index("## Training")].splitlines()
    rows = [line.strip("|").split("|") for line in table if line.startswith("|")]
    return rows, json.loads(Path("exp/COMPARISON.json").read_text()), page


def test_the_table_holds_what_was_counted(here):
    rows, found, page = compare("--systems", *SYSTEMS, "--against", "ar")
    table = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}
    assert [table[name]["WER"] for name in ("ar", "pdd", "ctc")] == ["8.33", "3.33", "8.33"]  # of 480 words
    assert [table[name]["difference"] for name in ("ar", "pdd", "ctc")] == ["-", "-5.00", "+0.00"]
    assert [table[name]["RTFx"] for name in ("ar", "pdd", "ctc")] == ["20.0", "100.0", "1000.0"]
    assert [table[name]["trained parameters"] for name in ("ar", "pdd", "ctc")] == ["630", "530", "30"]
    assert [table[name]["training minutes"] for name in ("ar", "pdd", "ctc")] == ["5.0", "6.5", "2.0"]
    assert table["pdd"]["peak memory MiB"] == "512" and table["pdd"]["rows"] == "12.5"
    assert table["ar"]["batch"] == "1 utterance" and table["pdd"]["batch"] == "500 slots and frames"
    assert "80 utterances, 480 reference words, 16 speakers, normalizer none." in page
    assert "- Better than ar: pdd.\n- No difference from ar shown: ctc.\n" in page
    wanted = compare_systems(*(read_score_dir(f"exp/{place}/test/score_wer") for place in ("ar/greedy", "x/pdd")))
    assert found["sets"]["test"]["comparisons"]["pdd"] == json.loads(json.dumps(wanted.as_json()))
    assert wanted.mapsswe.p_value < 0.05 and table["pdd"]["p MAPSSWE"] != "-" != table["pdd"]["95 % by speaker"]


def test_a_decoding_without_candidates_tells_itself_what_was_timed(here):
    decoded("exp/x/beam", 4, meta={"encoder": "timed"})
    Path("exp/x/beam/test/candidates.jsonl").unlink()
    _, found, page = compare("--systems", "ar=exp/ar/greedy", "beam=exp/x/beam", "--against", "ar")
    row = found["sets"]["test"]["systems"][1]
    assert row["encoder"] == "timed" and row["rtfx"] == 100.0
    assert "encoder: ar not timed (states from disk), beam timed" in page


def test_where_only_some_encode_the_encoder_is_left_out_of_all(here):
    """20 s of decoding, 15 of them the encoder's, beside 10 s from states on disk."""
    decoded("exp/x/states", 4, meta={"decode_seconds": 10.0, "seconds": {"decode": 9.0, "select": 1.0}})
    decoded("exp/x/audio", 4, meta={"decode_seconds": 20.0, "seconds": {"decode": 5.0, "encode": 15.0},
                                    "encoder": "timed"})  # fmt: skip
    Path("exp/x/audio/test/candidates.jsonl").unlink()
    _, found, page = compare("--systems", "a=exp/x/states", "b=exp/x/audio", "--against", "a")
    assert [row["rtfx"] for row in found["sets"]["test"]["systems"]] == [20.0, 40.0]
    assert "encoder left out of RTFx" in page and "- encoder:" not in page
    _, found, _ = compare("--systems", "b=exp/x/audio", "c=exp/x/audio", "--against", "b")
    assert [row["rtfx"] for row in found["sets"]["test"]["systems"]] == [10.0, 10.0]


def test_the_speed_of_one_utterance_at_a_time(here):
    """A second directory is only timed; a decoding of single utterances needs none."""
    decoded("exp/x/pdd_one", 2, meta={"decode_seconds": 40.0, "batch": "1 utterance", "threads": 4})
    systems = [SYSTEMS[0], "pdd=exp/x/pdd,exp/x/pdd_one", SYSTEMS[2]]
    rows, found, page = compare("--systems", *systems, "--against", "ar")
    speeds = [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]
    assert [row["RTFx at batch 1"] for row in speeds] == ["20.0", "5.0", "-"]
    assert [row["RTFx"] for row in speeds] == ["20.0", "100.0", "1000.0"] and speeds[1]["WER"] == "3.33"
    assert "- threads: ar 1, pdd 1, ctc 1, pdd at batch 1 4" in page
    assert "- batch: ar 1 utterance, pdd 500 slots and frames, ctc 500 slots and frames" in page


def test_the_encoder_is_left_out_of_both_speeds(here):
    """Of 40 s one utterance at a time, 30 are the encoder's; the batch read its states from disk."""
    decoded("exp/x/states", 4, meta={"decode_seconds": 10.0, "seconds": {"decode": 10.0}})
    alone = {"decode_seconds": 40.0, "seconds": {"decode": 10.0, "encode": 30.0}, "batch": "1 utterance"}
    decoded("exp/x/one", 4, meta=alone | {"encoder": "timed"})
    Path("exp/x/one/test/candidates.jsonl").unlink()
    systems = ["a=exp/x/states,exp/x/one", "b=exp/x/states"]
    _, found, page = compare("--systems", *systems, "--against", "a")
    assert [(row["rtfx"], row["rtfx_alone"]) for row in found["sets"]["test"]["systems"]] == [(20, 20), (20, None)]
    assert "encoder left out of RTFx" in page


@pytest.mark.parametrize(("place", "message"), [
    ("exp/x/pdd", "exp/x/pdd/test/meta.json: batch 500 slots and frames, expected '1 utterance' for the second"),
    ("exp/no", "exp/no/test/meta.json: no such file, expected '1 utterance'"),
    ("", "'x=exp/x/ctc,': expected NAME=DIR or NAME=DIR,DIR1"),
])  # fmt: skip
def test_a_second_directory_must_be_of_single_utterances(here, capsys, place, message):
    with pytest.raises(SystemExit) as end:
        compare("--systems", SYSTEMS[0], f"x=exp/x/ctc,{place}", "--against", "ar")
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_the_original_whisper_was_not_trained_here(here):
    decoded("exp/x/ar_whisper", 5, meta={"decoder": "whisper"})
    rows, _, _ = compare("--systems", "w=exp/x/ar_whisper", "pdd=exp/x/pdd", "--against", "w")
    assert [row[rows[0].index("trained parameters")] for row in rows[2:]] == ["-", "530"]


def test_references_of_whisper_are_no_truth(here):
    for place in ("exp/ar/greedy", "exp/x/pdd"):
        summary = Path(place, "test/summary.json")
        summary.write_text(json.dumps(json.loads(summary.read_text()) | {"labelled": 12}))
    _, found, page = compare("--systems", *SYSTEMS[:2], "--against", "ar")
    assert found["sets"]["test"]["labelled"] == 12
    assert "The original Whisper wrote 12 of the references" in page


def test_no_system_but_the_reference_stands_without_p_values(here):
    rows, _, _ = compare("--systems", *SYSTEMS, "--against", "pdd")
    places = [place for place, heading in enumerate(rows[0]) if heading.startswith("p ")]
    assert len(places) == 3
    assert [[row[place] == "-" for place in places] for row in rows[2:]] == [[False] * 3, [True] * 3, [False] * 3]


def test_few_speakers_give_no_p_value(here):
    for place, every in (("exp/a/one", 4), ("exp/b/two", 10)):
        decoded(place, every, speaker=2)  # s0 and s1
    rows, found, page = compare("--systems", "one=exp/a/one", "two=exp/b/two", "--against", "one")
    assert "80 utterances, 480 reference words, 2 speakers" in page and "p bootstrap by speaker" not in rows[0]
    assert found["sets"]["test"]["comparisons"]["two"]["by_speaker"]["p_value"] is not None


def test_conditions_that_differ_are_told(here):
    _, _, page = compare("--systems", *SYSTEMS, "--against", "ar")
    assert "Decoded by all alike: device cpu; processor a chip; threads 1; jobs 2; encoder not timed" in page
    assert "; dtype float32." in page
    different = page[page.index("**RTFx and memory were measured under different conditions:**") :].splitlines()
    assert different[2] == "- batch: ar 1 utterance, pdd 500 slots and frames, ctc 500 slots and frames"
    assert "Told by none: gpu, warm_up." in page
    decoded("exp/espnet/decode", 5)  # a system of another toolkit: scores and nothing else
    decoded("exp/x/warm", 10, meta={"warm_up": "1 utterance"})
    _, _, page = compare("--systems", "pdd=exp/x/pdd", "warm=exp/x/warm", "--against", "pdd")
    assert "- warm_up: pdd not recorded, warm 1 utterance" in page
    rows, _, page = compare("--systems", "pdd=exp/x/pdd", "other=exp/espnet/decode", "--against", "pdd")
    assert "- threads: pdd 1, other not recorded" in page and rows[3][rows[0].index("RTFx")] == "-"


def test_commands_and_figure(here):
    _, _, page = compare("--systems", *SYSTEMS, "--against", "ar")
    command = "whisfusion compare --systems ar=exp/ar/greedy pdd=exp/x/pdd ctc=exp/x/ctc --against ar --out"
    assert command in page and "`exp/x/pdd/run.sh`:\n\n```bash\n./asr.sh --stage 5\n```" in page
    assert page.index("## Training") < page.index("## Environments") < page.index("## Commands")
    assert "|exp/enc|2.0|1|30|ar, pdd, ctc|\n|exp/ar|3.0|1|600|ar|\n|exp/text|4.0|1|500|pdd|\n" in page
    picture = Path("exp/comparison.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">2I", picture[16:24])[0] > 300


def test_a_control_is_marked(here):
    decoded("exp/x/shuffled", 1, meta={"control": "shuffled_states"})
    rows, _, _ = compare("--systems", *SYSTEMS, "deaf=exp/x/shuffled", "--against", "ar")
    assert rows[-1][0] == "deaf (control: shuffled_states)"


def test_the_pareto_front():
    rows = [{"wer": wer, "rtfx": speed} for wer, speed in ((3, 10), (3, 20), (5, 40), (6, 30), (3, 20), (2, None))]
    assert [on_front(row, rows) for row in rows] == [False, True, True, False, True, False]


@pytest.mark.parametrize(("words", "message"), [
    (["ar=exp/ar/greedy", "pdd"], "'pdd': expected NAME=DIR"),
    (["ar=exp/ar/greedy"], "nothing to compare with ar: name two systems"),
    (["ar=exp/ar/greedy", "ar=exp/x/pdd"], "system ar is given twice: exp/ar/greedy and exp/x/pdd"),
    (["ar=exp/ar/greedy", "x=exp/x"], "exp/x/*/score_wer/ref.trn: system x has no scored set"),
    (["a=exp/ar/greedy", "b=exp/x/pdd"], "--against ar: no such system; given are a, b"),
    ([*SYSTEMS, "--sets", "dev"], "exp/ar/greedy/dev/score_wer/ref.trn: system ar has no scores of dev"),
    ([*SYSTEMS, "--replicates", "0"], "--replicates 0: expected a positive number"),
])  # fmt: skip
def test_a_wrong_call_is_one_line(here, capsys, words, message):
    with pytest.raises(SystemExit) as end:
        compare("--systems", *words, "--against", "ar")
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and message in line and not Path("exp/COMPARISON.md").exists()


def test_other_references_and_normalizers_are_refused(here, capsys):
    for place, message in (("exp/x/pdd/test/score_wer/ref.trn", "the reference of (s00-s00-000) differs"),
                           ("exp/x/pdd/test/summary.json", "different normalizers (ar none, pdd basic)")):
        old = Path(place).read_text()
        Path(place).write_text(old.replace("the cat", "the dog", 1).replace('"normalizer": "none"',
                                                                            '"normalizer": "basic"'))
        with pytest.raises(SystemExit) as end:
            compare("--systems", *SYSTEMS[:2], "--against", "ar")
        assert end.value.code == 2 and message in capsys.readouterr().err
        Path(place).write_text(old)


def test_what_drafts_has_its_cost(here):
    """The training of another experiment's head counts, that of the decoder beside it does not."""
    trained("exp/both", "decoder.blocks", 900, "7 minutes", "exp/enc/w.pth:ctc:ctc")
    decoded("exp/x/gaps", 10, meta={"sampler": "gaps", "draft_dir": "exp/both"})
    rows, _, page = compare("--systems", "pdd=exp/x/pdd", "gaps=exp/x/gaps", "--against", "pdd")
    told = [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]
    assert [row["training minutes"] for row in told] == ["6.5", "6.5"]  # its own head is the same
    trained("exp/head", "ctc", 40, "10 minutes")
    decoded("exp/x/other", 10, meta={"sampler": "gaps", "draft_dir": "exp/head"})
    rows, _, page = compare("--systems", "pdd=exp/x/pdd", "gaps=exp/x/other", "--against", "pdd")
    told = dict(zip(rows[0], rows[-1], strict=True))
    assert (told["training minutes"], told["trained parameters"]) == ("16.5", "570")
    assert "|exp/head|10.0|1|40|gaps|" in page


def test_the_trainings_behind_an_experiment(here):
    trained("exp/last", "decoder.blocks", 500, "1 minute", "exp/x/w.pth", "exp/text/w.pth")
    assert [each.place.name for each in trainings(Path("exp/last"))] == ["text", "enc", "x", "last"]
    assert [each.place.name for each in trainings(Path("exp/last"), ("ctc",))] == []
    assert [each.place.name for each in trainings(Path("exp/x"), ("ctc",))] == ["enc"]
    second = LOG.replace("1epoch", "2epoch")
    for number, log, time in ((1, second, "1 minute"), (2, second, "5 minutes"), (3, LOG, "9 minutes")):
        Path(f"exp/enc/train.{number}.log").write_text(log.format(part="ctc", count=30, time=time))
    found = read_training(Path("exp/enc"))
    assert (found.epochs, found.seconds, found.parts) == (2, 180.0, {"ctc": (30, 7)}), "each epoch by its last run"
