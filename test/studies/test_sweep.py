"""A sweep of a toy experiment: results, going on, refusal, and the page."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from engine_fakes import data_set, experiment

from whisfusion_asr.bin.sweep import main
from whisfusion_asr.decoding.settings import DecodingSettings
from whisfusion_asr.recipe.lock import locked
from whisfusion_asr.studies import sweep
from whisfusion_asr.studies.grid import Point
from whisfusion_asr.studies.sweep_page import write_sweep

SAMPLES = {f"u{number}": 1600 * (3 + number * 7 % 5) for number in range(9)}
GRID = """
points: {greedy: {sampler: ctc_greedy}}
grid: {sampler_conf.candidates: [1, 3]}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment, a set with transcripts, its states, a decoding YAML and a grid."""
    folder = data_set(tmp_path_factory.mktemp("sweep"), SAMPLES)
    experiment(folder / "exp")
    (folder / "data/text").write_text("".join(f"{key} ab c d\n" for key in SAMPLES))
    (folder / "decode.yaml").write_text("sampler: pdd\n")
    (folder / "grid.yaml").write_text(GRID)
    return folder


@pytest.fixture
def place(model: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(model, tmp_path / "place")


def run(place: Path, *words: str, figures: str = "false") -> dict:
    """The sweep's JSON file."""
    options = {"exp_dir": "exp", "data_dir": "data", "states_dir": "states", "config": "decode.yaml",
               "grid": "grid.yaml", "out": "sweep"}
    paths = [word for name, path in options.items() for word in (f"--{name}", str(place / path))]
    main([*paths, "--figures", figures, *words])
    return json.loads((place / "sweep/grid.json").read_text())


def refused(place: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a sweep ends with."""
    with pytest.raises(SystemExit) as stopped:
        run(place, *words)
    lines = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2 and len(lines) == 1, lines
    return lines[0]


def test_the_numbers_of_a_point_are_those_of_its_files(place: Path) -> None:
    found = run(place, figures="true")
    assert [point["name"] for point in found["points"]] == ["greedy", "candidates=1", "candidates=3"]
    for point in found["points"]:
        lines = (Path(point["place"]) / "candidates.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        assert len(records) == len(SAMPLES)
        assert point["rows"] == pytest.approx(sum(r["rows"] for r in records) / len(records), abs=1e-3)
        seconds = sum(sum(r["timing"].values()) for r in records)
        assert point["decode_seconds"] == pytest.approx(seconds, abs=1e-3)
        assert point["rtf"] == pytest.approx(seconds / (sum(SAMPLES.values()) / 16000), abs=1e-4)
        assert point["wer"] == pytest.approx(100 * point["errors"] / (3 * len(SAMPLES)))
    greedy, one, three = found["points"]
    assert one["passes"] <= 4 and three["rows"] > one["rows"] and greedy["oracle_wer"] is None
    assert one["oracle_wer"] == one["wer"] and three["oracle_wer"] <= three["wer"]
    page = (place / "sweep/grid.md").read_text()
    assert f"|candidates=3|{three['wer']:.2f}|" in page and "Recommended for wer" in page and "(1)" in page
    assert (place / "sweep/grid.png").read_bytes().startswith(b"\x89PNG")


def test_points_are_tested_against_the_named_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(place)
    page = (place / "sweep/grid.md").read_text()
    lowest = [point["comparison"] is None for point in found["points"]].index(True)
    assert found["points"][lowest]["name"] == found["lowest_wer"] and found["against"] is None
    assert "|above the lowest|" in page and "was chosen on this very set" in page
    found = run(place, "--against", "candidates=3")
    page = (place / "sweep/grid.md").read_text()
    one, other = found["points"][1]["comparison"], found["points"][2]["comparison"]
    wanted = found["points"][1]["wer"] - found["points"][2]["wer"]
    assert other is None and one["difference"] == pytest.approx(wanted) and found["against"] == "candidates=3"
    assert "|above candidates=3|" in page and "compare a point with `candidates=3`. The number of" in page
    line = refused(place, capsys, "--against", "k=3")
    assert "--against k=3: no such point; " in line and line.endswith("has greedy; candidates=1; candidates=3")


def test_the_page_tells_the_share_of_the_selection(place: Path) -> None:
    points = run(place)["points"]
    assert set(points[2]["seconds"]) == {"decode", "select"}
    for point, select in zip(points, (0.0, 0.5, 1.0), strict=True):
        point |= {"decode_seconds": 8.0, "seconds": {"decode": 8.0 - select, "select": select}}
    write_sweep(points, place, "page", "wer", None, {}, "", False)
    head, _, *rows = [line.strip("|").split("|") for line in (place / "page.md").read_text().splitlines()
                      if line.startswith("|")]
    assert [row[head.index("selection %")] for row in rows] == ["0.0", "6.2", "12.5"]


def test_a_killed_sweep_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(place)
    shutil.move(place / "sweep", place / "undisturbed")
    measured: list[str] = []

    def counted(point: Point, *rest: object) -> None:
        measured.append(point.name)
        if len(measured) == 2:
            (sweep.point_dir(place / "sweep", point) / "half").mkdir(parents=True)
            raise KeyboardInterrupt
        measure(point, *rest)

    measure = sweep._measure
    monkeypatch.setattr(sweep, "_measure", counted)
    with pytest.raises(KeyboardInterrupt):
        run(place)
    again = run(place)
    assert measured == ["greedy", "candidates=1", "candidates=1", "candidates=3"]
    assert [point["wer"] for point in again["points"]] == [point["wer"] for point in whole["points"]]
    run(place)
    assert len(measured) == 4, "what is there is not measured again"


def test_two_sweeps_do_not_share_a_directory_at_once(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(place / "sweep", "a sweep"):
        assert "sweep: another call is making a sweep" in refused(place, capsys)


def test_the_chance_of_a_decoder_is_told_by_mean_and_deviation(place: Path) -> None:
    (place / "grid.yaml").write_text("""
points: {greedy: {sampler: ctc_greedy}}
grid: {sampler_conf.candidates: [1, 3], sampler_conf.seed: [0, 5, 7]}
""")
    found = run(place)
    seeds = {row["shown"]: row for row in found["over_seeds"]}
    assert list(seeds) == ["candidates=1", "candidates=3"]
    rates = [point["wer"] for point in found["points"] if "candidates=3" in point["name"]]
    mean = sum(rates) / 3
    deviation = (sum((rate - mean) ** 2 for rate in rates) / 2) ** 0.5
    assert seeds["candidates=3"]["mean"] == pytest.approx(mean) and seeds["candidates=3"]["seeds"] == 3
    assert seeds["candidates=3"]["deviation"] == pytest.approx(deviation)
    assert (min(rates), max(rates)) == (seeds["candidates=3"]["lowest"], seeds["candidates=3"]["highest"])
    page = (place / "sweep/grid.md").read_text()
    assert f"|candidates=3|3|{mean:.2f}|{deviation:.2f}|" in page


def test_other_grids_share_the_points(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(place)
    (place / "grid.yaml").write_text("points: {renamed: {sampler_conf: {candidates: 3}}}")
    monkeypatch.setattr(sweep, "_measure", None)  # nothing is left to measure
    (row,) = run(place)["points"]
    assert row["name"] == "renamed" and row["wer"] == first["points"][2]["wer"]


@pytest.mark.parametrize(("file", "name"), [
    ("data/text", "the data"), ("data/utt2spk", "the data"), ("exp/config.yaml", "the model"),
    ("exp/valid.loss.ave.pth", "the model"), ("states/meta.json", "the states"), ("states/shape", "the states"),
])
def test_a_changed_input_is_refused(place: Path, capsys: pytest.CaptureFixture[str], file: str, name: str) -> None:
    (place / "sweep").mkdir()
    inputs = sweep.SweepInputs(str(place / "exp"), "valid.loss.ave.pth", str(place / "data"), str(place / "states"))
    old = inputs.identity()
    (place / "sweep/inputs.json").write_text(json.dumps(old))
    with open(place / file, "ab") as handle:
        handle.write(b"\n")
    line = refused(place, capsys)
    assert f"its results were made before a change of {name}; give a new --out" in line


def test_other_conditions_and_wrong_options_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(place)
    assert "change of the normalizer" in refused(place, capsys, "--normalizer", "basic")
    assert "--tolerance -1: expected 0 or more" in refused(place, capsys, "--tolerance", "-1")
    assert "--repeats 0: expected a positive number" in refused(place, capsys, "--repeats", "0")
    assert "unknown key beam; it knows" in refused(place, capsys, "--inference_args", "beam=3")
    (place / "data/text").unlink()
    assert "data/text: no such file; a sweep needs" in refused(place, capsys)


def test_a_setting_that_the_model_cannot_decode_is_refused_before_any_work(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = shutil.copytree(model, tmp_path / "place", ignore=shutil.ignore_patterns("exp"))
    decoder = {"size": 16, "num_blocks": 1, "attention_heads": 2, "ffn_size": 24}
    experiment(place / "exp", ctc=None, decoder_conf=decoder, model_conf={"canvas_conf": {"fit": "fixed"}})
    (place / "grid.yaml").write_text("points: {pdd: {}, greedy: {sampler: ctc_greedy}}")
    assert "sampler ctc_greedy needs encoder: and ctc:; one is missing" in refused(place, capsys)
    assert not (place / "sweep/points").exists()


def test_of_several_repeats_the_median_counts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "grid.yaml").write_text("points: {greedy: {sampler: ctc_greedy}}")
    seconds = iter([5.0, 1.0, 3.0])
    once = sweep._run

    def timed(*given: object) -> tuple:
        wanted = next(seconds)
        _, _, transcripts = once(*given)
        share = {"decode": wanted / len(transcripts)}
        return wanted, 10 * wanted, [replace(each, timing=share) for each in transcripts]

    monkeypatch.setattr(sweep, "_run", timed)
    (point,) = run(place, "--repeats", "3")["points"]
    assert (point["decode_seconds"], point["cpu_seconds"]) == (3.0, 30.0)


def test_the_point_of_a_directory_is_its_settings(place: Path) -> None:
    key = Point("any name", DecodingSettings.of({"sampler_conf": {"candidates": 3}})).key
    run(place)
    assert (place / "sweep/points" / key / "result.json").is_file()
