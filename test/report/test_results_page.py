"""RESULTS.md."""

import json
import shutil
import subprocess
import sys

import pytest

from whisfusion_asr.bin.results import main
from whisfusion_asr.errors import UserError
from whisfusion_asr.report import environment, results_page, write_results
from whisfusion_asr.scoring import score_files

META = {
    "sampler": "pdd",
    "sampler_conf": {"candidates": 15, "mask_ratios": [1.0, 0.9, 0.85, 0.8], "seed": 7},
    "rtf": 0.25,
    "passes": 4.0,
    "device": "cpu",
    "threads": 2,
}


@pytest.fixture
def exp(tmp_path, monkeypatch):
    """exp/x with the sets decode_pdd/dev (no TER) and decode_pdd/test; the working directory is above exp."""
    monkeypatch.chdir(tmp_path)
    exp = tmp_path / "exp/x"
    for name, hypothesis, tokenizer in (("test", "u-1 a b\nu-2 c\n", list), ("dev", "u-1 a b\nu-2 d e\n", None)):
        out = exp / "decode_pdd" / name
        out.mkdir(parents=True)
        (out / "ref").write_text("u-1 a b\nu-2 d\n")
        (out / "text").write_text(hypothesis)
        score_files(out / "ref", out / "text", None, out, tokenizer=tokenizer)
    (exp / "decode_pdd/test/meta.json").write_text(json.dumps(META))
    (exp / "config.yaml").write_text("seed: 3\nmodel: diffusion\n")
    (exp / "run.sh").write_text("#!/usr/bin/env bash\n./run.sh --stage 4\n")
    (exp / "decode_pdd/run.sh").write_text("./run.sh --stage 5\n")
    return exp


def section(page, heading):
    """Lines between a heading and the next one."""
    lines = page.splitlines()
    rest = lines[lines.index(heading) + 1 :]
    return [line for line in rest[: next((i for i, line in enumerate(rest) if line.startswith("#")), None)] if line]


def test_tables_have_espnets_rows(exp):
    page = results_page(["exp/x"])
    header = ["|dataset|Snt|Wrd|Corr|Sub|Del|Ins|Err|S.Err|", "|---|---|---|---|---|---|---|---|---|"]
    assert section(page, "### WER") == [
        *header,
        "|decode_pdd/dev|2|3|100.0|0.0|0.0|33.3|33.3|50.0|",
        "|decode_pdd/test|2|3|66.7|33.3|0.0|0.0|33.3|50.0|",
    ]
    assert section(page, "### TER") == [*header, "|decode_pdd/test|2|4|75.0|25.0|0.0|0.0|25.0|50.0|"]
    assert page.index("## exp/x") < page.index("### WER") < page.index("### CER") < page.index("### TER")


def test_a_measure_that_no_set_has_gets_no_table(exp):
    shutil.rmtree(exp / "decode_pdd/test/score_ter")
    page = results_page(["exp/x"])
    assert "### CER" in page and "### TER" not in page


def test_rows_equal_the_pipeline_of_show_asr_result(exp):
    """ESPnet greps `Avg` and makes bars of bars and blanks; it must find the same in our score directories."""
    script = (
        r"grep -H -e Avg exp/x/*/*/score_wer/result.txt | sed -e 's#exp/x/\([^/]*/[^/]*\)/score_wer/result.txt:#|\1#g' "
        r"| sed -e 's#Sum/Avg##g' | tr '|' ' ' | tr -s ' ' '|'"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert section(results_page(["exp/x"]), "### WER")[2:] == done.stdout.splitlines()


def test_settings_and_commands(exp):
    page = results_page(["exp/x"])
    assert section(page, "### Settings") == [
        "- training seed: `3`",
        "- normalizer: `none`",
        "|set|sampler|candidates|steps|seed|passes|RTF|device|threads|",
        "|---|---|---|---|---|---|---|---|---|",
        "|decode_pdd/test|pdd|15|4|7|4.0|0.25|cpu|2|",
    ]
    commands = page.partition("### Commands")[2]
    assert "`exp/x/run.sh`:\n\n```bash\n#!/usr/bin/env bash\n./run.sh --stage 4\n```" in commands
    assert "`exp/x/decode_pdd/run.sh`:\n\n```bash\n./run.sh --stage 5\n```" in commands


def test_rates_have_two_decimals_and_counts(exp):
    page = results_page(["exp/x"])
    head, _, *rows = (line.strip("|").split("|") for line in section(page, "### Rates"))
    dev, test = (dict(zip(head, row, strict=True)) for row in rows)
    counts = ("errors", "words", "ins", "del", "sub")
    assert (dev["set"], dev["WER"], [dev[key] for key in counts]) == ("decode_pdd/dev", "33.33", list("13100"))
    assert (test["set"], test["WER"], [test[key] for key in counts]) == ("decode_pdd/test", "33.33", list("13001"))
    assert (dev["mean over utterances"], dev["CER"], dev["TER"]) == ("50.00", "50.00", "-")
    assert (test["mean over utterances"], test["CER"], test["TER"]) == ("50.00", "25.00", "25.00")
    assert page.index("### TER") < page.index("### Rates") < page.index("### Settings")


def test_intervals_and_raw_rates_are_shown_where_they_were_computed(exp):
    path = exp / "decode_pdd/test/summary.json"
    summary = json.loads(path.read_text())
    none = {"unit": "speaker", "low": None, "high": None}
    summary["wer"] |= {"interval_by_speaker": none, "interval_by_utterance": {"unit": "utterance", "low": 1, "high": 2}}
    path.write_text(json.dumps(summary | {"raw_wer": {"corpus_percent": 40.0}}))
    rows = section(results_page(["exp/x"]), "### Rates")
    assert rows[0].endswith("|WER of raw texts|") and rows[3].endswith("|40.00|")
    assert "|1.00 to 2.00 by utterance|" in rows[3] and "|-|" in rows[2]


def test_settings_that_only_newer_decodings_tell(exp):
    (exp / "decode_pdd/test/meta.json").write_text(json.dumps(META | {"dtype": "float32"}))
    rows = section(results_page(["exp/x"]), "### Settings")
    assert rows[-3].endswith("|threads|dtype|") and rows[-1].endswith("|2|float32|")


@pytest.mark.parametrize(("conf", "steps"), [
    ({"candidates": 5, "mask_ratios": [1.0, 0.9], "passes": None}, "2"),
    ({"passes": 8, "rows": 3}, "8"),
])  # fmt: skip
def test_what_was_measured_is_not_what_was_asked(exp, conf, steps):
    """`passes` and `rows` are settings of some samplers too; the batch is the one that decoding worked with."""
    measured = {"passes": 1.75, "rows": 6.5, "batch": "500 slots and frames"}
    meta = META | measured | {"sampler_conf": conf, "engine_conf": {"batch_tokens": None}}
    (exp / "decode_pdd/test/meta.json").write_text(json.dumps(meta))
    head, _, row = (line.strip("|").split("|") for line in section(results_page(["exp/x"]), "### Settings")[-3:])
    told = dict(zip(head, row, strict=True))
    assert (told["steps"], told["passes"], told["rows"], told["batch"]) == (steps, "1.75", "6.5", measured["batch"])
    assert head[-2:] == ["rows", "batch"]


def test_a_control_experiment_says_so(exp):
    (exp / "decode_pdd/test/meta.json").write_text(json.dumps({"sampler": "pdd", "control": "shuffled_states"}))
    rows = section(results_page(["exp/x"]), "### Settings")
    assert rows[-1] == "|decode_pdd/test|pdd (control: shuffled_states)|-|-|-|-|-|-|-|"


def test_sets_with_other_normalizers_are_told_apart(exp):
    out = exp / "decode_pdd/dev"
    score_files(out / "ref", out / "text", None, out, normalizer="basic")
    lines = section(results_page(["exp/x"]), "### Settings")
    assert lines[1:3] == ["- normalizer of decode_pdd/dev: `basic`", "- normalizer of decode_pdd/test: `none`"]


def test_rates_of_no_words_are_dashes(exp):
    out = exp / "decode_pdd/test"
    (out / "ref").write_text("u-1\nu-2\n")
    score_files(out / "ref", out / "text", None, out)
    assert section(results_page(["exp/x"]), "### WER")[-1] == "|decode_pdd/test|2|0|-|-|-|-|-|100.0|"


def test_an_experiment_needs_only_result_files(exp):
    for path in [*exp.rglob("*.json"), *exp.rglob("run.sh"), exp / "config.yaml"]:
        path.unlink()
    page = results_page(["exp/x"])
    assert section(page, "### Settings") == ["- training seed: `-`", "- normalizer: `unknown`"]
    assert "### Commands" not in page


def test_environment(exp):
    lines = section(results_page(["exp/x"]), "## Environments")
    names = ["date", "python version", "espnet version", "pytorch version", "whisfusion-asr version", "Git hash"]
    assert [line[2:].partition(":")[0] for line in lines[:6]] == names
    assert lines[6].startswith("  - Commit date: `")
    assert lines[7].startswith("- machine that wrote this page: `")


def test_git_revision(tmp_path):
    def git(*words):
        identity = ("-c", "user.name=n", "-c", "user.email=e@x")
        subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True)

    assert environment.git_revision(tmp_path) == ("not a git checkout", "-")
    (tmp_path / "__init__.py").write_text("")
    git("init")
    assert environment.git_revision(tmp_path)[0] == "not a git checkout"  # in a repository, but not of it
    git("add", "__init__.py")
    git("commit", "-m", "first")
    revision, date = environment.git_revision(tmp_path)
    assert len(revision) == 40 and date
    (tmp_path / "__init__.py").write_text("changed")
    assert environment.git_revision(tmp_path)[0] == f"{revision} with local changes"


def test_page_changes_only_in_its_date(exp):
    def page():
        return [line for line in results_page(["exp/x"]).splitlines() if not line.startswith("- date: ")]

    assert page() == page()


def test_command_takes_several_experiments_a_title_and_notes(exp, capsys):
    (exp.parent / "y").symlink_to(exp)
    (exp / "notes.md").write_text("\nTrained on **two** cores.\n\n")
    main(["--exp_dir", "exp/x", "exp/y", "--out", "exp/R.md", "--title", "mini_synth", "--notes", "exp/x/notes.md"])
    page = (exp.parent / "R.md").read_text()
    head = "# mini_synth\n\nTrained on **two** cores.\n\n## Environments\n"
    assert head in page and page.index("## exp/x") < page.index("## exp/y")
    assert page.endswith("```\n")
    assert capsys.readouterr().out == "wrote exp/R.md\n"


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("decode_pdd/test/meta.json", "{", r"meta.json:1: not JSON"),
        ("decode_pdd/test/meta.json", "[]", r"meta.json: expected a JSON object"),
        ("decode_pdd/test/score_wer/result.txt", "", r"result.txt: expected one row 'Sum/Avg'"),
        ("config.yaml", "a: [", r"config.yaml: not YAML"),
    ],
)
def test_broken_files_are_named_and_no_page_is_written(exp, path, content, message):
    (exp / path).write_text(content)
    with pytest.raises(UserError, match=message):
        write_results(["exp/x"], "R.md")
    assert not (exp.parent.parent / "R.md").exists()


def test_an_experiment_without_scores_is_refused(exp):
    (exp.parent / "empty").mkdir()
    with pytest.raises(UserError, match=r"exp/empty: no <inference_tag>/<set>/score_\*/result.txt; decode"):
        results_page(["exp/x", "exp/empty"])


def test_missing_notes_are_refused(exp):
    with pytest.raises(UserError, match="nowhere.md: no such file"):
        write_results(["exp/x"], "R.md", notes="nowhere.md")


def test_report_imports_neither_torch_nor_espnet():
    code = "import sys, whisfusion_asr.bin.results; sys.exit('torch' in sys.modules or 'espnet2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
