"""Toy data and settings for trainings of a second: 12 utterances of letters, states that spell them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from whisfusion_asr.data.states import StatesWriter, merge

LETTERS = "abcd"
WIDTH = 8
FRAMES_PER_LETTER = 3


def write_set(root: Path, name: str, count: int, seed: int) -> None:
    """root/data/<name>/text and root/dump/<name>: each letter is three frames near its own direction."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(7).normal(size=(len(LETTERS), WIDTH))
    data, keys, texts = root / "data" / name, [], []
    data.mkdir(parents=True)
    with StatesWriter(root / "dump" / name, 1) as writer:
        for number in range(count):
            word = rng.integers(len(LETTERS), size=rng.integers(2, 6))
            states = np.repeat(directions[word], FRAMES_PER_LETTER, axis=0)
            key = f"{name}{number:02d}"
            writer.write(key, (states + 0.1 * rng.normal(size=states.shape)).astype(np.float32))
            keys.append(key)
            texts.append(f"{key} {''.join(LETTERS[i] for i in word)}\n")
    merge(root / "dump" / name, 1, keys)
    (data / "text").write_text("".join(texts), encoding="utf-8")


def write_audio(directory: Path) -> None:
    """wav.scp of a tone for each utterance of the text, half a second long, and utt2num_samples."""
    keys = [line.split()[0] for line in (directory / "text").read_text(encoding="utf-8").splitlines()]
    for number, key in enumerate(keys):
        tone = 0.1 * np.sin(np.arange(8000) * 0.05 * (number + 1))
        soundfile.write(directory / f"{key}.wav", tone, 16000)
    (directory / "wav.scp").write_text("".join(f"{key} {directory / key}.wav\n" for key in keys), encoding="utf-8")
    (directory / "utt2spk").write_text("".join(f"{key} {key}\n" for key in keys), encoding="utf-8")
    (directory / "utt2num_samples").write_text("".join(f"{key} 8000\n" for key in keys), encoding="utf-8")


def write_corpus(root: Path) -> Path:
    """Train and valid sets and a token list under root; returns root."""
    write_set(root, "train", 12, seed=1)
    write_set(root, "valid", 4, seed=2)
    write_audio(root / "data" / "train")
    (root / "tokens.txt").write_text("\n".join(["<eos>", "<unk>", "<space>", *LETTERS]) + "\n", encoding="utf-8")
    return root


ADAPTER_STEP = {
    "encoder": "states",
    "encoder_conf": {"size": WIDTH},
    "decoder": "diffusion",
    "decoder_conf": {"size": 16, "num_blocks": 2, "attention_heads": 2, "ffn_size": 24},
    "model_conf": {"canvas_conf": {"fit": "fixed", "length": 8}},
    "optim": "adamw",
    "optim_conf": {"lr": 0.01},
}


def command_line(corpus: Path, output_dir: Path, config: dict | None = None, **options: object) -> list[str]:
    """Command line of a training on the toy states (audio=True: on the toy waves, for validation too).

    Keyword arguments are options, a list gives several words.
    """
    conf = output_dir.parent / f"{output_dir.name}.yaml"
    conf.write_text(yaml.safe_dump({**ADAPTER_STEP, **(config or {})}), encoding="utf-8")
    tokens = ["--token_list", corpus / "tokens.txt", "--token_type", "char"]
    words = ["--config", conf, "--output_dir", output_dir, *tokens]
    audio = options.pop("audio", False)
    for name in ("train", "valid"):
        data = "train" if audio else name
        source = f"{corpus}/data/train,speech,audio" if audio else f"{corpus}/dump/{name},states,states"
        shape = corpus / "data" / "train" / "utt2num_samples" if audio else corpus / "dump" / name / "shape"
        shape = options.pop(f"{name}_shape_file", shape)
        words += [f"--{name}_data_path_and_name_and_type", source, f"--{name}_shape_file", shape]
        words += [f"--{name}_data_path_and_name_and_type", f"{corpus}/data/{data}/text,text,text"]
        if (corpus / "data" / data / "utt2lang").exists():
            words += [f"--{name}_data_path_and_name_and_type", f"{corpus}/data/{data}/utt2lang,language,text"]
    defaults = {
        "ngpu": 0, "num_workers": 0, "batch_type": "sorted", "batch_size": 4, "max_epoch": 2, "seed": 0,
        "use_matplotlib": "false", "use_tensorboard": "false", "resume": "true", "keep_nbest_models": 2,
    }
    for key, value in {**defaults, **options}.items():
        words += [f"--{key}", *(value if isinstance(value, list) else [value])]
    return [str(word) for word in words]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of the toy corpus."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def command(corpus: Path) -> Callable[..., list[str]]:
    """command(output_dir, config, **options): the command line of a training on the toy corpus."""

    def line(output_dir: Path, config: dict | None = None, **options: object) -> list[str]:
        return command_line(corpus, output_dir, config, **options)

    return line


@pytest.fixture(scope="session")
def train(command: Callable[..., list[str]]) -> Callable[..., Path]:
    """train(output_dir, config, **options): run a training in this process; returns its directory."""
    from whisfusion_asr.tasks.asr import DiffusionASRTask

    def run(output_dir: Path, config: dict | None = None, **options: object) -> Path:
        DiffusionASRTask.main(cmd=command(output_dir, config, **options))
        return output_dir

    return run
