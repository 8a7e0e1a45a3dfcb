"""Toy data and settings for trainings of a second: 12 utterances of letters, states that spell them."""

from pathlib import Path

import numpy as np
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


def write_corpus(root: Path) -> Path:
    """Train and valid sets and a token list under root; returns root."""
    write_set(root, "train", 12, seed=1)
    write_set(root, "valid", 4, seed=2)
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


def command(corpus: Path, output_dir: Path, config: dict | None = None, **options: object) -> list[str]:
    """Command line of a training on the toy states; keyword arguments are options, lists several words."""
    conf = output_dir.parent / f"{output_dir.name}.yaml"
    conf.write_text(yaml.safe_dump({**ADAPTER_STEP, **(config or {})}), encoding="utf-8")
    tokens = ["--token_list", corpus / "tokens.txt", "--token_type", "char"]
    words = ["--config", conf, "--output_dir", output_dir, *tokens]
    for name in ("train", "valid"):
        words += [f"--{name}_data_path_and_name_and_type", f"{corpus}/dump/{name},states,states"]
        words += [f"--{name}_data_path_and_name_and_type", f"{corpus}/data/{name}/text,text,text"]
        words += [f"--{name}_shape_file", corpus / "dump" / name / "shape"]
    defaults = {
        "ngpu": 0, "num_workers": 0, "batch_type": "sorted", "batch_size": 4, "max_epoch": 2, "seed": 0,
        "use_matplotlib": "false", "use_tensorboard": "false", "resume": "true", "keep_nbest_models": 2,
    }
    for key, value in {**defaults, **options}.items():
        words += [f"--{key}", *(value if isinstance(value, list) else [value])]
    return [str(word) for word in words]
