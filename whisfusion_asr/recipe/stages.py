"""The table of stages. Numbers are public and never change."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from whisfusion_asr.errors import UserError
from whisfusion_asr.recipe import espnet
from whisfusion_asr.recipe.comparison import compare_steps
from whisfusion_asr.recipe.options import Options
from whisfusion_asr.recipe.preparation import data_steps
from whisfusion_asr.recipe.publishing import publish
from whisfusion_asr.recipe.step import Step
from whisfusion_asr.recipe.steps import Steps


@dataclass(frozen=True)
class Stage:
    """A line of the table. left_out: what of it the options make superfluous and why, empty if nothing."""

    number: int
    name: str
    reads: str
    writes: str
    time: str
    steps: Callable[[Steps], Iterator[Step]]
    needs: tuple[str, ...] = ("train_set", "valid_set")
    other_name: str = ""
    left_out: Callable[[Steps], str] = lambda _: ""


STAGES = (
    Stage(0, "data", "the corpus, local/data.sh", "data/<set>", "minutes; hours for a download", data_steps),
    Stage(1, "parts", "data/<train>/text", "token model, encoder, text model", "minutes to a day", Steps.parts),
    Stage(2, "dump", "data/<set>, encoder", "dump/states/<set>", "1/10 to 1/200 of the audio", Steps.dump),
    Stage(
        3, "train_adapter", "dump, text model", "exp/<tag>_adapter", "minutes to a day", Steps.train_adapter,
        other_name="stage1", left_out=Steps.no_adapters,
    ),
    Stage(
        4, "train_decoder", "dump, exp/<tag>_adapter", "exp/<tag>", "minutes to days", espnet.train_decoder,
        other_name="stage2",
    ),
    Stage(
        5, "decode", "dump, exp/<tag>", "exp/<tag>/<decoding>/<set>", "minutes", espnet.decode,
        needs=("test_sets", "inference_config"),
    ),
    Stage(
        6, "score", "decoded and reference text", "score_{wer,cer,ter}, RESULTS.md", "seconds", Steps.score,
        needs=("test_sets", "inference_config"),
    ),
    Stage(
        7, "compare", "scores of several systems", "exp/COMPARISON.md", "seconds", compare_steps,
        needs=("test_sets",),
    ),
    Stage(
        8, "publish", "exp/<tag>, encoder, scores", "exp/<tag>/model.tar, a hub", "seconds", publish,
        needs=("inference_config",),
    ),
)  # fmt: skip
_USUAL_LAST = 6  # what comes later is asked for by name


def stage_list() -> str:
    """The table that `--stage list` prints."""
    rows = [("", "stage", "reads", "writes", "typical time")]
    for stage in STAGES:
        also = f" ({stage.other_name})" if stage.other_name else ""
        rows.append((str(stage.number), stage.name + also, stage.reads, stage.writes, stage.time))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def find_stage(text: str, option: str) -> Stage:
    """Stage of a number or name; raises UserError for an unknown one."""
    for stage in STAGES:
        if text in (str(stage.number), stage.name, stage.other_name or None):
            return stage
    names = ", ".join(f"{stage.number} {stage.name}" for stage in STAGES)
    raise UserError(f"--{option} {text}: no such stage; there are {names}")


def chosen_stages(options: Options) -> list[Stage]:
    """Stages that the options ask for, in order; raises UserError when there is none."""
    first = find_stage(options.stage, "stage")
    # A large number means "to the end" for people who know ESPnet's default 10000.
    to_end = options.stop_stage.isdigit() and int(options.stop_stage) > STAGES[-1].number
    if not options.stop_stage:
        last = max(STAGES[_USUAL_LAST], first, key=lambda stage: stage.number)
    else:
        last = STAGES[-1] if to_end else find_stage(options.stop_stage, "stop_stage")
    skipped = {find_stage(text, "skip_stages").number for text in options.words("skip_stages")}
    if first.number > last.number:
        raise UserError(f"--stage {first.number} comes after --stop_stage {last.number}: nothing to run")
    stages = [stage for stage in STAGES[first.number : last.number + 1] if stage.number not in skipped]
    for stage in stages:
        for name in stage.needs:
            options.need(name, f"{stage.number} {stage.name}")
    return stages
