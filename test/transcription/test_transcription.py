"""Long files through a recogniser that is right except where a window cuts a word."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from whisfusion_asr.api import Utterance
from whisfusion_asr.decoding.given import Given
from whisfusion_asr.errors import UserError
from whisfusion_asr.transcription import Transcriber

RATE, SPOKEN, FRAME = 16000, 0.5, 0.1  # samples and a word in seconds; a state lasts 0.1 s
PIECES = ["<eos>", "<unk>", *(f"word{number}" for number in range(40)), "cutoff", "torn"]
END_CUT, START_CUT, BLANK = len(PIECES) - 2, len(PIECES) - 1, len(PIECES)


class FakeTokenizer:
    """A piece a word."""

    def encode(self, text: str) -> list[int]:
        return [PIECES.index(word) for word in text.split()]

    def words(self, pieces: list[str]) -> list[tuple[str, list[int]]]:
        return [(piece, [place]) for place, piece in enumerate(pieces)]


class FakeSpeech2Text:
    """Hears a word as a loudness of its own; what is too short for a whole word becomes another one.

    misheard: an id that it gets wrong among the first words of a window, unless its neighbours are given
    """

    def __init__(self, with_ctc: bool = True, misheard: int = 0) -> None:
        self.tokenizer, self.asked, self.misheard = FakeTokenizer(), [], misheard
        self.settings, self.longest = SimpleNamespace(keeps_given=True), None
        self.network = SimpleNamespace(ctc=self._ctc if with_ctc else None, decoder=None)

    def encode(self, utt_id: str, audio: np.ndarray) -> Utterance:
        frames = audio[: len(audio) // 1600 * 1600].reshape(-1, 1600).mean(1)
        return Utterance(utt_id, torch.from_numpy(frames[:, None].copy()), len(audio) / RATE)

    def given(self, *parts: str | int, ends: bool = False) -> Given:
        tokens: list[int | None] = []
        for part in parts:
            tokens += [None] * part if isinstance(part, int) else self.tokenizer.encode(part)
        return Given(tokens, ends=ends)

    def decode_many(self, utterances: list[Utterance]):
        for utterance in utterances:
            ids = self._heard(utterance)
            if utterance.given is not None:
                self.asked.append(utterance.given)
                start = min(i for i, token in enumerate(utterance.given.tokens) if token is None)
                truth = [one for one, _, frames in self._runs(utterance.states) if one and frames >= 5]
                skip = truth.index(utterance.given.tokens[0]) if start else 0
                ids = [t if t is not None else truth[skip + i] for i, t in enumerate(utterance.given.tokens)]
            tokens = [PIECES[i] for i in ids]
            words = [{"word": word, "confidence": 0.9 if word.startswith("word") else 0.4} for word in tokens]
            yield SimpleNamespace(tokens=tokens, token_int=ids, words=words)

    def _runs(self, states: torch.Tensor) -> list[tuple[int, int, int]]:
        """(id, first frame, number of frames) of what is heard; id 0 is silence."""
        heard = (states[:, 0] * 50).round().long().tolist()
        starts = [i for i, one in enumerate(heard) if i == 0 or one != heard[i - 1]]
        return [(heard[a], a, b - a) for a, b in zip(starts, [*starts[1:], len(heard)], strict=True)]

    def _heard(self, utterance: Utterance) -> list[int]:
        ids = [self._written(*run) for run in self._runs(utterance.states) if run[0]]
        return [START_CUT if one == self.misheard and place < 4 else one for place, one in enumerate(ids)]

    def _written(self, one: int, first: int, frames: int) -> int:
        return one if frames >= 5 else END_CUT if first else START_CUT

    def _ctc(self, states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(1, states.size(1), len(PIECES) + 1)
        logits[..., BLANK] = 20.0
        for one, first, frames in self._runs(states[0]):
            if one:
                logits[0, first : first + frames, self._written(one, first, frames)] = 40.0
        return logits


def speech(path: Path, numbers: list[int], pause: float = 0.2) -> list[tuple[str, float]]:
    """A file of these words; returns each with its start."""
    parts, starts, now = [], [], 0.0
    for number in numbers:
        parts += [np.zeros(round(pause * RATE)), np.full(round(SPOKEN * RATE), (number + 2) / 50)]
        starts.append((f"word{number}", now + pause))
        now += pause + SPOKEN
    soundfile.write(path, np.concatenate(parts).astype(np.float32), RATE, subtype="FLOAT")
    return starts


@pytest.mark.parametrize("window", [4.0, 5.3, 100.0])
def test_a_long_file_has_the_words_and_times_of_its_parts(tmp_path, window):
    numbers = np.random.default_rng(0).permutation(40).tolist()
    truth = speech(tmp_path / "long.wav", numbers)
    done: list[float] = []
    words = list(Transcriber(FakeSpeech2Text(), window, min(2.0, window / 2), done.append)(tmp_path / "long.wav"))
    assert [word.word for word in words] == [word for word, _ in truth]
    assert [word.start for word in words] == pytest.approx([start for _, start in truth], abs=0.21)
    assert done == sorted(done) and done[-1] == pytest.approx(28.0)


def test_a_dispute_is_decoded_again_with_its_neighbours_given(tmp_path):
    """The second window, from 2.4 s on, mishears the word at 4.4 s, in the overlap."""
    truth = speech(tmp_path / "long.wav", list(range(12)))
    recogniser = FakeSpeech2Text(misheard=PIECES.index("word6"))
    words = list(Transcriber(recogniser, 6.0, 3.0)(tmp_path / "long.wav"))
    assert [word.word for word in words] == [word for word, _ in truth]
    (asked,) = recogniser.asked
    free = asked.tokens.index(None)
    assert asked.ends and asked.tokens.count(None) == 1
    assert [PIECES[i] for i in (asked.tokens[free - 1], asked.tokens[free + 1])] == ["word5", "word7"]
    assert words[6].start == pytest.approx(4.4, abs=0.21) and words[6].confidence == 0.9


def test_a_second_look_that_is_less_sure_changes_nothing(tmp_path, monkeypatch):
    speech(tmp_path / "long.wav", list(range(12)))
    recogniser = FakeSpeech2Text(misheard=PIECES.index("word6"))
    decode = recogniser.decode_many

    def unsure(utterances):
        for found, utterance in zip(decode(utterances), utterances, strict=True):
            if utterance.given is not None:
                found.words = [word | {"confidence": 0.1} for word in found.words]
            yield found

    monkeypatch.setattr(recogniser, "decode_many", unsure)
    plain = FakeSpeech2Text(misheard=PIECES.index("word6"))
    plain.settings.keeps_given = False
    found = [list(Transcriber(one, 6.0, 3.0)(tmp_path / "long.wav")) for one in (recogniser, plain)]
    assert recogniser.asked and found[0] == found[1]


def test_a_sampler_that_keeps_no_words_is_not_asked_again(tmp_path):
    speech(tmp_path / "long.wav", list(range(12)))
    recogniser = FakeSpeech2Text(misheard=PIECES.index("word6"))
    recogniser.settings.keeps_given = False
    words = list(Transcriber(recogniser, 6.0, 3.0)(tmp_path / "long.wav"))
    assert recogniser.asked == [] and len(words) == 12


def test_a_word_that_both_windows_cut_is_dropped_by_neither(tmp_path):
    """The overlap is so short that both windows cut the same word."""
    speech(tmp_path / "long.wav", list(range(12)), pause=0.0)
    words = list(Transcriber(FakeSpeech2Text(), 3.3, 0.2)(tmp_path / "long.wav"))
    assert [word.word for word in words] == [f"word{number}" for number in range(12)]


def test_without_a_ctc_head_times_are_flagged_as_interpolated(tmp_path):
    speech(tmp_path / "one.wav", [3, 4, 5])
    words = list(Transcriber(FakeSpeech2Text(with_ctc=False))(tmp_path / "one.wav"))
    assert [word.word for word in words] == ["word3", "word4", "word5"]
    assert all(word.interpolated and 0 <= word.start < word.end <= 2.1 for word in words)


def test_only_two_windows_are_held(tmp_path, monkeypatch):
    """The audio is read window by window, never whole."""
    speech(tmp_path / "long.wav", [number % 40 for number in range(120)])
    pieces: list[int] = []

    class Watched(FakeSpeech2Text):
        def encode(self, utt_id: str, audio: np.ndarray) -> Utterance:
            pieces.append(len(audio))
            return super().encode(utt_id, audio)

    first = next(iter(Transcriber(Watched(), 6.0, 2.0)(tmp_path / "long.wav")))
    assert first.word == "word0" and len(pieces) <= 3 and max(pieces) <= 6.0 * RATE


@pytest.mark.parametrize(("longest", "chosen", "window", "overlap"), [
    (None, {}, 25, 5), (34.9, {}, 25, 5), (16.2, {}, 16.2, 5), (6.0, {}, 6, 2), (16.2, {"window": 25.0}, 25, 5),
    (16.2, {"overlap": 3.0}, 16.2, 3), (None, {"window": 3.0}, 3, 1),
])
def test_windows_are_no_longer_than_what_the_model_has_heard(longest, chosen, window, overlap):
    speech2text = FakeSpeech2Text()
    speech2text.longest = longest
    transcriber = Transcriber(speech2text, **chosen)
    assert (transcriber.window, transcriber.overlap) == pytest.approx((window, overlap))


def test_odd_windows_and_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="overlap of at most half"):
        Transcriber(FakeSpeech2Text(), 4.0, 3.0)
    with pytest.raises(UserError, match="no such audio file"):
        list(Transcriber(FakeSpeech2Text())(tmp_path / "absent.wav"))
