"""What a recipe is going to cost, for the dry run: downloads, disk and hours, from sizes alone.

Before the data is there, its sizes come from a comment of run.sh: `# sets: NAME UTTERANCES HOURS, NAME ...`. Hours of
training and decoding are arithmetic: operations of a padded canvas by formula (a multiplication and addition are two),
divided by a rate that is named beside them.
"""

import re
from collections.abc import Mapping
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


def hub_download(place: str) -> tuple[str, ...]:
    """Note on a hub model or file; none for what lies on this machine."""
    if not place or Path(place).exists():
        return ()
    size = f", {HUB_GB[place]:g} GB" if place in HUB_GB else ""
    return (f"downloads: {place} from the Hugging Face hub{size} (nothing if its cache has it)",)


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


def states_size(data: Path, encoder: Path, storage: str) -> tuple[str, ...]:
    """Note on the states of a set whose data is there. encoder: its directory; storage: numbers of the states."""
    table, config = data / "utt2num_samples", encoder / "config.yaml"
    if not table.is_file():
        return ()
    seconds = [int(line.split()[1]) / 16000 for line in table.read_text().splitlines()]
    settings = read_settings(config) if config.is_file() else {}
    width, size = settings.get("output_size"), ""
    if isinstance(width, int):  # Whisper: 50 states a second; an encoder trained here tells when it begins to dump
        whole = settings.get("encoder_conf.keep") == "all" and settings.get("encoder_conf.context") == "padded"
        states = 50 * sum(FULL_WINDOW if whole else second for second in seconds) / settings.get("encoder_conf.pool", 1)
        values = (states + (8 * len(seconds) if storage == "int8" else 0)) * width
        size = f", about {values * BYTES[storage] / 1e9:.3g} GB as {storage}"
    return (f"disk: states of {sum(seconds) / 3600:.2f} hours of audio{size}",)


def dump_costs(size: SetSize | None, encoder: Mapping[str, Any]) -> tuple[str, ...]:
    """Notes on the states of a set that a Whisper not yet imported will write; encoder: its flat settings."""
    name = re.search("|".join(ENCODERS), str(encoder.get("encoder_conf.model", "")))
    if size is None or name is None:
        return ()
    width, layers = ENCODERS[name[0]]
    padded = encoder.get("encoder_conf.context", "padded") == "padded"
    whole = padded and encoder.get("encoder_conf.keep") == "all"
    seconds = size.utterances * FULL_WINDOW if whole else size.hours * 3600
    values = seconds * 50 / encoder.get("encoder_conf.pool", 1) * width
    frames = 50 * (FULL_WINDOW if padded else size.hours * 3600 / size.utterances)
    operations = size.utterances * layers * (24 * width * width * frames + 4 * frames * frames * width)
    return (
        f"disk: states of {size.hours:g} hours of audio, {values / 1e9:.3g} GB for each byte of a stored number",
        f"time: {_hours(operations)}",
    )


def training_hours(size: SetSize | None, settings: Mapping[str, Any], trained: float) -> tuple[str, ...]:
    """Note on a training over a set; trained: operations of the backward pass for each of the forward pass."""
    each = canvas_operations(settings)
    epochs = settings.get("max_epoch")
    if size is None or each is None or epochs is None:
        return ()
    steps = settings.get("num_iters_per_epoch")
    seen = size.utterances * epochs
    if steps is not None:
        seen = min(seen, steps * settings.get("batch_size", 20) * epochs)
    return (f"time: {epochs} epochs of {size.utterances:,} utterances, {_hours(seen * each * (1 + trained))}",)


def decoding_hours(size: SetSize | None, model: Mapping[str, Any], decoding: Mapping[str, Any]) -> tuple[str, ...]:
    """Note on a decoding: candidates times passes, without what is computed once for all candidates."""
    each = canvas_operations(model, shared=False)
    candidates, passes = decoding.get("sampler_conf.candidates"), decoding.get("sampler_conf.mask_ratios")
    if size is None or each is None or candidates is None or passes is None:
        return ()
    operations = size.utterances * candidates * len(passes) * each
    work = f"{size.utterances:,} utterances, {candidates} candidates, {len(passes)} passes"
    return (f"time: {work}, {_hours(operations)}",)


def _hours(operations: float) -> str:
    return f"{operations / RATE / 3600:.2g} hours at {RATE / 1e12:g} TFLOP/s"


def canvas_operations(settings: Mapping[str, Any], frames: int = 1500, shared: bool = True) -> float | None:
    """Operations of one pass of the diffusion decoder's blocks over a fixed canvas; None for another network or canvas.

    frames: encoder states; shared: with the keys and values of the states, which candidates and passes share
    """
    if settings.get("decoder") != "diffusion" or settings.get("model_conf.canvas_conf.fit") != "fixed":
        return None
    needed = ("decoder_conf.size", "decoder_conf.num_blocks", "decoder_conf.ffn_size", "model_conf.canvas_conf.length")
    if any(key not in settings for key in needed):
        return None
    d, blocks, ffn, slots = (settings[key] for key in needed)
    block = 2 * slots * (4 * d * d + 3 * d * ffn) + 4 * slots * slots * d
    states = settings.get("encoder_conf.size")
    if states is not None:
        block += 2 * slots * 2 * d * d + 4 * slots * frames * d + shared * 2 * frames * 2 * d * states
    return float(blocks * block)
