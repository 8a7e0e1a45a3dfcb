"""The report on disk: what is written, what the page holds, and that it needs nothing from elsewhere."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from whisfusion_asr.bin.report import main, read_vocabulary
from whisfusion_asr.errors import UserError
from whisfusion_asr.report.page import aligned_words
from whisfusion_asr.report.write import ReportOptions, find_decoded, write_report
from whisfusion_asr.scoring.align import align

NO_FIGURES = ("--figures", "false")
LOADING = ("src", "href", "action", "data", "poster", "srcset", "background", "formaction", "xlink:href")
EMPTY_TAGS = ("meta", "link", "img", "br", "hr", "input")


class Page(HTMLParser):
    """Tags that are opened and closed, what elements load, texts of scripts and articles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.last = ""
        self.loaded: list[str] = []
        self.articles: list[dict[str, str]] = []
        self.texts: dict[str, str] = {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.loaded += [value for name, value in attrs if name in LOADING]
        if tag == "article":
            self.articles.append(values)
        if tag not in EMPTY_TAGS:
            self.open.append(tag)
            self.last = values.get("id", tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts[self.last] = self.texts.get(self.last, "") + data


@pytest.fixture
def exp(here):
    """`here` with audio, tokens, and a second inference tag."""
    lines = []
    for key, seconds in (("u1", 1), ("u2", 1), ("u3", 2)):
        soundfile.write(f"{key}.wav", np.zeros(16000 * seconds, dtype=np.float32), 16000)
        lines.append(f"{key} {key}.wav\n")
    Path("data/test/wav.scp").write_text("".join(lines))
    Path("exp/x/config.yaml").write_text(yaml.safe_dump({"token_list": ["<eos>", "<unk>", "<space>", *"abc"]}))
    return here


def report(*more):
    """Call the command and return the page."""
    main(["--exp_dir", "exp/x", "--data_dir", "data/test", "--out", "out", *more])
    return Page(Path("out/index.html").read_text(encoding="utf-8"))


def page_data(page):
    """What the script of a page reads."""
    return json.loads(page.texts["page-data"])


def test_all_that_is_written(exp, capsys):
    pytest.importorskip("matplotlib")
    report()
    names = {path.name for path in Path("out").iterdir()}
    figures = {"candidates", "confidence", "durations", "u1", "u3"}  # the two with most errors
    assert names == {"index.html", "report.md", "report.json"} | {f"decode_pdd_test_{name}.png" for name in figures}
    assert all(Path("out", name).read_bytes()[:4] == b"\x89PNG" for name in names if name.endswith(".png"))
    assert json.loads(Path("out/report.json").read_text())["sets"][0]["wer"] == 75.0
    printed = "decode_pdd/test: WER 75.00, oracle 25.00, normalizer none\nwrote out/index.html and report.md\n"
    assert capsys.readouterr().out == printed


def test_the_page_loads_nothing_from_elsewhere(exp):
    pytest.importorskip("matplotlib")
    page = report()
    assert page.loaded and all(value.startswith(("data:", "#")) for value in page.loaded)
    text = Path("out/index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(|\bfetch\(|XMLHttpRequest|\bimport\b *[({'\"]", text)
    assert set(re.findall(r"(?:src|href)=\"(\w*:?)", text)) == {"data:", ""}
    assert "default-src 'none'" in text


def test_names_and_words_are_escaped(tmp_path, monkeypatch, sets):
    monkeypatch.chdir(tmp_path)
    evil = '</script><script>alert("1")</script>'
    line = sets.record("<u&1>", 1.0, [{**sets.candidate("a", 0.5), "text": evil}])
    sets.write(tmp_path, [line], {"<u&1>": '<b onclick="x">'})
    page = report(*NO_FIGURES, "--audio", "none")
    assert page.articles[0]["data-id"] == "<u&1>"
    assert "b" not in page.open and Path("out/index.html").read_text().count("<script") == 2
    assert page_data(page)["sets"][0]["utterances"][0]["candidates"][0]["text"] == evil


def test_utterances_carry_what_the_script_sorts_by(exp):
    page = report(*NO_FIGURES, "--audio", "none")
    assert [each["data-id"] for each in page.articles] == ["u3", "u1", "u2"]  # most errors first
    first = page.articles[1]
    assert (first["data-errors"], first["data-gap"], first["data-flags"]) == ("1", "1", "1")
    assert (first["data-seconds"], first["data-wer"]) == ("5.000", "33.3333")
    assert page.articles[0]["data-wer"] == "Infinity"  # words where nobody speaks sort above any rate


def test_candidates_are_shown_token_by_token(exp):
    data = page_data(report(*NO_FIGURES, "--audio", "none"))["sets"][0]
    assert data["pieces"] == {"1": "<unk>", "2": "<space>", "3": "a", "4": "b", "5": "c"}
    second = data["utterances"][1]
    assert second["chosen"] == 0
    assert second["candidates"][1] == {"place": 1, "confidence": 0.5, "errors": 0, "tokens": [1, 2, 3],
                                       "percent": [50, 50, 50]}


def test_audio_is_embedded_for_the_worst_within_the_limit(exp):
    assert list(page_data(report(*NO_FIGURES))["audio"]) == ["u3", "u1", "u2"]
    some = page_data(report(*NO_FIGURES, "--num_audio", "1"))["audio"]
    assert list(some) == ["u3"] and some["u3"].startswith("data:audio/flac;base64,ZkxhQ")  # "fLaC"
    assert page_data(report(*NO_FIGURES, "--max_audio_mb", "0.0001"))["audio"] == {}
    assert list(page_data(report(*NO_FIGURES, "--num_audio", "1", "--utterances", "u2"))["audio"]) == ["u2"]
    assert page_data(report(*NO_FIGURES, "--audio", "none"))["audio"] == {}


def test_links_lead_from_the_page_to_the_files(exp):
    Path("data/test/wav.scp").write_text("u1 u1.wav\nu2 sox u2.wav -t wav - |\nu3 u3.wav\n")
    assert page_data(report(*NO_FIGURES, "--audio", "link"))["audio"] == {"u1": "../u1.wav", "u3": "../u3.wav"}
    Path("data/test/segments").write_text("u1 u1 0 1\n")
    assert page_data(report(*NO_FIGURES, "--audio", "link"))["audio"] == {}


def test_a_long_set_is_cut_to_the_worst_and_says_so(exp):
    page = report(*NO_FIGURES, "--audio", "none", "--max_listed", "1", "--utterances", "u2")
    assert [each["data-id"] for each in page.articles] == ["u2"]
    assert "2 utterances with fewer errors are not listed." in page.texts["p"]


def test_two_tags_stand_in_one_report(exp, sets):
    sets.write(exp, [{**each, "candidates": []} for each in sets.records], tag="decode_ctc")
    page = report(*NO_FIGURES, "--audio", "none")
    assert len(page.articles) == 6 and page.open == []
    text = Path("out/report.md").read_text()
    assert text.index("## decode_ctc/test") < text.index("One hypothesis an utterance") < text.index("## decode_pdd")
    report(*NO_FIGURES, "--audio", "none", "--decodings", "decode_ctc")
    assert "## decode_pdd" not in Path("out/report.md").read_text()


def test_markdown_tables(exp):
    report(*NO_FIGURES, "--audio", "none")
    text = Path("out/report.md").read_text()
    assert "whisfusion report --exp_dir exp/x --data_dir data/test --out out --figures false" in text
    assert "|decode_pdd/test|3|4|75.00|16.67|" in text and "|invented words/min|RTF|" in text
    assert "|2|75.00|75.00|25.00|25.00|2.00|" in text
    assert "3.00 invented words a minute" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_the_same_report_twice(exp):
    pytest.importorskip("matplotlib")
    report()
    first = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    report()
    assert first == {path.name: path.read_bytes() for path in Path("out").iterdir()}


def test_errors_are_marked():
    edits = align(["a", "b", "c&"], ["a", "x", "c&", "d"])
    assert aligned_words(edits) == 'a <span class="sub"><del>b</del><ins>x</ins></span> c&amp; <ins>d</ins>'
    assert aligned_words(align(["a"], [])) == "<del>a</del>"


def test_what_is_not_decoded_is_refused(exp):
    with pytest.raises(UserError, match=r"no <inference_tag>/<set>/candidates.jsonl for the set dev; decode first"):
        find_decoded(Path("exp/x"), ["data/dev"])
    with pytest.raises(UserError, match="exp/x: nothing is decoded in decode_none of these sets"):
        find_decoded(Path("exp/x"), ["data/test"], ["decode_pdd", "decode_none"])


def test_an_unknown_utterance_is_refused(exp):
    with pytest.raises(UserError, match="utterances: nobody is in none of the decoded sets of exp/x"):
        write_report("exp/x", ["data/test"], "out", ReportOptions(utterances=["nobody"]))


def test_without_matplotlib_the_message_names_it(exp, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="figures need the package matplotlib.*--figures false"):
        write_report("exp/x", ["data/test"], "out", ReportOptions(audio="none"))


def test_an_experiment_without_tokens_has_no_vocabulary(here):
    assert read_vocabulary("exp/x") is None
