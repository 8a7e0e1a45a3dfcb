"""How the report reads canvases: the ids of an experiment come from its token list, where config.yaml has none."""

from pathlib import Path

import pytest
import yaml

from whisfusion_asr.api import canvas_spec
from whisfusion_asr.bin.report import read_vocabulary
from whisfusion_asr.data.tokenizer import Tokenizer
from whisfusion_asr.diffusion.canvas import CanvasSpec

LLAMA = ["<unk>", "<s>", "</s>", "a", "b"]
SPOKEN = ["<eos>", "<unk>", "<de>", "<en>", "<space>", "a", "b"]


@pytest.mark.parametrize(
    ("pieces", "config", "spec"),
    [
        (LLAMA, {}, CanvasSpec(5, eos_id=2, bos_id=1)),
        (LLAMA, {"model_conf": {"bos_id": None}}, CanvasSpec(5, eos_id=2)),
        (LLAMA, {"decoder": "causal"}, CanvasSpec(5, eos_id=2)),
        (SPOKEN, {"decoder": "diffusion"}, CanvasSpec(7, languages=(2, 3))),
        (["<eos>", "<unk>", "<space>", "a"], {"model_conf": {"bos_id": 3}}, CanvasSpec(4, bos_id=3)),
    ],
)
def test_the_ids_of_an_experiments_canvases(pieces: list[str], config: dict, spec: CanvasSpec) -> None:
    assert canvas_spec(config, Tokenizer(pieces)) == spec


def test_the_report_skips_the_language(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"token_list": SPOKEN, "decoder": "diffusion"}))
    vocabulary = read_vocabulary(str(tmp_path))
    assert vocabulary is not None and (vocabulary.eos_id, vocabulary.prefix) == (0, 1)
    assert vocabulary.text_of(vocabulary.emitted(vocabulary.canvas("<de> a b <eos> a"))) == "ab"
