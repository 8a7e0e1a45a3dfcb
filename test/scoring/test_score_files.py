"""Scoring files: what is written, how utterances are joined, what is refused."""

import json
import re
import subprocess
import sys
import types

import pytest

from whisfusion_asr.bin.score import main
from whisfusion_asr.data.tokenizer import train_tokenizer
from whisfusion_asr.errors import UserError
from whisfusion_asr.scoring import score_files

REF = "spk1-c1-0000 THE CAT SAT\nspk1-c1-0001 A\nspk2-c1-0000\n"
HYP = "spk2-c1-0000 UH\nspk1-c1-0001 B\nspk1-c1-0000 the cat\n"  # another order than the reference
UTT2SPK = "spk1-c1-0000 spk1\nspk1-c1-0001 spk1\nspk2-c1-0000 spk2\n"


@pytest.fixture
def files(tmp_path):
    """ref, hyp, utt2spk, out."""
    for name, content in (("ref", REF), ("hyp", HYP), ("utt2spk", UTT2SPK)):
        (tmp_path / name).write_text(content, encoding="utf-8")
    return [tmp_path / name for name in ("ref", "hyp", "utt2spk", "out")]


def test_trn_files_are_joined_by_key_in_the_order_of_the_reference(files):
    score_files(*files)
    out = files[-1]
    ids = ["(spk1-spk1-c1-0000)", "(spk1-spk1-c1-0001)", "(spk2-spk2-c1-0000)"]
    assert (out / "score_wer/ref.trn").read_text() == f"THE CAT SAT\t{ids[0]}\nA\t{ids[1]}\n\t{ids[2]}\n"
    assert (out / "score_wer/hyp.trn").read_text() == f"the cat\t{ids[0]}\nB\t{ids[1]}\nUH\t{ids[2]}\n"
    assert (out / "score_cer/hyp.trn").read_text() == f"t h e <space> c a t\t{ids[0]}\nB\t{ids[1]}\nU H\t{ids[2]}\n"
    assert sorted(path.name for path in out.iterdir()) == ["score_cer", "score_wer", "summary.json"]
    assert sorted(path.name for path in (out / "score_wer").iterdir()) == ["hyp.trn", "ref.trn", "result.txt"]


def test_counts(files):
    counts = score_files(*files, tokenizer=lambda text: [f"\u2581{word}" for word in text.split()])
    wer = counts["wer"].counts
    assert (wer.correct, wer.substitutions, wer.deletions, wer.insertions) == (2, 1, 1, 1)
    assert (wer.utterances, wer.wrong_utterances) == (3, 3)
    assert counts["cer"].counts.reference_length == len("THE CAT SAT") + 1
    assert counts["ter"].counts == wer


def test_summary_has_the_corpus_rate_first_and_the_mean_labelled(files):
    score_files(*files, normalizer="basic")
    summary = json.loads((files[-1] / "summary.json").read_text())
    assert list(summary.items())[:5] == [
        ("corpus_wer_percent", 75.0),
        ("mean_over_utterances_wer_percent", pytest.approx((100 / 3 + 100) / 2)),  # the empty reference has no rate
        ("utterances", 3),
        ("reference_words", 4),
        ("normalizer", "basic"),
    ]
    assert summary["jiwer_corpus_wer_percent"] == 75.0
    assert summary["jiwer_errors"] == 3
    assert summary["wer"]["interval_by_speaker"]["units"] == 2
    assert summary["wer"]["utterances_in_mean"] == 2
    assert summary["wer"]["insertions"] == 1
    assert "ter" not in summary


def test_no_reference_words_have_no_rate(tmp_path):
    (tmp_path / "ref").write_text("a\nb\n")
    (tmp_path / "hyp").write_text("a x\nb\n")
    assert score_files(tmp_path / "ref", tmp_path / "hyp", None, tmp_path)["wer"].counts.percent is None
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["corpus_wer_percent"] is summary["mean_over_utterances_wer_percent"] is None
    assert summary["wer"]["insertions"] == 1
    assert summary["wer"]["interval_by_utterance"]["low"] is None
    assert "interval_by_speaker" not in summary["wer"]  # no speakers were told


def test_raw_and_normalised_rates_stand_side_by_side_with_their_reference_words(tmp_path):
    (tmp_path / "ref").write_text("a Well-known, yes\nb NO\n")
    (tmp_path / "hyp").write_text("a well known yes\nb no\n")
    scored = score_files(tmp_path / "ref", tmp_path / "hyp", None, tmp_path, normalizer="basic")
    assert (scored["wer"].counts.errors, scored["raw_wer"].counts.errors) == (0, 2)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["corpus_wer_percent"], summary["raw_corpus_wer_percent"]) == (0, pytest.approx(200 / 3))
    assert (summary["reference_words"], summary["raw_reference_words"]) == (4, 3)
    assert not (tmp_path / "score_raw_wer").exists()
    raw = score_files(tmp_path / "ref", tmp_path / "hyp", None, tmp_path)
    assert list(raw) == ["wer", "cer"]
    assert json.loads((tmp_path / "summary.json").read_text())["raw_corpus_wer_percent"] == raw["wer"].counts.percent


def test_chinese_is_scored_by_character(tmp_path):
    (tmp_path / "ref").write_text("a 我用 Python 三年\n", encoding="utf-8")
    (tmp_path / "hyp").write_text("a 我用python三天。\n", encoding="utf-8")
    scored = score_files(tmp_path / "ref", tmp_path / "hyp", None, tmp_path, normalizer="cjk")
    assert (scored["wer"].counts.errors, scored["wer"].counts.reference_length) == (1, 5)
    assert (scored["cer"].counts.errors, scored["cer"].counts.reference_length) == (1, 10)
    assert (tmp_path / "score_wer/ref.trn").read_text(encoding="utf-8") == "我 用 python 三 年\t(a-a)\n"


def test_espnet_s_table_of_results_finds_its_row(tmp_path):
    """show_asr_result.sh greps "Avg" in */*/score_*/result.txt, and makes cells of what bars and blanks separate."""
    rows = "".join(f"Avg-{number} Avg so Sum/Avg {'w ' * 300}\n" for number in range(700))
    (tmp_path / "ref").write_text(rows)
    (tmp_path / "hyp").write_text(rows.replace("Avg so", "Sum"))
    (tmp_path / "utt2spk").write_text("".join(f"Avg-{number} Avg{number % 2}\n" for number in range(700)))
    score_files(*[tmp_path / name for name in ("ref", "hyp", "utt2spk", "exp/decode/test")])
    (line,) = [
        line for line in (tmp_path / "exp/decode/test/score_wer/result.txt").read_text().splitlines() if "Avg" in line
    ]
    cells = re.sub("[| ]+", "|", line.replace("Sum/Avg", "")).strip("|").split("|")
    assert cells == ["700", "212100", "99.3", "0.3", "0.3", "0.0", "0.7", "100.0"]


def test_the_normalizer_works_on_both_sides(tmp_path):
    (tmp_path / "ref").write_text("a Well, ÄRGER\n")
    (tmp_path / "hyp").write_text("a well ärger.\n")
    assert score_files(tmp_path / "ref", tmp_path / "hyp", None, tmp_path)["wer"].counts.errors == 2
    assert score_files(tmp_path / "ref", tmp_path / "hyp", None, tmp_path, normalizer="basic")["wer"].counts.errors == 0


def test_sclite_specials_are_spelled_out(tmp_path):
    (tmp_path / "ref").write_text("a {b} c; * @d \\\n")
    (tmp_path / "hyp").write_text("a {b} c; * @d \\\n")
    assert score_files(tmp_path / "ref", tmp_path / "hyp", None, tmp_path)["wer"].counts.correct == 5
    trn = (tmp_path / "score_wer/ref.trn").read_text()
    assert trn == "<lbrace>b<rbrace> c<semicolon> <asterisk> <at>d <backslash>\t(a-a)\n"


def test_parentheses_in_keys_are_spelled_out(tmp_path):
    for name in ("ref", "hyp"):
        (tmp_path / name).write_text("rec(1) x\n")
    score_files(tmp_path / "ref", tmp_path / "hyp", None, tmp_path)
    assert (tmp_path / "score_wer/ref.trn").read_text() == "x\t(rec<lparen>1<rparen>-rec<lparen>1<rparen>)\n"


def test_speakers_are_what_precedes_the_first_hyphen(tmp_path):
    """As sclite does with `-i rm`: LibriSpeech's rows are readers, although the speaker is reader-chapter."""
    for name in ("ref", "hyp"):
        (tmp_path / name).write_text("121-121726-0000 x\n121-999-0000 y\n")
    (tmp_path / "utt2spk").write_text("121-121726-0000 121-121726\n121-999-0000 121-999\n")
    score_files(tmp_path / "ref", tmp_path / "hyp", tmp_path / "utt2spk", tmp_path)
    assert "   #utts: 2\n" in (tmp_path / "score_wer/result.txt").read_text()


def test_scores_of_an_earlier_tokenizer_do_not_stay(files):
    score_files(*files, tokenizer=str.split)
    assert (files[-1] / "score_ter/result.txt").is_file()
    score_files(*files)
    assert not list((files[-1] / "score_ter").iterdir())


def test_a_second_run_writes_the_same_bytes(files):
    def contents():
        score_files(*files)
        return {path: path.read_bytes() for path in files[-1].rglob("*") if path.is_file()}

    assert contents() == contents()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "hyp",
            "spk1-c1-0000 x\nother y\n",
            r"hyp: utterances differ from .*ref: 2 missing \(spk1-c1-0001, spk2-c1-0000\), 1 extra \(other\)",
        ),
        ("hyp", HYP + "other y\n", r"hyp: utterances differ from .*ref: 1 extra \(other\); nothing is scored"),
        ("hyp", "".join(f"u{n} x\n" for n in range(7)), r"7 extra \(u0, u1, u2, u3, u4, u5, u6\);"),
        ("hyp", "".join(f"u{n} x\n" for n in range(53)), r"53 extra \(u0, u1, .*, u48, u49 and 3 more\);"),
        ("hyp", HYP + HYP, r"hyp:4: key 'spk2-c1-0000' occurs twice"),
        ("hyp", HYP + "\n", r"hyp:4: empty line"),
        ("ref", "", r"ref: holds no utterance"),
        ("utt2spk", "spk1-c1-0000 spk1\nspk2-c1-0000\n", r"no speaker for 2 utterances \(spk1-c1-0001, spk2-c1-0000\)"),
    ],
)
def test_bad_files_are_refused_and_nothing_is_written(files, file, content, message):
    (files[0].parent / file).write_text(content)
    with pytest.raises(UserError, match=message):
        score_files(*files)
    assert not files[-1].exists()


def test_bytes_that_are_not_utf8_are_refused(files):
    files[1].write_bytes(HYP.encode() + b"x \xff\n")
    with pytest.raises(UserError, match=r"hyp: not UTF-8 \(invalid start byte"):
        score_files(*files)


def test_unknown_normalizer_is_refused(files):
    with pytest.raises(UserError, match="normalizer 'x' is unknown"):
        score_files(*files, normalizer="x")


def arguments(files):
    names = ("--ref", "--hyp", "--utt2spk", "--out")
    return [word for pair in zip(names, map(str, files), strict=True) for word in pair]


def test_command_prints_the_rates(files, capsys):
    main([*arguments(files), "--normalizer", "basic"])
    wer, wer_more, cer, _, raw, raw_more = capsys.readouterr().out.splitlines()
    assert wer.startswith("%WER 75.00 [ 3 / 4, 1 ins, 1 del, 1 sub ] 3 utterances, normalizer basic: ")
    assert wer.endswith("/score_wer/result.txt")
    assert cer.startswith("%CER ")
    assert raw == "%WER 75.00 [ 3 / 4, 1 ins, 1 del, 1 sub ] 3 utterances, normalizer none (raw texts)"
    shape = r"    95% interval [\d.]+ to [\d.]+ by utterance \(3\); 95% interval [\d.]+ to [\d.]+ by speaker \(2\); "
    assert re.fullmatch(shape + r"mean over utterances 66.67; jiwer 75.00", wer_more)
    assert re.fullmatch(shape + r"mean over utterances 66.67", raw_more)


def test_command_says_where_jiwer_differs(tmp_path, capsys):
    (tmp_path / "ref").write_text("u R1 R2 R3 R4 R5\n")
    (tmp_path / "hyp").write_text("u I1 I2 I3 R1 R2\n")
    main(["--ref", f"{tmp_path}/ref", "--hyp", f"{tmp_path}/hyp", "--out", f"{tmp_path}/out"])
    wer, more, *_ = capsys.readouterr().out.splitlines()
    assert wer.startswith("%WER 120.00 [ 6 / 5, 3 ins, 3 del, 0 sub ]")
    assert more.endswith("; jiwer 100.00 (1 errors less: edit distance instead of sclite's costs)")


def test_command_scores_pieces_with_a_token_list(files, capsys, monkeypatch):
    asked = []

    def load_tokenizer(path):
        asked.append(path)
        return types.SimpleNamespace(tokenize=list)

    module = types.ModuleType("whisfusion_asr.data.tokenizer")
    module.load_tokenizer = load_tokenizer
    module.SentencePieceTokenizer = load_tokenizer
    monkeypatch.setitem(sys.modules, "whisfusion_asr.data", types.ModuleType("whisfusion_asr.data"))
    monkeypatch.setitem(sys.modules, "whisfusion_asr.data.tokenizer", module)
    main([*arguments(files), "--token-list", "tokens"])
    main([*arguments(files), "--token-model", "x.model"])
    assert asked == ["tokens", "x.model"]
    assert capsys.readouterr().out.count("%TER") == 2
    assert (files[-1] / "score_ter/ref.trn").read_text().startswith("T H E <space> C")


def test_command_scores_the_pieces_of_a_sentencepiece_model(files, tmp_path, capsys):
    tokenizer = train_tokenizer(["THE CAT SAT", "A BAT SAT", "UH THAT CAT"], "unigram", 16, tmp_path / "tokens")
    main([*arguments(files), "--token_model", str(tmp_path / "tokens/tokens.model")])
    ter = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("%TER"))
    pieces = [tokenizer.tokenize(line.partition(" ")[2]) for line in REF.splitlines()]
    assert len(pieces[0]) > 3, "words are cut into pieces"
    assert f"/ {sum(map(len, pieces))}, " in ter
    assert (files[-1] / "score_ter/ref.trn").read_text().partition("\t")[0] == " ".join(pieces[0])
    (tmp_path / "no.model").write_bytes(b"no model")
    with pytest.raises(SystemExit, match="2"):
        main([*arguments(files), "--token_model", str(tmp_path / "no.model")])
    assert "no.model: not a sentencepiece model" in capsys.readouterr().err


def test_command_says_what_is_wrong_in_one_line(files, capsys):
    files[1].unlink()
    with pytest.raises(SystemExit, match="2"):
        main(arguments(files))
    assert capsys.readouterr().err == f"error: {files[1]}: no such file, expected lines `key text`\n"


def test_scoring_does_not_import_torch():
    code = "import sys, whisfusion_asr.scoring, whisfusion_asr.bin.score; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
