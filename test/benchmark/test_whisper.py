"""Whisper in the decoding benchmark: a toy one writes the asked number of tokens, by either library."""

import argparse
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from whisfusion_asr.benchmark import whisper
from whisfusion_asr.benchmark.systems import Bench, Networks
from whisfusion_asr.errors import UserError

ARGS = argparse.Namespace(device="cpu", dtype="float32", seed=0, tokens_per_second=3.0, size=16)


def bench(seconds: float) -> Bench:
    return Bench(ARGS, seconds, Networks(ARGS))


def test_transformers_writes_as_many_tokens_as_the_others(toy_whisper, monkeypatch):
    monkeypatch.setattr(whisper, "find_spec", lambda name: None)
    with whisper.opened(str(toy_whisper), ARGS) as opened:
        systems = opened.systems(bench(4.0))
        assert list(systems) == ["whisper encoder", "whisper greedy"] and "not installed" in opened.missing
        assert systems["whisper encoder"]().shape == (1, 1500, 16)
        assert systems["whisper greedy"]().shape == (1, 1 + 12), "the start and the text"
        with pytest.raises(UserError, match="writes at most 36 tokens, and 30 s have 90"):
            opened.systems(bench(30.0))


def test_ctranslate2_is_asked_for_the_same_work(toy_whisper, monkeypatch):
    """A fake library: what is asked of the real one was tried with ctranslate2 4.8.5 on Whisper-base."""
    calls = []

    class Model:
        def __init__(self, folder, **named):
            calls.append((folder, named["device"], named["compute_type"]))

        def generate(self, features, prompts, **named):
            return features.shape, prompts, named

    class Converter:
        def __init__(self, folder):
            assert folder == str(toy_whisper)

        def convert(self, out):
            calls.append(out)

    fake = SimpleNamespace(models=SimpleNamespace(Whisper=Model), StorageView=SimpleNamespace(from_array=np.asarray),
                           converters=SimpleNamespace(TransformersConverter=Converter))
    monkeypatch.setitem(sys.modules, "ctranslate2", fake)
    monkeypatch.setitem(sys.modules, "ctranslate2.converters", fake.converters)
    monkeypatch.setattr(whisper, "find_spec", lambda name: object())
    with whisper.opened(str(toy_whisper), ARGS) as opened:
        systems = opened.systems(bench(4.0))
        shape, prompts, named = systems["faster-whisper"]()
    assert [call[1:] for call in calls[1:]] == [("cpu", "float32"), ("cpu", "int8")]
    assert {call[0] for call in calls[1:]} == {calls[0]} and opened.missing is None
    start, end = opened.network.config.decoder_start_token_id, opened.network.config.eos_token_id
    assert shape == (1, 80, 3000) and prompts == [[start]] and named["suppress_tokens"] == [end]
    assert named["max_length"] == 2 * 12, "it writes half of it at most"
    assert "faster-whisper int8" in systems


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="config.json: no such file; expected a Whisper folder"):
        with whisper.opened(str(tmp_path), ARGS):
            pass
