"""What a recipe is going to cost, for the dry run: downloads, disk and hours, from sizes alone.

Before the data is there, its sizes come from a comment of run.sh: `# sets: NAME UTTERANCES HOURS, NAME ...`. Hours of
training and decoding are arithmetic: operations of a padded canvas by formula (a multiplication and addition are two),
divided by a rate that is named beside them.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisfusion_asr.recipe.settings import read_settings

RATE = 100e12  # operations a second: what one recent GPU sustains in bf16 is of this order
# Hub files, GB: Whisper by its parameters (4 bytes each up to medium, 2 after), SMDM by its tensors.
HUB_GB = {
    "openai/whisper-tiny": 0.15, "openai/whisper-base": 0.29, "openai/whisper-small": 0.97,
    "openai/whisper-medium": 3.06, "openai/whisper-large-v3": 3.09, "openai/whisper-large-v3-turbo": 1.62,
    "nieshen/SMDM:mdm_safetensors/mdm-170M-100e18-rsl-0.01.safetensors": 0.88,
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T": 0.0005,
}  # fmt: skip
# Whisper's encoders: width, layers.
ENCODERS = {"tiny": (384, 4), "base": (512, 6), "small": (768, 12), "medium": (1024, 24), "large": (1280, 32)}
BYTES = {"int8": 1, "float16": 2, "float32": 4}  # of a stored number
FULL_WINDOW = 30.0  # seconds of a padded utterance


@dataclass(frozen=True)
class SetSize:
    """utterances: number; hours: of audio."""

    utterances: int
    hours: float


@dataclass(frozen=True)
class Cost:
    """What a step costs: in words, GB on the disk, hours at RATE; 0 where it is not known.

    told: the words name the GB themselves
    """

    what: str
    gigabytes: float = 0.0
    hours: float = 0.0
    told: bool = False

    def line(self, ngpu: int) -> str:
        """The cost as a line. ngpu: devices; the hours are those of a GPU even where it is 0."""
        numbers = [f"about {self.gigabytes:.3g} GB"] if self.gigabytes and not self.told else []
        if self.hours:
            cpu = "" if ngpu else " of a GPU; --ngpu is 0: a CPU needs many times as long"
            numbers.append(f"{self.hours:.2g} hours at {RATE / 1e12:g} TFLOP/s{cpu}")
        return ", ".join([self.what, *numbers])


def hub_download(place: str) -> tuple[Cost, ...]:
    """Cost of a hub model or file; none for what lies on this machine, or is named as if it did."""
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+(:.+)?", place) or Path(place).exists():
        return ()
    size = f", {HUB_GB[place]:g} GB" if place in HUB_GB else ""
    words = f"downloads: {place} from the Hugging Face hub{size} (nothing if its cache has it)"
    return (Cost(words, HUB_GB.get(place, 0.0), told=True),)


def set_size(data: Path, script: Path = Path("run.sh")) -> SetSize | None:
    """Size of a data directory, or while it is missing what the recipe says of it. None where neither is known."""
    table = data / "utt2num_samples"
    if table.is_file():
        samples = [int(line.split()[1]) for line in table.read_text().splitlines()]
        return SetSize(len(samples), sum(samples) / 16000 / 3600)
    text = script.read_text(encoding="utf-8") if script.is_file() else ""
    for line in re.findall(r"^#\s*sets:\s*(.+)$", text, re.MULTILINE):
        for name, utterances, hours in re.findall(r"(\S+) (\d+) ([\d.]+)", line):
            if name == data.name:
                return SetSize(int(utterances), float(hours))
    return None


def encoder_facts(encoder: Path, settings: Mapping[str, Any], whisper_dir: str) -> dict[str, Any]:
    """Flat settings of an encoder, with `output_size` and `layers` as far as they are known before it runs.

    encoder: its directory, which tells all once it was imported; settings: those of its YAML
    whisper_dir: weights in the place of the YAML's model
    """
    if (encoder / "config.yaml").is_file():
        return read_settings(encoder / "config.yaml")
    place = Path(whisper_dir or str(settings.get("encoder_conf.model", "")))
    if (place / "config.json").is_file():
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        return dict(settings) | {"output_size": config.get("d_model"), "layers": config.get("encoder_layers")}
    name = re.search(rf"(?<![a-z])({'|'.join(ENCODERS)})(?![a-z])", place.absolute().name)
    sizes = ENCODERS[name[1]] if name and settings.get("encoder") == "whisper" else (None, None)
    return dict(settings) | dict(zip(("output_size", "layers"), sizes, strict=True))


def dump_costs(size: SetSize | None, encoder: Mapping[str, Any], storage: str) -> tuple[Cost, ...]:
    """Costs of the states of a set; encoder: see `encoder_facts`; storage: numbers of the states."""
    if size is None:
        return ()
    what = f"disk: states of {size.hours:.5g} hours of audio"
    width, layers = encoder.get("output_size"), encoder.get("layers")
    if not isinstance(width, int):  # an encoder trained here tells when it begins to dump
        return (Cost(what),)
    speech, tail = size.hours * 3600, size.utterances * encoder.get("encoder_conf.tail_seconds", 1.0)
    padded = encoder.get("encoder_conf.context", "padded") == "padded"
    heard = size.utterances * FULL_WINDOW if padded else speech + tail
    kept = heard if encoder.get("encoder_conf.keep") == "padded" else speech
    states = 50 * kept / encoder.get("encoder_conf.pool", 1)  # Whisper: 50 states a second
    values = (states + (8 * size.utterances if storage == "int8" else 0)) * width
    disk = Cost(f"{what} as {storage}", values * BYTES[storage] / 1e9)
    if not isinstance(layers, int) or not size.utterances:
        return (disk,)
    frames = 50 * heard / size.utterances
    operations = size.utterances * layers * (24 * width * width * frames + 4 * frames * frames * width)
    return disk, Cost("time: encoding", hours=operations / RATE / 3600)


def training_costs(size: SetSize | None, vocab: int | None, settings: Mapping[str, Any]) -> tuple[Cost, ...]:
    """Costs of a training over a set; vocab: V, None where it is not known yet."""
    # Frozen blocks are passed backwards too, though their weights need no gradient.
    frozen = "decoder.blocks" in (settings.get("freeze_param") or ())
    return training_hours(size, settings, 1.5 if frozen else 2.0) + training_disk(vocab, settings)


def training_hours(size: SetSize | None, settings: Mapping[str, Any], trained: float) -> tuple[Cost, ...]:
    """Cost of a training over a set; trained: operations of the backward pass for each of the forward pass."""
    each = canvas_operations(settings)
    epochs = settings.get("max_epoch")
    if size is None or each is None or epochs is None:
        return ()
    steps = settings.get("num_iters_per_epoch")
    seen = size.utterances * epochs
    if steps is not None:
        seen = min(seen, steps * settings.get("batch_size", 20) * epochs)
    work = f"time: {epochs} epochs of {size.utterances:,} utterances"
    return (Cost(work, hours=seen * each * (1 + trained) / RATE / 3600),)


def training_disk(vocab: int | None, settings: Mapping[str, Any]) -> tuple[Cost, ...]:
    """Cost of a diffusion decoder's files: two training states (weights, averages, moments) and the kept epochs.

    vocab: V, None where it is not known yet. Frozen parts are not written; a CTC head's part is left out as small.
    """
    d, blocks, ffn, _ = _sizes(settings) or (0, 0, 0, 0)
    states = settings.get("encoder_conf.size")
    if vocab is None or not d or (settings.get("encoder") and states is None):
        return ()
    parts = {
        "decoder.embed": (vocab + 1) * d, "decoder.blocks": blocks * (4 * d * d + 3 * d * ffn),
        "decoder.head": vocab * d, "decoder.adapters": 0 if states is None else 2 * blocks * d * (d + states),
    }  # fmt: skip
    frozen = tuple(f"{name}." for name in settings.get("freeze_param") or ())
    weights = sum(number for part, number in parts.items() if not f"{part}.".startswith(frozen))
    averages = 1 if settings.get("ema_decay") else 0
    moments = 1 if settings.get("optim") == "muon" else 2
    kept = settings.get("keep_nbest_models", 10)
    epochs = (max(kept) if isinstance(kept, list) else kept) + 2  # the newest, and their average
    each = 2 * (1 + averages + moments) + epochs * (1 + averages)
    return (Cost(f"disk: {weights / 1e6:.3g} M trained weights, two training states, {epochs} files of weights",
                 4 * weights * each / 1e9),)  # fmt: skip


def decoding_hours(size: SetSize | None, model: Mapping[str, Any], decoding: Mapping[str, Any]) -> tuple[Cost, ...]:
    """Cost of a decoding: candidates times passes, without what is computed once for all candidates."""
    each = canvas_operations(model, shared=False)
    candidates, passes = decoding.get("sampler_conf.candidates"), decoding.get("sampler_conf.mask_ratios")
    if size is None or each is None or candidates is None or passes is None:
        return ()
    operations = size.utterances * candidates * len(passes) * each
    work = f"time: {size.utterances:,} utterances, {candidates} candidates, {len(passes)} passes"
    return (Cost(work, hours=operations / RATE / 3600),)


def told_download(text: str) -> Cost:
    """Cost of a corpus, from its script's comment `# downloads: 61 GB from ...`; unpacked, it may take more."""
    size = re.match(r"([\d.]+) GB\b", text)
    return Cost(f"downloads: {text}", float(size[1]) if size else 0.0, told=True)


def total(costs: Iterable[Cost], ngpu: int) -> str:
    """Sum of what is known of some costs, for the end of the dry run."""
    costs = list(costs)
    sums = Cost("in total, where sizes are known", sum(c.gigabytes for c in costs), sum(c.hours for c in costs))
    return sums.line(ngpu)


def canvas_operations(settings: Mapping[str, Any], frames: int = 1500, shared: bool = True) -> float | None:
    """Operations of one pass of the diffusion decoder's blocks over a fixed canvas; None for another network or canvas.

    frames: encoder states; shared: with the keys and values of the states, which candidates and passes share
    """
    d, blocks, ffn, slots = _sizes(settings) or (0, 0, 0, 0)
    if not slots or settings.get("model_conf.canvas_conf.fit") != "fixed":
        return None
    block = 2 * slots * (4 * d * d + 3 * d * ffn) + 4 * slots * slots * d
    states = settings.get("encoder_conf.size")
    if states is not None:
        block += 2 * slots * 2 * d * d + 4 * slots * frames * d + shared * 2 * frames * 2 * d * states
    return float(blocks * block)


def _sizes(settings: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    """D, blocks, hidden width and slots (0 of a canvas that is not fixed) of a diffusion decoder."""
    needed = ("decoder_conf.size", "decoder_conf.num_blocks", "decoder_conf.ffn_size")
    if settings.get("decoder") != "diffusion" or any(key not in settings for key in needed):
        return None
    d, blocks, ffn = (settings[key] for key in needed)
    return d, blocks, ffn, settings.get("model_conf.canvas_conf.length", 0)
