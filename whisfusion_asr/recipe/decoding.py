"""Stage 5: the step that decodes one set with one configuration, by the recipe's model or the original Whisper."""

from pathlib import Path
from typing import TYPE_CHECKING

from whisfusion_asr.recipe.estimates import decoding_hours, set_size
from whisfusion_asr.recipe.jobs import Job
from whisfusion_asr.recipe.step import Step

if TYPE_CHECKING:
    from whisfusion_asr.recipe.steps import Steps


def decoding_step(steps: "Steps", config: str, name: str) -> Step:
    """Decode a set. A configuration with `decoder: whisper` is for the original Whisper and needs --whisper_dir."""
    o, data, out = steps.options, steps.layout.data(name), steps.layout.decoding(config, name)
    settings, commands = steps.decoding_settings(config), steps.commands
    count = steps.jobs_of(name, o.inference_nj)
    before: list[Job] = []
    if settings.get("decoder") == "whisper":
        o.need("whisper_dir", "decode")
        one = commands.decode_original(config, name, count, "--job", "JOB")
        merge = commands.decode_original(config, name, count, "--merge", "true")
        settings |= {"whisper_dir": o.whisper_dir}
        segments = data / "segments"
        reads = {data / "wav.scp": "data"} | ({segments: "data"} if segments.is_file() else {})
    else:
        one, merge = commands.decode(config, name, count), commands.decode_merge(config, name, count)
        before = [Job(tuple(commands.calibrate()))]
        settings |= {"model_file": o.inference_model} | ({"trace": True} if o.inference_trace else {})
        settings |= {"dtype": o.inference_dtype} if o.inference_dtype != "float32" else {}
        reads = _model_and_source(steps, name)
    own = (data / "utt2spk", data / "utt2num_samples", *steps.layout.utt2lang(name))
    gpu = {"gpus": o.ngpu, "submit": "cuda_cmd" if o.ngpu else "decode_cmd"}
    return Step(
        title=f"{out.parent.name}/{name}",
        out=out,
        jobs=(*before, Job(tuple(one), out / "logdir" / "decode.JOB.log", count, **gpu), Job(tuple(merge))),
        settings=settings,
        reads=reads | dict.fromkeys(own, "data"),
        writes=tuple(out / file for file in ("text", "token", "score")),
        keys=(data / "utt2spk", out / "text"),
        work=("text",),
        tag="inference_tag",
        record=out.parent,
        costs=decoding_hours(set_size(data), steps.model_settings(), settings),
    )


def _model_and_source(steps: "Steps", name: str) -> dict[Path, str]:
    """What a decoding with the recipe's own model reads, with the stage that writes it."""
    o, data, states = steps.options, steps.layout.data(name), steps.layout.states(name)
    source = (
        {states / file: "dump" for file in ("states.scp", "shape", "meta.json")}
        if o.feats_type == "states"
        else {data / "wav.scp": "data"}
    )
    model = {steps.layout.model / file: "train_decoder" for file in (o.inference_model, "config.yaml")}
    return source | model | steps.drafts_from | dict.fromkeys(steps.layout.utt2lang(name), "data")
