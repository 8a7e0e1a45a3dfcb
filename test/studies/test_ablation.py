"""Ablations: what each run of a recipe is asked, and the table against the reference."""

import json
from pathlib import Path

import pytest
import yaml

from whisfusion_asr.bin.ablate import main
from whisfusion_asr.errors import UserError
from whisfusion_asr.scoring import mapsswe, read_score_dir
from whisfusion_asr.studies.ablation import Ablation, read_ablation

ROOT = Path(__file__).resolve().parents[2]
# Notes its words; the model named *_worse drops a word of every second of its ten utterances.
RUN = """#!/usr/bin/env bash
cd "$(dirname "$0")"
echo "$*" >> calls
while [ $# -gt 0 ]; do
    case $1 in --asr_tag) tag=$2;; --expdir) expdir=$2;; esac
    shift
done
[ ! -f "fail_$tag" ] || exit 3
out=$expdir/$tag/decode_pdd/test/score_wer
mkdir -p $out
printf '{"normalizer": "%s"}' "$(cat "normalizer_$tag" 2>/dev/null || echo basic)" > $out/../summary.json
for n in 0 1 2 3 4 5 6 7 8 9; do
    text="one two"
    printf '%s\\t(s-u%s)\\n' "$text" $n >> $out/ref.trn
    [[ $tag = *_worse && $((n % 2)) = 0 ]] && text=one
    printf '%s\\t(s-u%s)\\n' "$text" $n >> $out/hyp.trn
done
"""
CONTENT = {
    "reference": "full", "common": {"stage": "train_adapter"},
    "runs": {"worse": {"asr_tag": "TAG_worse", "asr_args": "--seed 3"}, "full": {"asr_tag": "TAG"}},
    "published": {"full": 8.3},
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe whose run.sh only pretends."""
    (tmp_path / "run.sh").write_text(RUN)
    (tmp_path / "run.sh").chmod(0o755)
    return tmp_path


def run(recipe: Path, *words: str, content: dict = CONTENT) -> dict:
    """The JSON of an ablation."""
    (recipe / "ablate.yaml").write_text(yaml.safe_dump(content))
    main(["--recipe", str(recipe), "--tag", "m", "--config", str(recipe / "ablate.yaml"), "--out",
          str(recipe / "ablation"), *words])
    return json.loads((recipe / "ablation.json").read_text())


def read(folder: Path, content: dict) -> Ablation:
    """The runs of a file of this content."""
    (folder / "ablate.yaml").write_text(yaml.safe_dump(content))
    return read_ablation(folder / "ablate.yaml", "m")


def test_every_run_is_the_recipe_with_its_own_options(recipe: Path) -> None:
    run(recipe, "--expdir", "exp_x", "--", "--ngpu", "1")
    assert (recipe / "calls").read_text().splitlines() == [
        "--ngpu 1 --stage train_adapter --asr_tag m --expdir exp_x",
        "--ngpu 1 --stage train_adapter --asr_args --seed 3 --asr_tag m_worse --expdir exp_x",
    ]


def test_a_recipe_may_be_the_working_directory(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe)
    assert "\n./run.sh --stage" in (run(Path("."), content=CONTENT) and Path("ablation.md").read_text())


def test_the_table_compares_with_the_reference(recipe: Path) -> None:
    (rows,) = run(recipe)["sets"].values()
    cells = [(row["run"], row["wer"], row["difference"]) for row in rows]
    assert cells == [("full", 0.0, "-"), ("worse", 25.0, "+25.00")]
    marks = [read_score_dir(recipe / f"exp/{tag}/decode_pdd/test/score_wer").marks for tag in ("m", "m_worse")]
    assert rows[1]["against_reference"]["mapsswe"]["p_value"] == pytest.approx(mapsswe(*marks).p_value)
    page = (recipe / "ablation.md").read_text()
    assert "## decode_pdd/test" in page and "|8.3|" in page and "run.sh --stage train_adapter --asr_tag m " in page


def test_page_and_json_tell_words_and_normalizer(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (rows,) = run(recipe)["sets"].values()
    assert [(row["reference_length"], row["utterances"], row["normalizer"]) for row in rows] == [(20, 10, "basic")] * 2
    assert "10 utterances, 20 reference words, normalizer basic.\n" in (recipe / "ablation.md").read_text()
    (recipe / "normalizer_m").write_text("none")
    with pytest.raises(SystemExit) as stopped:
        run(recipe, "--expdir", "exp_x")
    assert stopped.value.code == 2 and "different normalizers (full none, worse basic)" in capsys.readouterr().err


def test_a_failed_run_stops_with_its_exit_code(recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (recipe / "fail_m").touch()
    with pytest.raises(SystemExit) as stopped:
        run(recipe)
    assert stopped.value.code == 3 and "the run 'full' ended with exit code 3" in capfd.readouterr().err
    assert len((recipe / "calls").read_text().splitlines()) == 1


def test_a_missing_recipe_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path)
    assert stopped.value.code == 2 and "run.sh: no such file; --recipe takes a directory" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "message"), [
    ({"runs": {}}, "runs: expected names with options"),
    ({"runs": {"full": {"asr_tga": "x"}}}, "runs: full: unknown key asr_tga; did you mean asr_tag?"),
    ({"runs": {"full": {}}}, "runs: full: asr_tag is not set"),
    ({"runs": {"full": {"asr_tag": "TAG"}, "other": {"asr_tag": "m"}}}, "full and other have the same asr_tag m"),
    ({"reference": "ful"}, "reference: 'ful' is unknown; did you mean full?"),
    ({"common": {"dry_run": True}}, "common: unknown key dry_run"),
    ({"common": 3}, "common: expected options of the recipe, got 3"),
    ({"published": {"fll": 1.0}}, "published: unknown key fll; did you mean full?"),
])
def test_a_wrong_file_is_one_line(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(UserError) as raised:
        read(tmp_path, CONTENT | change)
    assert message in str(raised.value) and str(raised.value).startswith(str(tmp_path / "ablate.yaml"))


def test_values_are_written_as_a_command_line_has_them(tmp_path: Path) -> None:
    changed = CONTENT | {"common": {"force": True, "ngpu": 2, "adapter_config": None}}
    assert read(tmp_path, changed).runs["full"] == {"force": "true", "ngpu": "2", "adapter_config": "", "asr_tag": "m"}


def test_each_row_of_the_paper_changes_one_option_of_the_full_training() -> None:
    ablation = read_ablation(ROOT / "conf" / "ablate_training.yaml", "m")
    full = ablation.runs["full"]
    changes = {name: {key for key, value in run.items() if full.get(key) != value} - {"asr_tag"}
               for name, run in ablation.runs.items() if name != "full"}
    assert changes == {name: {"stage" if name == "stage 1 only" else "asr_args"} for name in changes}
