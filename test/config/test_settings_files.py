"""Every settings file of the repository loads, and every key in it is read by somebody."""

from pathlib import Path

import pytest
import torch
import yaml

from whisfusion_asr.bin.decode import read_settings
from whisfusion_asr.bin.import_encoder import read_encoder_conf
from whisfusion_asr.config import read_yaml
from whisfusion_asr.errors import UserError
from whisfusion_asr.recipe.options import build_options, read_preset

ROOT = Path(__file__).resolve().parents[2]
SHARED = sorted((ROOT / "conf").glob("*.yaml"))
OF_RECIPES = sorted(ROOT.glob("egs/*/asr1/conf/*.yaml"))


def names(kind: str, files: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in files if path.name.startswith(kind)]


@pytest.fixture(scope="module")
def task():
    from whisfusion_asr.tasks.asr import DiffusionASRTask

    return DiffusionASRTask


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens.txt"
    path.write_text("\n".join(["<eos>", "<unk>", "<space>", *"abcdefgh"]) + "\n", encoding="utf-8")
    return path


def parse(task, path, tokens):
    return task.parse(["--config", str(path), "--token_list", str(tokens), "--token_type", "char", "--output_dir", "x"])


def build(task, args):
    """Model, optimiser and schedule of a training; a large decoder gets no memory for its weights."""
    from espnet2.tasks.abs_task import scheduler_classes

    with torch.device("meta" if args.decoder_conf.get("size", 0) > 512 else "cpu"):
        model = task.build_model(args)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not any(name.startswith(f"{prefix}.") for prefix in args.freeze_param)
    optimizer = task.build_optimizers(args, model)[0]
    return model, optimizer, scheduler_classes[args.scheduler](optimizer, **args.scheduler_conf)


def test_every_file_is_of_a_known_kind():
    for path in [*SHARED, *OF_RECIPES]:
        assert path.name.startswith(("train_", "decode_", "whisper_", "preset_")), path


@pytest.mark.parametrize("name", names("train_", SHARED))
def test_shared_trainings_hold_known_options(name, task, tokens):
    args = parse(task, ROOT / name, tokens)
    assert args.model == "diffusion_asr" and args.keep_nbest_models == 1


@pytest.mark.parametrize("name", names("train_", OF_RECIPES))
def test_trainings_of_recipes_build(name, task, tokens):
    args = parse(task, ROOT / name, tokens)
    model, optimizer, scheduler = build(task, args)
    scheduler.set_total(100)
    trained = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert 0 < trained == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("where", ["frontend_conf", "model_conf", "optim_conf", "scheduler_conf", "encoder_conf", None])
def test_a_key_that_nobody_reads_is_refused(where, task, tokens, tmp_path):
    settings = read_yaml(ROOT / "egs/mini_synth/asr1/conf/train_encoder.yaml")
    target = settings if where is None else settings.setdefault(where, {})
    target["nobody_reads_this"] = 1
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with pytest.raises(UserError, match="nobody_reads_this"):
        build(task, parse(task, path, tokens))


@pytest.mark.parametrize("name", names("decode_", SHARED + OF_RECIPES))
def test_decodings_are_read(name):
    settings = read_settings(str(ROOT / name), [])
    assert settings["sampler"] in ("pdd_reference", "ctc_greedy")


@pytest.mark.parametrize("change", ["beam_size=5", "sampler_conf.beam_size=5", "control=deaf", "sampler_conf.remask=x"])
def test_a_decoding_refuses_what_it_does_not_know(change):
    with pytest.raises(UserError, match="beam_size|deaf|remask"):
        read_settings(str(ROOT / "conf/decode_pdd.yaml"), [change])


@pytest.mark.parametrize("name", names("whisper_", OF_RECIPES))
def test_imported_encoders_are_read(name, tmp_path):
    assert "model" in read_encoder_conf(ROOT / name)
    path = tmp_path / "whisper.yaml"
    path.write_text((ROOT / name).read_text(encoding="utf-8") + "nobody_reads_this: 1\n", encoding="utf-8")
    with pytest.raises(UserError, match="nobody_reads_this"):
        read_encoder_conf(path)


@pytest.mark.parametrize("name", names("preset_", OF_RECIPES))
def test_presets_are_options(name, monkeypatch):
    monkeypatch.chdir((ROOT / name).parents[1])
    values = read_preset(Path(name).stem.removeprefix("preset_"))
    options = build_options(values)
    configs = [getattr(options, f"{part}_config") for part in ("encoder", "text", "ctc", "adapter", "asr")]
    for config in filter(None, [*configs, *options.inference_config.split()]):
        assert Path(config).is_file(), config
