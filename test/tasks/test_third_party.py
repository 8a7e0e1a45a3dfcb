"""Our decoder among the choices of ESPnet's own ASRTask."""

import torch
import yaml


def test_asr_task_of_espnet_trains_our_decoder(corpus, tmp_path):
    """An encoder of ESPnet on dumped states, CTC, our decoder with the masked-diffusion loss; one epoch."""
    import whisfusion_asr.tasks

    whisfusion_asr.tasks.register()
    from espnet2.tasks.asr import ASRTask

    config = {
        "model": "masked_diffusion", "model_conf": {"ctc_weight": 0.3, "mask_ratio": [0.3, 1.0]},
        "decoder": "diffusion", "decoder_conf": {"size": 16, "num_blocks": 1, "attention_heads": 2, "ffn_size": 16},
        "encoder": "transformer", "frontend": None, "input_size": 8, "normalize": None,
        "encoder_conf": {"output_size": 8, "attention_heads": 2, "linear_units": 8, "num_blocks": 1,
                         "input_layer": "linear"},
        "token_list": ["<blank>", "<unk>", "a", "b", "c", "d", "<sos/eos>"], "token_type": "char", "bpemodel": None,
        "optim": "adamw", "batch_type": "sorted", "batch_size": 4, "num_workers": 0, "max_epoch": 1,
        "use_matplotlib": False, "use_tensorboard": False, "best_model_criterion": [["valid", "loss", "min"]],
    }  # fmt: skip
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    line = ["--config", str(tmp_path / "train.yaml"), "--output_dir", str(tmp_path / "exp"), "--ngpu", "0"]
    for name in ("train", "valid"):
        line += [f"--{name}_data_path_and_name_and_type", f"{corpus}/dump/{name},speech,states"]
        line += [f"--{name}_data_path_and_name_and_type", f"{corpus}/data/{name}/text,text,text"]
        line += [f"--{name}_shape_file", f"{corpus}/dump/{name}/shape"]
    ASRTask.main(cmd=line)
    state = torch.load(tmp_path / "exp" / "valid.loss.best.pth")
    assert all(torch.isfinite(value).all() for value in state.values())
    assert any(name.startswith("decoder.body.adapters.0.") for name in state)
