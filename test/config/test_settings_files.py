"""Every YAML of conf/ and egs/*/asr1/conf is read by its reader, and each of its keys is known there.

Trainings are parsed as the command does, their network (large ones on the meta device, where sizes cost nothing),
optimiser and schedule are built. So that this can fail, a made-up key in any mapping of any file must be refused.
"""

import copy
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from whisfusion_asr.bin.decode import read_settings
from whisfusion_asr.bin.decode_whisper import read_settings as read_original
from whisfusion_asr.bin.import_encoder import read_encoder_conf
from whisfusion_asr.config import read_yaml
from whisfusion_asr.decoding.settings import DecodingSettings
from whisfusion_asr.errors import UserError
from whisfusion_asr.recipe.commands import MADE_OF_WHISPER
from whisfusion_asr.recipe.options import build_options, read_preset
from whisfusion_asr.recipe.settings import split_arguments
from whisfusion_asr.studies.ablation import read_ablation
from whisfusion_asr.studies.grid import read_grid

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*ROOT.glob("conf/*.yaml"), *ROOT.glob("egs/*/asr1/conf/*.yaml")])
ESPNET = ("_espnet", "_maskctc")
# What a training or decoding file may build on is no setting of its own: it need not be complete.
BASES = {
    (path.parent / base).resolve() for path in FILES if (base := yaml.safe_load(path.read_text()).get("base"))
}  # fmt: skip


def kind(path: Path) -> str:
    """First part of the name: train, decode, ar, whisper, preset, sweep, ablate; espnet: read by ESPnet's programs."""
    return "espnet" if any(tag in path.stem for tag in ESPNET) else path.name.partition("_")[0]


def name(path: Path) -> str:
    """Path from the root, the id of a test."""
    return str(path.relative_to(ROOT))


def of(*kinds: str, complete: bool = False) -> list[Any]:
    """The files of these kinds, as test parameters."""
    chosen = [path for path in FILES if kind(path) in kinds and not (complete and path.resolve() in BASES)]
    assert chosen
    return [pytest.param(path, id=name(path)) for path in chosen]


def mappings(tree: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Places of all mappings in a mapping, itself included."""
    yield place
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from mappings(value, (*place, key))


def with_made_up_keys(settings: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The settings with one more key, in each of their mappings."""
    for place in mappings(settings):
        spoilt = copy.deepcopy(settings)
        inner = spoilt
        for key in place:
            inner = inner[key]
        inner["made_up"] = 1
        yield ".".join(place), spoilt


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory, toy_whisper: Path, toy_whisper_tokens: Path) -> Callable[..., None]:
    """build(settings, words): what the training command makes of settings before it reads data."""
    if importlib.util.find_spec("espnet2") is None:
        pytest.skip("needs ESPnet; utils/install.sh installs it")
    from whisfusion_asr.tasks.asr import DiffusionASRTask, scheduler_classes
    from whisfusion_asr.tasks.experiment import check_values

    folder = tmp_path_factory.mktemp("config")
    (folder / "tokens.txt").write_text("\n".join(["<eos>", "<unk>", "<space>", "a", "b"]) + "\n")

    def run(settings: dict[str, Any], words: list[str]) -> None:
        (folder / "train.yaml").write_text(yaml.safe_dump(settings))
        tokens = ["--token_list", str(folder / "tokens.txt"), "--token_type", "char"]
        whisper = [part for part, name in MADE_OF_WHISPER.items() if settings.get(part) == name]
        for part in whisper:  # its sizes are those of a folder
            model = str(toy_whisper_tokens / "tokens.model")
            tokens = ["--token_list", f"{toy_whisper_tokens}/tokens.txt", "--token_type", "bpe", "--bpemodel", model]
            tokens += [f"--{part}_conf", f"model={toy_whisper}", "--encoder_conf", "size=16"]
        command = ["--config", str(folder / "train.yaml"), "--output_dir", str(folder / "exp"), *tokens, *words]
        args = DiffusionASRTask.parse(command)
        check_values(DiffusionASRTask.get_parser(), args)
        made = args.frontend or whisper  # they compute when they are made
        with torch.device("cpu" if made else "meta"):
            model = DiffusionASRTask.build_model(args)
        for parameter_name, parameter in model.named_parameters():
            frozen = any(f"{parameter_name}.".startswith(f"{part}.") for part in args.freeze_param)
            parameter.requires_grad_(not frozen)
        (optimizer,) = DiffusionASRTask.build_optimizers(args, model)
        scheduler_classes[args.scheduler](optimizer, **args.scheduler_conf).set_total(100)
        trained = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
        assert 0 < trained == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

    return run


def test_every_file_is_of_a_known_kind() -> None:
    assert {kind(path) for path in FILES} == {"train", "decode", "ar", "whisper", "preset", "sweep", "ablate", "espnet"}
    assert all(base.is_file() for base in BASES)


@pytest.mark.parametrize("path", of("train", complete=True))
def test_training(path: Path, build: Callable[..., None]) -> None:
    settings = read_yaml(path)
    build(settings, [])
    unread = [key for key, value in settings.items() if key.endswith("_conf") and value and not settings.get(key[:-5])]
    assert unread == [], "settings of a part that is not chosen"
    for place, spoilt in with_made_up_keys(settings):
        with pytest.raises(UserError, match="made_up"):
            build(spoilt, [])
            pytest.fail(f"{name(path)}: {place}.made_up was not refused")


@pytest.mark.parametrize("path", of("train"))
def test_training_that_others_build_on(path: Path) -> None:
    from whisfusion_asr.tasks.asr import DiffusionASRTask

    DiffusionASRTask.parse(["--config", str(path)])


@pytest.mark.parametrize("path", of("decode"))
def test_decoding(path: Path, tmp_path: Path) -> None:
    settings, _ = read_settings(str(path), [])
    again = DecodingSettings.of(settings.as_conf())
    assert again == settings, "what meta.json keeps is complete"
    for place, spoilt in with_made_up_keys(read_yaml(path)):
        (tmp_path / "decode.yaml").write_text(yaml.safe_dump(spoilt))
        with pytest.raises(UserError, match="made_up"):
            read_settings(str(tmp_path / "decode.yaml"), [])
            pytest.fail(f"{name(path)}: {place}.made_up was not refused")


@pytest.mark.parametrize("path", of("ar"))
def test_decoding_with_the_original_whisper(path: Path, tmp_path: Path) -> None:
    assert read_original(str(path), []).decoder == "whisper"
    (tmp_path / "ar.yaml").write_text(yaml.safe_dump(read_yaml(path) | {"made_up": 1}))
    with pytest.raises(UserError, match="made_up"):
        read_original(str(tmp_path / "ar.yaml"), [])


@pytest.mark.parametrize("change", ["beam_size=5", "sampler_conf.beam_size=5", "control=deaf", "sampler_conf.remask=x"])
def test_a_decoding_refuses_what_it_does_not_know(change: str) -> None:
    with pytest.raises(UserError, match="beam_size|deaf|remask"):
        read_settings(str(ROOT / "conf/decode_pdd.yaml"), [change])


def build_for_espnet(settings: dict[str, Any], folder: Path) -> None:
    """What asr_train makes of settings before it reads data."""
    from whisfusion_asr.tasks.asr import scheduler_classes
    from whisfusion_asr.tasks.espnet_programs import ControlTask

    (folder / "train.yaml").write_text(yaml.safe_dump(settings))
    (folder / "tokens.txt").write_text("\n".join(["<blank>", "<unk>", "a", "b", "<sos/eos>"]) + "\n")
    words = ["--config", str(folder / "train.yaml"), "--token_list", str(folder / "tokens.txt")]
    args = ControlTask.get_parser().parse_args(words)
    model = ControlTask.build_model(args)
    (optimizer,) = ControlTask.build_optimizers(args, model)
    scheduler_classes[args.scheduler](optimizer, **args.scheduler_conf)


@pytest.mark.parametrize("path", [path for path in of("espnet") if path.id.split("/")[-1].startswith("train")])
def test_training_by_espnet(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("espnet2", reason="needs ESPnet; utils/install.sh installs it")
    settings = yaml.safe_load(path.read_text())
    if "max_steps" in settings["scheduler_conf"]:
        assert settings["scheduler_conf"]["max_steps"] == settings["max_epoch"] * settings["num_iters_per_epoch"]
    for part in ("encoder_conf", "decoder_conf"):  # the large ones take seconds to be filled with numbers
        settings[part]["num_blocks"] = 1
    build_for_espnet(settings, tmp_path)
    for place, spoilt in with_made_up_keys(settings):
        with pytest.raises((SystemExit, TypeError, UserError)):
            build_for_espnet(spoilt, tmp_path)
            pytest.fail(f"{name(path)}: {place}.made_up was not refused")


@pytest.mark.parametrize(("file", "program"), [("espnet", "asr_inference"), ("maskctc", "asr_inference_maskctc")])
def test_decoding_by_espnet(file: str, program: str) -> None:
    pytest.importorskip("espnet2", reason="needs ESPnet; utils/install.sh installs it")
    importlib.import_module("whisfusion_asr.tasks.espnet_compat")
    parser = importlib.import_module(f"espnet2.bin.{program}").get_parser()
    words = {"config": ROOT / f"conf/decode_{file}.yaml", "asr_train_config": "c", "asr_model_file": "m",
             "output_dir": "o", "data_path_and_name_and_type": "a,b,sound"}  # fmt: skip
    args = vars(parser.parse_args([str(word) for key, value in words.items() for word in (f"--{key}", value)]))
    settings = yaml.safe_load(words["config"].read_text())
    assert {key: args[key] for key in settings} == settings


@pytest.mark.parametrize("path", of("sweep"))
def test_sweep(path: Path, tmp_path: Path) -> None:
    named = re.search(r"over conf/(decode_\w+)\.yaml", path.read_text())
    base = read_yaml(ROOT / f"conf/{named[1] if named else 'decode_pdd'}.yaml")
    assert len(read_grid(path, base)) >= 3
    content = read_yaml(path)
    for name_, change in (content.get("points") or {}).items():
        content["points"][name_] = {**change, "made_up": 1}
    content["grid"] = {"made_up": [1]} if content.get("grid") else None
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="made_up"):
        read_grid(tmp_path / "sweep.yaml", base)


@pytest.mark.parametrize("path", of("ablate"))
def test_ablation(path: Path, tmp_path: Path, build: Callable[..., None]) -> None:
    """Options that a recipe has, with arguments that its training takes."""
    ablation = read_ablation(path, "model")
    training = ROOT / "egs/mini_synth/asr1/conf/train_decoder.yaml"
    for options in ablation.runs.values():
        assert build_options(options).asr_tag.startswith("model")
        build(read_yaml(training), split_arguments(options.get("asr_args", "")))
    content = read_yaml(path)
    (tmp_path / "ablate.yaml").write_text(yaml.safe_dump(content | {"common": {"made_up": 1}}))
    with pytest.raises(UserError, match="made_up"):
        read_ablation(tmp_path / "ablate.yaml", "model")


@pytest.mark.parametrize("path", of("whisper"))
def test_ready_made_encoder(path: Path, tmp_path: Path) -> None:
    assert read_encoder_conf(path)["model"].startswith("openai/whisper-")
    for place, spoilt in with_made_up_keys(read_yaml(path)):
        (tmp_path / "whisper.yaml").write_text(yaml.safe_dump(spoilt))
        with pytest.raises(UserError, match="made_up"):
            read_encoder_conf(tmp_path / "whisper.yaml")
            pytest.fail(f"{name(path)}: {place}.made_up was not refused")


@pytest.mark.parametrize("path", of("preset"))
def test_preset(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Callable[..., None]) -> None:
    """Keys and types, and the options that it gives to trainings."""
    recipe = path.parents[1]
    monkeypatch.chdir(recipe)
    values = read_preset(path.stem.removeprefix("preset_"))
    options = build_options(values)
    for part, usual in (("encoder", "encoder"), ("text", "text"), ("adapter", "adapter"), ("asr", "decoder")):
        words = split_arguments(getattr(options, f"{part}_args"))
        config = Path(getattr(options, f"{part}_config") or f"conf/train_{usual}.yaml")
        if words:
            build(read_yaml(config), words)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "preset_x.yaml").write_text(yaml.safe_dump(values | {"made_up": 1}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="unknown option made_up"):
        read_preset("x")


@pytest.mark.parametrize("path", of("preset"))
def test_preset_in_its_recipe(path: Path) -> None:
    """Together with the values of run.sh it names files that exist and stages that can be described."""
    recipe = path.parents[1]
    command = ["bash", recipe / "run.sh", "--preset", path.stem.removeprefix("preset_"), "--dry_run", "true"]
    prefix = {"VIRTUAL_ENV": sys.prefix, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, env=os.environ | prefix, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "# Stage 6 score" in done.stdout
