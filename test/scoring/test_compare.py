"""Score directories read back, two systems compared, decoding seeds."""

import json

import pytest

from whisfusion_asr.bin.significance import main
from whisfusion_asr.errors import UserError
from whisfusion_asr.scoring import compare_systems, read_score_dir, score_files, seed_spread
from whisfusion_asr.scoring.compare import scored_texts

REFERENCES = {f"s{number % 5}-{number:03d}": "THE CAT {SAT} ON A MAT".split() for number in range(60)}


def spoilt(every):
    """A hypothesis text in which every so-many-th utterance lacks two words."""
    return {key: words[2:] if number % every == 0 else words for number, (key, words) in enumerate(REFERENCES.items())}


def scored(directory, name, hypotheses, references=REFERENCES, **options):
    """Score and return the decode directory."""
    for file, rows in (("ref", references), ("hyp", hypotheses), ("utt2spk", {key: [key[:2]] for key in references})):
        (directory / file).write_text("".join(f"{' '.join([key, *words])}\n" for key, words in rows.items()))
    files = [directory / file for file in ("ref", "hyp", "utt2spk", name)]
    score_files(*files, **options)
    return files[-1]


@pytest.fixture
def systems(tmp_path):
    """Score directories (WER) of a worse system A and a better system B."""
    places = [scored(tmp_path, name, spoilt(every)) for name, every in (("a", 3), ("b", 10))]
    return [place / "score_wer" for place in places]


def test_a_score_directory_is_read_back(systems, tmp_path):
    read = read_score_dir(systems[0])
    assert read.identifiers[:2] == ["(s0-s0-000)", "(s1-s1-001)"]
    assert read.references[0] == "the cat <lbrace>sat<rbrace> on a mat"
    assert read.marks[:2] == ["DDCCCC", "CCCCCC"]
    assert read.speakers[:6] == ["s0", "s1", "s2", "s3", "s4", "s0"]
    counts = score_files(*[tmp_path / name for name in ("ref", "hyp", "utt2spk", "again")])["wer"].by_utterance
    assert read_score_dir(tmp_path / "again/score_wer").counts == counts
    assert read_score_dir(tmp_path / "again/score_cer").counts[0].reference_length == len("the cat {sat} on a mat")


def test_texts_are_scored_as_their_score_directory_says(systems):
    hypotheses = {key: " ".join(words) for key, words in spoilt(3).items()}
    references = {key: " ".join(words) for key, words in REFERENCES.items()}
    found = scored_texts(str(systems[0]), references, hypotheses, {key: key[:2] for key in REFERENCES})
    read = read_score_dir(systems[0])
    order = [found.identifiers.index(each) for each in read.identifiers]
    assert [found.marks[place] for place in order] == read.marks and len(order) == len(REFERENCES)
    assert [found.references[place] for place in order] == read.references
    assert [found.speakers[place] for place in order] == read.speakers


def test_comparison(systems):
    result = compare_systems(*map(read_score_dir, systems))
    assert (result.a.errors, result.b.errors, result.a.reference_length) == (40, 12, 360)
    assert result.difference == result.by_utterance.difference == pytest.approx(100 * (12 - 40) / 360)
    assert (result.a.by_speaker.units, result.by_speaker.units, result.by_utterance.units) == (5, 5, 60)
    # Utterances 0 and 30 are wrong in both; 24 differ by 2 errors or, where only B errs (10, 20, 40, 50), by -2.
    assert (result.mapsswe.segments, result.mapsswe.mean_difference) == (24, pytest.approx((4 * 2 - 18 * 2) / 24))
    assert result.mapsswe.p_value < 0.01
    assert result.by_utterance.p_value < 0.01
    assert json.loads(json.dumps(result.as_json()))["a"]["by_utterance"]["unit"] == "utterance"


@pytest.mark.parametrize(("utt2spk", "units"), [
    (None, 4),  # unknown: what keys have in common is no speaker
    ("c-a-1 c-a-2 c-b-1 c-b-2", 4),
    ("c-a c-a c-b c-b", 2),  # c is a corpus
    ("c c c c", 1),
])  # fmt: skip
def test_whose_speakers_are_drawn(tmp_path, utt2spk, units):
    check_units(tmp_path, "c-a-1 c-a-2 c-b-1 c-b-2".split(), utt2spk, units)


def test_the_readers_of_librispeech_are_drawn(tmp_path):
    """Its speakers are READER-CHAPTER: drawing chapters would take those of one reader for independent."""
    check_units(tmp_path, "12-3-0 12-4-0 56-7-0 56-7-1".split(), "12-3 12-4 56-7 56-7", 2)


def check_units(tmp_path, keys, utt2spk, units):
    """How many speakers stand behind the intervals of score and of compare; utt2spk: the speakers of the keys."""
    for name, words in (("ref", "x y"), ("hyp", "x")):
        (tmp_path / name).write_text("".join(f"{key} {words}\n" for key in keys))
    if utt2spk:
        rows = zip(keys, utt2spk.split(), strict=True)
        (tmp_path / "utt2spk").write_text("".join(f"{key} {speaker}\n" for key, speaker in rows))
    scored = score_files(tmp_path / "ref", tmp_path / "hyp", utt2spk and tmp_path / "utt2spk", tmp_path)
    assert [each.units for each in scored["wer"].intervals] == ([4, units] if utt2spk else [4])
    read = read_score_dir(tmp_path / "score_wer")
    assert compare_systems(read, read, replicates=9).by_speaker.units == units


def test_the_order_of_the_utterances_does_not_matter(systems):
    """A system against its own lines in reverse: no utterance differs."""
    forward = read_score_dir(systems[0])
    for name in ("ref.trn", "hyp.trn"):
        lines = (systems[0] / name).read_text().splitlines(keepends=True)
        (systems[0] / name).write_text("".join(lines[::-1]))
    backward = read_score_dir(systems[0])
    assert backward.identifiers == forward.identifiers[::-1]
    result = compare_systems(forward, backward)
    assert (result.by_utterance.low, result.by_utterance.high, result.mapsswe.p_value) == (0, 0, 1)


def test_the_seed_reaches_the_bootstraps(systems):
    a, b = map(read_score_dir, systems)
    first, second = (compare_systems(a, b, replicates=99, seed=seed) for seed in (1, 2))
    assert first != second
    assert {first.by_utterance.replicates, first.a.by_speaker.replicates} == {99}


def test_other_utterances_are_refused(systems, tmp_path):
    fewer = {key: words for key, words in REFERENCES.items() if key != "s3-013"}
    other = scored(tmp_path, "c", fewer, fewer) / "score_wer"
    a, c = read_score_dir(systems[0]), read_score_dir(other)
    for pair, kind in (((a, c), "1 missing"), ((c, a), "1 extra")):
        with pytest.raises(UserError, match=rf"utterances differ from .*/score_wer: {kind} \(\(s3-s3-013\)\); score"):
            compare_systems(*pair)


def test_other_references_are_refused(systems, tmp_path):
    other = scored(tmp_path, "c", spoilt(3), normalizer="basic") / "score_wer"
    message = (
        r"c/score_wer: the reference of \(s0-s0-000\) differs from .*a/score_wer; score both with the same normali"
    )
    with pytest.raises(UserError, match=message):
        compare_systems(read_score_dir(systems[0]), read_score_dir(other))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"hyp.trn: no such file, .* score the set first"),
        ("", r"hyp.trn: holds no utterance"),
        ("a b (s-1)\n", r"hyp.trn:1: no tabulator and \(speaker-utterance\) at its end"),
        ("a\t(s-1)\nb\t(s-1)\n", r"hyp.trn:2: id occurs twice"),
        ("a\t(s-1)\n", r"holds other utterances than ref.trn: 60 missing \(.* and 10 more\), 1 extra \(\(s-1\)\);"),
    ],
)
def test_bad_score_directories_are_refused(systems, content, message):
    (systems[0] / "hyp.trn").unlink()
    if content is not None:
        (systems[0] / "hyp.trn").write_text(content)
    with pytest.raises(UserError, match=message):
        read_score_dir(systems[0])


def test_command_prints_intervals_and_p_values(systems, tmp_path, capsys):
    places = [str(place.parent) for place in systems]
    main(["--a", places[0], "--b", places[1], "--out", str(tmp_path / "x.json")])
    a, b, difference, *tests = capsys.readouterr().out.splitlines()
    assert a.startswith("%WER A 11.11 [ 40 / 360 ]; 95% interval ")
    assert b.startswith("%WER B 3.33 [ 12 / 360 ]; 95% interval ")
    assert difference == "B - A -7.78 points on 60 utterances, 360 reference words"
    assert [line.split(":")[0].strip() for line in tests] == ["paired bootstrap", "paired bootstrap", "MAPSSWE"]
    assert tests[1].endswith(" by speaker (5)")
    content = json.loads((tmp_path / "x.json").read_text())
    assert (content["measure"], content["places"], content["utterances"]) == ("wer", places, 60)
    assert content["a"]["reference_length"] == content["b"]["reference_length"] == 360


def test_command_refuses_no_replicates(systems, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--a", str(systems[0].parent), "--b", str(systems[1].parent), "--replicates", "0"])
    assert capsys.readouterr().err == "error: --replicates 0: expected a positive number\n"


def test_seeds():
    spread = seed_spread({0: 10.0, 1: 12.0, 7: 11.0})
    assert (spread.seeds, spread.mean, spread.deviation, spread.lowest, spread.highest) == (3, 11, 1, 10, 12)
    assert seed_spread({3: 10.0}).deviation is None
    assert spread.as_json()["mean"] == 11
    with pytest.raises(ValueError, match="no seeds"):
        seed_spread({})
