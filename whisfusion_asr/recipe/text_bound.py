"""Stage 1: the step that tells how well the trained text model predicts the validation set's sentences."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from whisfusion_asr.recipe.jobs import Job
from whisfusion_asr.recipe.settings import find_config, read_settings
from whisfusion_asr.recipe.step import Step

if TYPE_CHECKING:
    from whisfusion_asr.recipe.steps import Steps


def text_bound_steps(steps: "Steps") -> Iterator[Step]:
    """One step, none for a model that is no diffusion model.

    It is apart from the training, so that an older model is evaluated and not trained again.
    """
    o, layout, out = steps.options, steps.layout, steps.layout.text_model
    settings = read_settings(find_config(o.text_config), o.text_args)
    if settings.get("decoder", "diffusion") != "diffusion":
        return
    words, log = tuple(steps.commands.text_bound()), out / "text_bound.log"
    texts = [layout.text(name) / "text" for name in (o.valid_set, o.training_set)]
    yield Step(
        title=f"bound of {out.name}",
        out=out,
        jobs=(Job(words, log, submit="cuda_cmd" if o.ngpu else "train_cmd", gpus=min(o.ngpu, 1)),),
        settings={"sets": [o.valid_set, o.training_set]},
        reads=dict.fromkeys([*texts, out / "valid.loss.ave.pth", out / "config.yaml"], "parts"),
        writes=(out / "text_bound.json",),
        stamp_name=".bound.stamp.json",
    )
