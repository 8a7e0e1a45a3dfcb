"""The corpus of egs/mini_synth: its grammar, its choice of voices and its audio."""

import importlib
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from whisfusion_asr.errors import UserError

RECIPE = Path(__file__).parents[2] / "egs" / "mini_synth" / "asr1"
SIZES = {"test": 30, "dev": 20, "train": 200, "text_valid": 50, "text_train": 1000}


def local(name: str) -> ModuleType:
    """A module of the recipe's local/ folder, which finds its siblings as it does when it is run as a script."""
    sys.path.insert(0, str(RECIPE / "local"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(RECIPE / "local"))


grammar = local("grammar")
voices = local("voices")
espeak = local("espeak")
synthesise = local("synthesise")


# --- grammar


def test_sentences_are_made_of_the_vocabulary_and_use_all_of_it() -> None:
    used = {word for text in grammar.draw_sets({"text_train": 5000}, 0)["text_train"] for word in text.split()}
    assert used == set(grammar.vocabulary())
    assert 250 <= len(used) <= 320
    assert all(word.isalpha() and word.islower() and word.isascii() for word in used)


def test_lengths() -> None:
    lengths = [len(text.split()) for text in grammar.draw_sets({"text_train": 5000}, 0)["text_train"]]
    assert 8.3 < np.mean(lengths) < 9.3
    assert max(lengths) == grammar.MAX_WORDS and min(lengths) >= 3
    short = grammar.draw_sets({"text_train": 500}, 0, max_words=6)["text_train"]
    assert {len(text.split()) for text in short} == {3, 4, 5, 6}


def test_no_sentence_occurs_twice_anywhere() -> None:
    sets = grammar.draw_sets(SIZES, 0)
    assert {name: len(texts) for name, texts in sets.items()} == SIZES
    everything = [text for texts in sets.values() for text in texts]
    assert len(set(everything)) == len(everything) == sum(SIZES.values())


def test_a_sentence_that_comes_up_again_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = iter(["a", "b", "b", "a", "c", "d"])
    monkeypatch.setattr(grammar, "sentence", lambda rng, max_words: next(stream))
    assert grammar.draw_sets({"test": 2, "train": 2}, 0)["train"] == ["c", "d"]


def test_the_seed_fixes_the_sentences_in_any_process() -> None:
    code = "import grammar; print(grammar.draw_sets({'test': 5, 'train': 5}, 3))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=RECIPE / "local",
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert outputs == {str(grammar.draw_sets({"test": 5, "train": 5}, 3))}
    assert grammar.draw_sets({"test": 5}, 4)["test"] != grammar.draw_sets({"test": 5}, 3)["test"]


def test_the_test_sentences_do_not_depend_on_the_other_sets() -> None:
    assert grammar.draw_sets({**SIZES, "train": 10, "dev": 1}, 0)["test"] == grammar.draw_sets(SIZES, 0)["test"]


def test_espeak_tells_when_its_words_begin() -> None:
    """Known by how the same words follow each other: each later in a longer text, the end with the sound."""
    text = "seven farmers laughed"
    wave = espeak.speaker().speak(text, "en-us", "f1", 160, 50, 50)
    starts = dict(espeak.speaker().starts)
    assert sorted(starts) == [0, 6, 14, len(text)]
    times = [starts[place] for place in sorted(starts)]
    assert times == sorted(times) and times[0] < 0.1 and abs(times[-1] - len(wave) / espeak.SAMPLE_RATE) < 0.1
    alone = len(espeak.speaker().speak("seven", "en-us", "f1", 160, 50, 50)) / espeak.SAMPLE_RATE
    assert abs(starts[6] - alone) < 0.25


@pytest.mark.parametrize("accent", synthesise.ACCENTS)
def test_no_two_words_sound_alike(accent: str) -> None:
    by_sound = defaultdict(list)
    for word in grammar.vocabulary():
        sound = espeak.speaker().transcribe(word, accent)
        by_sound[sound.translate(str.maketrans("", "", "ˈˌː"))].append(word)  # stress and length distinguish little
    assert [words for words in by_sound.values() if len(words) > 1] == []


def test_the_homophone_check_sees_homophones() -> None:
    transcribe = espeak.speaker().transcribe
    assert transcribe("two", "en-us") == transcribe("too", "en-us")
    assert transcribe("dance", "en-us") == "dˈæns" and transcribe("dance", "en-gb-x-rp") == "dˈɑːns"


# --- voices


def variant(tmp_path: Path, *lines: str, name: str = "someone"):
    """A variant read from a file of these lines."""
    (tmp_path / name).write_text("\n".join(("language variant", "name x", *lines)))
    return voices.read_variant(tmp_path / name)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("formant 1 126 100 100", "formant 1 at 126 %"),
        ("formant 2 87 100 100", "formant 2 at 87 %"),
        ("formant 3 100 100 100 700", "formant 3 at 128 %"),
        ("formant 1 100 49 100", "formant 1 strength 49 %"),
        ("formant 2 100 100 201", "formant 2 width 201 %"),
        ("voicing 49", "voicing 49 %"),
        ("consonants 100 201", "consonants 201 %"),
        ("breath 0 11", "breath 11"),
        ("roughness 5", "roughness 5"),
        ("flutter 11", "flutter 11"),
        ("echo 50 21", "echo 21 %"),
        ("language en-us", "language en-us"),
    ],
)
def test_each_reason_leaves_a_variant_out(tmp_path: Path, line: str, reason: str) -> None:
    assert voices.reasons_against(variant(tmp_path, line)) == [reason]


@pytest.mark.parametrize(
    "line",
    [
        "formant 1 125 50 200",
        "formant 2 135 100 100 -250",  # 118 % at the neutral vowel
        "formant 5 10 0 0",  # formants above the third make no vowels
        "voicing 200",
        "consonants 50",
        "breath 10 10",
        "roughness 4",
        "flutter 10",
        "echo 130 20",
        "// formant 1 10 10 10",
        "roughness 2  # flutter 20",
        "tone 600 255 1200 22",
    ],
)
def test_what_the_rule_admits(tmp_path: Path, line: str) -> None:
    assert voices.reasons_against(variant(tmp_path, line)) == []


def test_a_blank_in_the_name(tmp_path: Path) -> None:
    assert voices.reasons_against(variant(tmp_path, name="Mr X")) == ["blank in the name"]


def installed() -> dict[str, object]:
    """All variants of the installed eSpeak NG, by name."""
    return {name: voices.read_variant(path) for name, path in espeak.variant_files().items()}


def test_the_variants_known_to_be_bad_fall_out() -> None:
    variants = installed()
    for name in ("Alicia", "Marco", "whisper", "whisperf", "croak", "Demonic", "zac", "robosoft", "Mr serious"):
        assert voices.reasons_against(variants[name]), name


def test_the_voices_of_each_set() -> None:
    assert voices.share_out(list(installed().values())) == {
        "train": (
            "Alex Gene Gene2 Nguyen adam antonio benjamin edward edward2 f2 f4 f5 fast john klatt klatt2 klatt3 klatt4 "
            "klatt5 klatt6 m1 m2 m3 m6 m7 m8 max pedro quincy rob robert steph steph2 steph3 victor"
        ).split(),
        "dev": "Mike f1 mike2".split(),
        "test": "Andrea Mario ed f3 m4 m5".split(),
    }


def test_sets_share_no_vocal_tract_and_have_both_sexes() -> None:
    variants = installed()
    sets = voices.share_out(list(variants.values()))
    tracts = {name: {variants[member].tract() for member in members} for name, members in sets.items()}
    assert not tracts["train"] & tracts["dev"] and not tracts["train"] & tracts["test"]
    assert not tracts["dev"] & tracts["test"]
    for members in sets.values():
        assert {variants[member].sex for member in members} == {"female", "male"}


def test_the_deal_does_not_depend_on_the_order_of_the_files() -> None:
    variants = list(installed().values())
    assert voices.share_out(variants[::-1]) == voices.share_out(variants)


# --- speech


def test_unknown_voices_are_refused() -> None:
    with pytest.raises(UserError, match="'nosuch' is not in"):
        espeak.speaker().choose("en-us", "nosuch")  # eSpeak itself would speak the plain voice
    with pytest.raises(UserError, match="no voice 'en-gb'"):
        espeak.speaker().choose("en-gb")


def test_six_voices_speak() -> None:
    sets = voices.share_out(list(installed().values()))
    for index, (voice, text) in enumerate(zip(sets["test"], grammar.draw_sets(SIZES, 0)["test"], strict=False)):
        name = f"{voice}-{index:05d}"
        how = synthesise.draw_conditions(name, 0)
        wave = synthesise.speak(synthesise.Utterance(name, voice, text, Path("unused"), 0))
        seconds = len(wave) / synthesise.SAMPLE_RATE
        assert wave.dtype == np.float32 and np.max(np.abs(wave)) <= 0.9901
        assert 0.5 < seconds - how.lead - how.tail < 12
        words_per_minute = 60 * len(text.split()) / (seconds - how.lead - how.tail)
        assert 0.5 * how.rate < words_per_minute < 1.5 * how.rate
        lead = wave[: int(0.8 * how.lead * synthesise.SAMPLE_RATE)]
        assert 0 < np.mean(lead**2) < np.mean(wave**2) / 10  # noise alone, at least 15 dB below the speech


def test_the_voice_is_heard() -> None:
    """Andrea's base pitch is 200 Hz, m4's 70 Hz: more cycles per second, so another spectrum below 150 Hz."""

    def low_share(name: str) -> float:
        wave = espeak.speaker().speak("the farmer laughed", "en-us", name, 160, 50, 50)
        power = np.abs(np.fft.rfft(wave.astype(float))) ** 2
        return power[: round(150 * len(wave) / espeak.SAMPLE_RATE)].sum() / power.sum()

    assert low_share("m4") > 5 * low_share("Andrea")


def conditions(**changes: object):
    """Drawn conditions with some of them set."""
    return synthesise.draw_conditions("x-00000", 0)._replace(**changes)


@pytest.mark.parametrize("pink", [False, True])
@pytest.mark.parametrize("snr", [15.0, 35.0])
def test_noise_is_as_loud_and_as_coloured_as_drawn(pink: bool, snr: float) -> None:
    times = np.arange(3 * espeak.SAMPLE_RATE) / espeak.SAMPLE_RATE
    speech = np.round(8000 * np.sin(2 * np.pi * 440 * times)).astype(np.int16)
    noisy = synthesise.record(speech, conditions(pink=pink, snr=snr, gain=-6.0))
    clean = synthesise.record(speech, conditions(pink=pink, snr=300.0, gain=-6.0))
    noise = noisy - clean
    assert np.mean(clean**2) * len(clean) / (3 * synthesise.SAMPLE_RATE) == pytest.approx(
        (8000 / 32768) ** 2 / 2 * 10**-0.6, rel=0.01
    )
    speech_power = np.sum(clean**2) / (3 * synthesise.SAMPLE_RATE)
    assert 10 * np.log10(speech_power / np.mean(noise**2)) == pytest.approx(snr, abs=0.1)
    power = np.abs(np.fft.rfft(noise)) ** 2
    octave = [power[round(low * len(noise) / 16000) : round(2 * low * len(noise) / 16000)].sum() for low in (500, 2000)]
    # two octaves up: white noise has four times the power, pink noise the same
    assert octave[1] / octave[0] == pytest.approx(1 if pink else 4, rel=0.2)


def test_silence_at_the_ends_and_no_clipping() -> None:
    speech = np.full(espeak.SAMPLE_RATE, 30000, np.int16)
    wave = synthesise.record(speech, conditions(lead=0.1, tail=0.2, snr=300.0, gain=6.0))
    assert len(wave) == pytest.approx(1.3 * synthesise.SAMPLE_RATE, abs=2)
    assert np.max(np.abs(wave)) == pytest.approx(0.99)
    assert np.max(np.abs(wave[:1590])) < 1e-3 and np.max(np.abs(wave[-3190:])) < 1e-3


def test_conditions_come_from_seed_and_name() -> None:
    drawn = [synthesise.draw_conditions(f"m1-{index:05d}", 0) for index in range(400)]
    assert drawn == [synthesise.draw_conditions(f"m1-{index:05d}", 0) for index in range(400)]
    assert drawn[0] != synthesise.draw_conditions("m1-00000", 1)
    assert set(Counter(how.accent for how in drawn)) == set(synthesise.ACCENTS)
    assert 150 < sum(how.pink for how in drawn) < 250
    ranges = {"rate": (140, 200), "pitch": (30, 70), "pitch_range": (30, 70), "lead": (0.05, 0.2), "tail": (0.05, 0.2)}
    for key, (low, high) in {**ranges, "snr": (15, 35), "gain": (-12, 6)}.items():
        values = [getattr(how, key) for how in drawn]
        assert low <= min(values) < low + 0.1 * (high - low) and high - 0.1 * (high - low) < max(values) <= high


# --- the pool of processes


def test_a_hanging_synthesiser_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.syspath_prepend(RECIPE / "local")  # the workers import synthesise by name
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(synthesise, "PATIENCE", 0.2)
    work = [synthesise.Utterance("m1-00000", "m1", "hello", tmp_path / "m1-00000.wav", 0)]
    (tmp_path / "hanging.py").write_text("import time\n\n\ndef chunk(utterances):\n    time.sleep(60)\n")
    monkeypatch.setattr(synthesise, "write_chunk", importlib.import_module("hanging").chunk)
    with pytest.raises(UserError, match="train: eSpeak NG hung 3 times; run the same command again"):
        synthesise.write_all(work, 1, "train")
    assert capsys.readouterr().out.count("starting the processes again") == 3
