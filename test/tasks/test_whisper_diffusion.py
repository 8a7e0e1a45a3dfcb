"""A diffusion decoder made of a toy Whisper: trained through the task, saved without what the folder has, loaded."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("espnet2", reason="ESPnet is not installed")

from whisfusion_asr.api import Speech2Text
from whisfusion_asr.data.states import StatesTable, StatesWriter, merge
from whisfusion_asr.data.tokenizer import load_tokenizer
from whisfusion_asr.decoding.given import Given
from whisfusion_asr.errors import UserError
from whisfusion_asr.models.adapter import Acoustics
from whisfusion_asr.tasks.asr import DiffusionASRTask

TEXT = ["the cat saw a house", "a dog takes the boat", "my aunt wants a letter", "the dog saw my aunt"]
WIDTH, FRAMES = 16, 3
CANVAS = {"tokens_per_frame": 0.34, "margin": 2}


def write_set(root: Path, name: str, count: int, tokenizer) -> None:
    """root/data/<name>/text and root/dump/<name>: three frames a token, near a direction of its own."""
    rng, directions = np.random.default_rng(len(name)), np.random.default_rng(7).normal(size=(1000, WIDTH))
    keys = [f"{name}{number:02d}" for number in range(count)]
    texts = {key: TEXT[number % len(TEXT)] for number, key in enumerate(keys)}
    (root / "data" / name).mkdir(parents=True)
    (root / "data" / name / "text").write_text("".join(f"{key} {text}\n" for key, text in texts.items()))
    with StatesWriter(root / "dump" / name, 1) as writer:
        for key, text in texts.items():
            states = np.repeat(directions[tokenizer.encode(text)], FRAMES, axis=0)
            writer.write(key, (states + 0.1 * rng.normal(size=states.shape)).astype(np.float32))
    merge(root / "dump" / name, 1, keys)


@pytest.fixture(scope="module")
def train(toy_whisper: Path, toy_whisper_tokens: Path, tmp_path_factory) -> Callable[..., Path]:
    """train(output_dir, model_conf, **options): the shipped YAML on a toy corpus; `drafts`: that of the drafter."""
    root = tmp_path_factory.mktemp("corpus")
    for name, count in (("train", 16), ("valid", 4)):
        write_set(root, name, count, load_tokenizer(toy_whisper_tokens))
    decoder = {"decoder_conf": {"model": str(toy_whisper)}}
    drafter = {"ctc_conf": {"model": str(toy_whisper), "frames_per_slot": 1, "width": FRAMES}}

    def run(output_dir: Path, model_conf: dict | None = None, drafts: bool = False, **options: object) -> Path:
        conf = output_dir.with_suffix(".yaml")
        base = Path(__file__).resolve().parents[2] / f"conf/train_whisper_{'anchored' if drafts else 'diffusion'}.yaml"
        usual = {} if drafts else {"canvas_conf": CANVAS}
        conf.write_text(yaml.safe_dump({
            "base": str(base), "encoder_conf": {"size": WIDTH}, **(drafter if drafts else decoder),
            "specaug_conf": {"time_masks": 1, "time_width": 1}, "optim_conf": {"lr": 0.01},
            "model_conf": usual | (model_conf or {}),
            # Of random weights the averages are to keep nothing.
            **({} if drafts else {"ema_start_share_of": {"decoder.causal_layers": 0.0}}),
        }))
        words = ["--config", conf, "--output_dir", output_dir, "--token_type", "bpe"]
        words += ["--token_list", toy_whisper_tokens / "tokens.txt", "--bpemodel", toy_whisper_tokens / "tokens.model"]
        for name in ("train", "valid"):
            words += [f"--{name}_data_path_and_name_and_type", f"{root}/dump/{name},states,states"]
            words += [f"--{name}_data_path_and_name_and_type", f"{root}/data/{name}/text,text,text"]
            words += [f"--{name}_shape_file", root / "dump" / name / "shape"]
        defaults = {"ngpu": 0, "num_workers": 0, "batch_size": 4, "max_epoch": 2, "seed": 0, "use_tensorboard": "false",
                    "use_matplotlib": "false"}
        for key, value in (defaults | options).items():
            words += [f"--{key}", *(value if isinstance(value, list) else [value])]
        DiffusionASRTask.main(cmd=[str(word) for word in words])
        return output_dir

    run.root = root
    return run


@pytest.fixture(scope="module")
def trained(train: Callable[..., Path], tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("whisper") / "exp", max_epoch=90)


def test_it_learns_and_is_decoded(trained: Path, train: Callable[..., Path]) -> None:
    """On four sentences it must all but know its training set, through the decoder's own interface."""
    last = json.loads((trained / "finished.json").read_text())["last"]
    assert last["train"]["acc"] > 0.8
    speech2text = Speech2Text(trained, inference={"sampler_conf": {"candidates": 2, "mask_ratios": [1.0, 0.5, 0.3]}})
    states = StatesTable(train.root / "dump" / "valid")
    found = [speech2text.decode_states(key, states[key], 1.0).text for key in sorted(states)]
    pairs = zip(TEXT, found, strict=True)
    right = sum(a == b for text, hyp in pairs for a, b in zip(text.split(), hyp.split(), strict=False))
    assert right >= 10, found


def test_it_keeps_reading_from_left_to_right_and_a_look_mends_a_draft(trained, train, tmp_path) -> None:
    """A draft of wrong words ends as what the network writes one token after another; untrained it is refused."""
    last = json.loads((trained / "finished.json").read_text())["last"]
    assert last["train"]["acc_before"] > 0.8 and last["valid"]["loss_before"] < 1
    conf = {"sampler": "gaps", "sampler_conf": {"looks": None, "gamma": 100.0}}
    speech2text, states = Speech2Text(trained, inference=conf), StatesTable(train.root / "dump" / "valid")
    spec, decoder = speech2text.spec, speech2text.network.decoder
    for key in sorted(states):
        frames = torch.tensor([len(states[key])])
        memory = decoder.read(Acoustics(torch.tensor(states[key])[None].float(), frames), 1)
        ids: list[int] = []
        with torch.no_grad():
            while len(ids) < 9 and spec.eos_id not in ids:
                row = torch.tensor([[*ids, spec.eos_id]])
                ids.append(int(decoder.logits(decoder.hidden_before(row, memory))[0, -1].argmax()))
        wrong = speech2text.tokenizer.encode("my dog takes")
        given = Given(wrong, [False] * len(wrong))
        found = speech2text.decode_states(key, states[key], 1.0, given)
        assert found.token_int == ids[:-1] and found.passes > 1
    plain = train(tmp_path / "exp", {"left_to_right": 0.0}, max_epoch=1)
    with pytest.raises(UserError, match="looks needs a decoder trained with model_conf.left_to_right: set looks to 0"):
        Speech2Text(plain, inference=conf)


def test_another_decoder_drafts_in_one_pass(trained: Path, train: Callable[..., Path], tmp_path: Path) -> None:
    """Slots anchored in time learn the toy corpus; what is frozen stays in the folder; their text is the draft."""
    drafter = train(tmp_path / "drafter", drafts=True, max_epoch=100)
    weights = [name.removeprefix("ema.") for name in torch.load(drafter / "valid.loss.ave.pth")]  # and their averages
    names = {name.split(".")[2] for name in weights if name.startswith("ctc.decoder.")}
    assert names == {"positions", "mask", "head_bias", "blocks", "adapters", "norm"}
    states = StatesTable(train.root / "dump" / "valid")
    alone = Speech2Text(drafter, inference={"sampler": "ctc_greedy"})
    wanted = dict(zip(sorted(states), TEXT, strict=True))
    assert {key: alone.decode_states(key, states[key], 1.0).text for key in states} == wanted
    conf = {"sampler": "gaps", "sampler_conf": {"looks": 0}, "engine_conf": {"draft": 1e-9}}
    speech2text = Speech2Text(trained, inference=conf, draft_dir=drafter)
    found = {key: speech2text.decode_states(key, states[key], 1.0) for key in states}
    assert {key: one.text for key, one in found.items()} == wanted
    assert all(one.passes <= 1 for one in found.values())  # the end of the text is a gap, all else stands


def test_what_is_frozen_stays_in_the_folder(trained: Path) -> None:
    weights = torch.load(trained / "valid.loss.ave.pth")
    names = {name.split(".")[1] for name in weights if name.startswith("decoder.")}
    assert names == {"positions", "mask", "head_bias", "blocks", "adapters", "norm", "causal_layers"}
    config = yaml.safe_load((trained / "config.yaml").read_text(encoding="utf-8"))
    assert config["token_list"][0] == "<|endoftext|>" and (trained / "valid.loss.ave.pth").stat().st_size < 300_000


def test_the_cross_attention_alone_can_be_trained(train: Callable[..., Path], tmp_path: Path) -> None:
    """The paper's first stage."""
    others = ("embed", "positions", "mask", "head_bias", "blocks", "readers", "norm", "causal_layers")
    exp = train(tmp_path / "exp", freeze_param=[f"decoder.{part}" for part in others], max_epoch=1)
    weights = [name.removeprefix("ema.") for name in torch.load(exp / "1epoch.pth")]  # and their averages
    assert {name.split(".")[1] for name in weights if name.startswith("decoder.")} == {"adapters"}


def test_a_training_is_reproducible_and_can_train_everything(train: Callable[..., Path], tmp_path: Path) -> None:
    first, again = (train(tmp_path / name, freeze_param=["decoder.norm"]) for name in ("one", "two"))
    losses = [torch.load(exp / "valid.loss.ave.pth") for exp in (first, again)]
    assert "decoder.embed.weight" in losses[0] and "decoder.readers.0.k_proj.weight" in losses[0]
    assert all(torch.equal(value, losses[1][name]) for name, value in losses[0].items())


@pytest.mark.parametrize(("conf", "message"), [
    ({"visible_noise": 1.0}, r"model_conf.visible_noise: 1.0 must be in \[0, 1\)"),
    ({"left_to_right": -0.5}, "model_conf.left_to_right: -0.5 must be at least 0"),
])  # fmt: skip
def test_wrong_settings_are_named(train: Callable[..., Path], tmp_path: Path, conf: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(tmp_path / "exp", conf)
