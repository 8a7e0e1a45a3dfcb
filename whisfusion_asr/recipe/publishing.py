"""Stage 8: the trained model as one file, and its upload if that is asked for."""

from collections.abc import Iterator

from whisfusion_asr.errors import UserError
from whisfusion_asr.recipe.jobs import Job
from whisfusion_asr.recipe.settings import find_config, read_decoding_settings
from whisfusion_asr.recipe.step import Step
from whisfusion_asr.recipe.steps import WEIGHTS, Steps


def publish(steps: Steps) -> Iterator[Step]:
    """Pack the model with the first decoding configuration; the card holds the scores of all that were asked for."""
    o, layout = steps.options, steps.layout
    if o.asr_task != "diffusion":
        raise UserError(f"--asr_task {o.asr_task}: stage publish packs models of this package; for ESPnet's there is "
                        "espnet2.bin.pack")
    config = o.words("inference_config")[0]
    scores = {layout.decoding(c, name) / "score_wer" / "result.txt": "score" for c, name in steps.decoded()}
    weights = {layout.model / file: "train_decoder" for file in (o.inference_model, "config.yaml")}
    if o.feats_type == "states":
        trained = o.encoder_config and not layout.encoder_is_imported  # an imported one's config has its checksum
        files = ("config.yaml", WEIGHTS) if trained else ("config.yaml",)
        weights |= {layout.encoder / file: "parts" for file in files}
    settings = {"decoding": read_decoding_settings(find_config(config), o.inference_args)}
    yield Step(
        title=layout.packed.name,
        out=layout.model,
        jobs=(Job(tuple(steps.commands.pack(config))),),
        settings=settings | {"license": o.publish_license, "hub_repo": o.hub_repo},
        reads=weights | steps.drafts_from | scores,
        writes=(layout.packed,),
        stamp_name=".publish.stamp.json",
        notes=(f"uploads {layout.packed} to the hub, {o.hub_repo}",) if o.hub_repo else (),
    )
