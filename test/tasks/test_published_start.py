"""Stage 1 from published parts: SMDM's file and Llama's tokens are imported, adapters trained, all of it exported."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("espnet2", reason="ESPnet is not installed")

from released_files import BLANK, FFN, SIZE, released_weights, text_part, write_llama
from safetensors.torch import save_file

from whisfusion_asr.api import Speech2Text
from whisfusion_asr.bin import export_weights, import_model


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory) -> Path:
    """Folder with smdm.safetensors, tokens, the imported text model `smdm` and a stage-1 training `exp`."""
    root = tmp_path_factory.mktemp("published")
    vocab = write_llama(root / "tokenizer.model", dict(enumerate([*"abcd", BLANK], start=259)))
    save_file(text_part(released_weights(vocab)), root / "smdm.safetensors")
    import_model.main(["--tokenizer", str(root), "--out", str(root / "tokens"), "--text_case", "lower"])
    words = ["--smdm", str(root / "smdm.safetensors"), "--tokenizer", str(root / "tokens"), "--out", str(root / "smdm")]
    import_model.main(words)
    decoder = {"size": SIZE, "num_blocks": 2, "attention_heads": 2, "ffn_size": FFN, "adapter_out_std": None}
    train(root / "exp", {"decoder_conf": decoder, "model_conf": {"canvas_conf": {"fit": "fixed", "length": 12}}},
          max_epoch=1, token_list=root / "tokens" / "tokens.txt", token_type="bpe",
          bpemodel=root / "tokens" / "tokens.model", init_param=[root / "smdm" / "valid.loss.ave.pth"],
          freeze_param=["decoder.embed", "decoder.blocks", "decoder.norm", "decoder.head"])  # fmt: skip
    return root


def test_the_ids_reach_training_and_decoding(trained):
    from whisfusion_asr.tasks.asr import DiffusionASRTask

    model, args = DiffusionASRTask.build_model_from_file(trained / "exp" / "config.yaml")
    decoder = Speech2Text(trained / "exp", inference={"sampler_conf": {"candidates": 2}})
    assert replace(model.spec, inner=decoder.spec.inner) == decoder.spec
    assert (model.spec.eos_id, model.spec.bos_id, model.spec.mask_id) == (2, 1, len(args.token_list))
    transcript = decoder.decode_states("u", torch.randn(9, 8, generator=torch.Generator().manual_seed(0)), 1.0)
    assert transcript.canvas == 12 and 2 not in transcript.token_int
    encode = DiffusionASRTask.build_preprocess_fn(args, train=True)
    assert encode("u", {"text": "ABCD"})["text"].tolist() == encode("u", {"text": "abcd"})["text"].tolist()


def test_what_was_frozen_is_exported_unchanged(trained):
    export_weights.main(["--exp_dir", str(trained / "exp"), "--out", str(trained / "out.pt")])
    found = torch.load(trained / "out.pt", weights_only=True)
    wanted = text_part(released_weights(len(found["lm_head.weight"])))
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert len(found) == len(wanted) + 2 * 4
    assert found["transformer.h.1.cross_attn.kv_proj.weight"].shape == (2 * SIZE, 8)
