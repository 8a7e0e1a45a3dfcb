"""The decode command: jobs and their number change no transcript, and settings are refused before any work."""

import json
from pathlib import Path

import pytest
import torch
from engine_fakes import TOKENS, data_set, experiment

from whisfusion_asr.api import Speech2Text
from whisfusion_asr.bin.decode import main, read_settings
from whisfusion_asr.decoding.output import Transcript, merge_parts, write_part
from whisfusion_asr.decoding.settings import SAMPLERS
from whisfusion_asr.errors import UserError
from whisfusion_asr.report.environment import cpu_model

SAMPLES = {f"u{number}": 1600 * (3 + number * 7 % 5) for number in range(9)}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with an experiment, a data directory and its states; one frame every 0.1 s."""
    folder = tmp_path_factory.mktemp("decode")
    experiment(folder / "exp")
    data_set(folder, SAMPLES)
    (folder / "decode.yaml").write_text("sampler: pdd\nsampler_conf: {candidates: 3}\n")
    return folder


def run(place: Path, out: str, jobs: int, *words: str) -> list[dict]:
    """Decode in some jobs and merge; returns candidates.jsonl without the times."""
    command = ["--exp_dir", place / "exp", "--config", place / "decode.yaml", "--data_dir", place / "data",
               "--states_dir", place / "states", "--out", place / out, "--num_jobs", jobs, *words]
    for job in range(1, jobs + 1):
        main([*map(str, command), "--job", str(job)])
    main([*map(str, command), "--merge", "true"])
    records = [json.loads(line) for line in (place / out / "candidates.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "timing"} for record in records]


def test_without_a_job_all_parts_are_decoded_and_joined(place):
    command = ["--exp_dir", place / "exp", "--config", place / "decode.yaml", "--data_dir", place / "data",
               "--states_dir", place / "states"]
    for jobs in (1, 2):
        main([str(word) for word in [*command, "--out", place / f"at_once{jobs}", "--num_jobs", jobs]])
    run(place, "apart", 2)
    expected = (place / "apart/text").read_text()
    assert expected and (place / "at_once1/text").read_text() == (place / "at_once2/text").read_text() == expected


@pytest.mark.parametrize("words", [("--job", "0"), ("--job", "3"), ("--num_jobs", "0")])
def test_a_part_that_does_not_exist_is_refused(place, words, capsys):
    command = ["--exp_dir", place / "exp", "--config", place / "decode.yaml", "--data_dir", place / "data", "--out",
               place / "none", "--num_jobs", 2, *words]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in command])
    assert stop.value.code == 2 and "expected 1 to num_jobs" in capsys.readouterr().err


def texts(records: list[dict]) -> list[tuple]:
    """What must not change at all."""
    return [(r["utt_id"], r["text"], r["flags"], r["rows"], [c["tokens"] for c in r["candidates"]]) for r in records]


def test_the_number_of_jobs_and_the_batch_change_nothing(place):
    one = run(place, "one", 1)
    assert [record["utt_id"] for record in one] == sorted(SAMPLES)
    assert texts(run(place, "three", 3)) == texts(one)
    assert texts(run(place, "alone", 2, "--inference_args", "engine_conf.batch_tokens=1")) == texts(one)
    assert (place / "one/text").read_text() == (place / "three/text").read_text()


def test_all_candidates_are_written_as_an_n_best_list(place):
    """The chosen one first; whatever the number of jobs, and nothing of an earlier decoding."""
    conf = "sampler_conf.first_pass=sample"
    records = run(place, "nbest", 1, "--inference_args", f"{conf} sampler_conf.candidates=4")
    assert len(list((place / "nbest").glob("*best_recog"))) == 4
    for jobs in (1, 2):
        records = run(place, "nbest", jobs, "--inference_args", conf)
        places = [place / "nbest" / f"{n}best_recog" for n in (1, 2, 3)]
        assert sorted((place / "nbest").glob("*best_recog")) == places
        scores = [[float(line.split()[1]) for line in (each / "score").read_text().splitlines()] for each in places]
        assert all(column == tuple(sorted(column, reverse=True)) for column in zip(*scores, strict=True))
    for name in ("text", "token", "token_int"):
        lines = zip(*[(each / name).read_text().splitlines() for each in places], strict=True)
        for record, found in zip(records, lines, strict=True):
            said = {"text": [c["text"] for c in record["candidates"]],
                    "token": [" ".join(TOKENS[i] for i in c["tokens"]) for c in record["candidates"]],
                    "token_int": [" ".join(map(str, c["tokens"])) for c in record["candidates"]]}[name]
            assert sorted(found) == sorted(f"{record['utt_id']} {each}".rstrip() for each in said)


def test_an_utterance_with_fewer_candidates_is_in_fewer_lists(tmp_path):
    def transcript(name: str, chosen: int | None, selection: str) -> Transcript:
        candidates = [{"text": t, "tokens": [n], "pieces": [t.upper()], "confidence": c}
                      for n, (t, c) in enumerate(CANDIDATES[name])]
        return Transcript(name, 1.0, "said", ["said"], [9], 0.9, candidates=candidates, chosen=chosen,
                          selection=selection)

    write_part(tmp_path, 1, [transcript("a", 1, "ctc"), transcript("b", 0, "ctc"), transcript("c", None, "rover"),
                             transcript("d", 0, "score")])
    merge_parts(tmp_path, 1, list(CANDIDATES), {})
    found = [(tmp_path / f"{n}best_recog/text").read_text().split("\n")[:-1] for n in (1, 2, 3)]
    assert found == [["a said", "b said", "c said", "d said"], ["a z", "c y", "d y"], ["a x", "c x", "d z"]]
    second = {name: (tmp_path / "2best_recog" / name).read_text() for name in ("token", "token_int", "score")}
    assert second == {"token": "a Z\nc Y\nd Y\n", "token_int": "a 2\nc 1\nd 1\n",
                      "score": "a 0.800000\nc 0.700000\nd 0.200000\n"}


CANDIDATES = {"a": [("x", 0.5), ("y", 0.6), ("z", 0.8)], "b": [("x", 0.5)], "c": [("x", 0.5), ("y", 0.7)],
              "d": [("x", 0.5), ("y", 0.2), ("z", 0.4)]}


def test_a_job_begins_with_an_utterance_that_nobody_times(place, monkeypatch):
    decoded: list[str] = []

    class Counting(Speech2Text):
        def _decode(self, batch):
            decoded.extend(utterance.utt_id for utterance in batch)
            return super()._decode(batch)

    monkeypatch.setattr("whisfusion_asr.bin.decode.Speech2Text", Counting)
    run(place, "warm", 1)
    longest = max(SAMPLES, key=SAMPLES.get)
    assert decoded[:2] == [longest, longest] and sorted(decoded[1:]) == sorted(SAMPLES)
    assert json.loads((place / "warm/meta.json").read_text())["warm_up"] == "1 utterance"


def test_another_experiment_writes_the_draft(place):
    experiment(place / "ctc", seed=3, decoder=None, decoder_conf=None)
    (place / "gaps.yaml").write_text("sampler: gaps\nengine_conf: {draft: 1.0e-6}\n")
    own = run(place, "own_draft", 1, "--config", place / "gaps.yaml")
    other = run(place, "other_draft", 2, "--config", place / "gaps.yaml", "--draft_dir", place / "ctc")
    assert texts(own) != texts(other)
    meta = json.loads((place / "other_draft/meta.json").read_text())
    assert meta["draft_dir"] == str(place / "ctc") and meta["draft_model"] == "valid.loss.ave.pth"
    assert meta["exp_dir"] == str(place / "exp") and meta["engine_conf"]["draft"] == 1e-6


def test_the_trace_is_kept_on_request(place):
    traced = run(place, "traced", 1, "--trace", "true")
    assert [r["candidates"] for r in traced] == [r["candidates"] for r in run(place, "untraced", 1)]
    assert all(len(record["trace"]) == 4 and record["kept"] == [0, 1, 2] for record in traced)
    assert traced[0]["trace"][0].keys() == {"rows", "shown", "guess", "confidence"}


def test_words_have_times_and_another_selection_on_request(place):
    timed = run(place, "timed", 1, "--word_times", "true", "--inference_args", "selection=rover_ctc")
    assert {r["selection"] for r in timed} == {"rover_ctc"} and any(r["words"] for r in timed)
    assert all(0 <= w["start"] <= w["end"] <= r["duration"] for r in timed for w in r["words"])
    assert json.loads((place / "timed/meta.json").read_text())["selection_conf"]["ctc_sharpness"] == 0.25


def test_the_control_decodes_another_utterance(place):
    own, other = run(place, "own", 1), run(place, "other", 1, "--inference_args", "control=shuffled_states")
    assert [r["text"] for r in own] != [r["text"] for r in other]
    meta = json.loads((place / "other/meta.json").read_text())
    assert meta["control"] == "shuffled_states" and meta["sampler_conf"]["mask_ratios"] == [1.0, 0.9, 0.85, 0.8]
    assert meta["selection"] == "confidence" and meta["utterances"] == len(SAMPLES) and meta["rows"] < 12


def test_the_budget_is_one_word_on_the_command_line():
    file = str(Path(__file__).parents[2] / "conf/decode_gaps.yaml")
    for words, looks in (([], 3), (["budget=fast"], 1), (["budget=accurate"], None)):
        assert read_settings(file, words)[0].options.looks == looks
    assert read_settings(file, ["sampler=pbeb"])[0].sampler == "pbeb"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_sampler_may_be_named_on_the_command_line(tmp_path, sampler):
    """What the file says to its own sampler is kept where the other knows it, and no obstacle elsewhere."""
    path = tmp_path / "decode.yaml"
    path.write_text("sampler: pdd\nsampler_conf: {candidates: 3, seed: 7}\n")
    settings, control = read_settings(str(path), [f"sampler={sampler}"])
    assert settings.sampler == sampler and control is None
    if sampler in ("pdd", "pdd_reference", "random"):
        assert settings.options.seed == 7
    with pytest.raises(UserError, match="made_up"):
        read_settings(str(path), [f"sampler={sampler}", "sampler_conf.made_up=3"])


def test_the_arithmetic_is_in_meta_json(place, capsys):
    run(place, "plain", 1)
    assert json.loads((place / "plain/meta.json").read_text())["dtype"] == "float32"
    for name, words in (("bf16", ["--dtype", "bfloat16"]), ("int8", ["--quantize", "int8"])):
        records = run(place, name, 2, *words)
        meta = json.loads((place / name / "meta.json").read_text())
        assert meta[words[0].removeprefix("--")] == meta["dtype"] == words[1] and len(records) == len(SAMPLES)
    with pytest.raises(SystemExit):
        run(place, "half", 1, "--dtype", "float16")
    assert "float16 needs a CUDA device" in capsys.readouterr().err


def test_what_the_jobs_ran_on_is_kept(place):
    run(place, "alone", 3, "--inference_args", "engine_conf.batch_tokens=1")
    meta = json.loads((place / "alone/meta.json").read_text())
    assert (meta["jobs"], meta["threads"], meta["batch"]) == (3, torch.get_num_threads(), "1 utterance")
    assert meta["processor"] == cpu_model() and meta["peak_memory_mib"] > 50
    parts = sorted((place / "alone/logdir").glob("output.*/conditions.json"))
    for part, memory, threads in zip(parts, (100.0, 300.0, 200.0), (2, 2, 1), strict=True):
        part.write_text(json.dumps({"peak_memory_mib": memory, "threads": threads}))
    merge_parts(place / "alone", 3, list(SAMPLES), {})
    meta = json.loads((place / "alone/meta.json").read_text())
    assert (meta["peak_memory_mib"], meta["threads"]) == (300.0, [2, 1])
    run(place, "batched", 1)
    assert json.loads((place / "batched/meta.json").read_text())["batch"] == "500 slots and frames"


@pytest.mark.parametrize(("change", "message"), [
    ("sampler_conf.candidates=0", "candidates: expected at least 1, got 0"),
    ("sampler_conf.mask_ratios=[1.0,0.8,0.9]", "mask_ratios: expected numbers that do not rise"),
    ("control=deaf", "control: 'deaf' is unknown; expected shuffled_states or nothing"),
    ("engine_conf.budget=3", "unknown key budget; did you mean budget_ms?"),
    ("smpler=pdd", "unknown key smpler; did you mean sampler?"),
])
def test_wrong_settings_are_one_line(place, capsys, change, message):
    with pytest.raises(SystemExit) as stopped:
        run(place, "wrong", 1, "--inference_args", change)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {place}/decode.yaml: ") and message in line
    assert not (place / "wrong").exists()
