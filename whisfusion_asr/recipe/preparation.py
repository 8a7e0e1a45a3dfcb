"""Stage 0: the step that makes the data directories of all sets, checked and ready for the stages behind it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from whisfusion_asr.recipe.estimates import told_download
from whisfusion_asr.recipe.jobs import Job
from whisfusion_asr.recipe.settings import described_downloads
from whisfusion_asr.recipe.step import Step

if TYPE_CHECKING:
    from whisfusion_asr.recipe.steps import Steps

_DATA_FILES = ("wav.scp", "text", "utt2spk", "utt2num_samples")


def data_steps(steps: "Steps") -> Iterator[Step]:
    """The corpus' own script; sets are labelled if asked, validated, and filtered unless for tests; then perturbed."""
    o, run = steps.options, steps.commands
    given = [o.train_set if name == o.training_set else name for name in steps.sets]
    jobs = [Job(tuple(run.local_data()))]
    for name in given:
        jobs += [*(_labelling(steps, name) if o.labels else ()), *_checking(steps, name)]
    if o.training_set != o.train_set:
        jobs += [Job(tuple(run.perturb_speed())), *_checking(steps, o.training_set)]
    names = ["corpus_dir", "local_data_opts", "min_wav_duration", "max_wav_duration", "max_data_loss"]
    names += ["labels", "relabel", "label_args", "whisper_dir", "lang"] if o.labels else []
    names += ["speed_perturb_factors"] if o.speed_perturb_factors else []
    script = Path("local/data.sh")
    own = sorted(p for p in (*Path("local").rglob("*"), Path("db.sh")) if p.is_file() and p.suffix != ".pyc")
    written = dict.fromkeys((*given, *steps.sets))
    yield Step(
        title=" ".join(steps.sets),
        out=Path(o.datadir),
        jobs=tuple(jobs),
        settings={name: getattr(o, name) for name in names} | {"sets": steps.sets},
        reads=dict.fromkeys([script, *own], ""),
        writes=tuple(steps.layout.data(name) / file for name in written for file in _DATA_FILES),
        costs=() if o.corpus_dir else tuple(map(told_download, described_downloads(script))),
    )


def _checking(steps: "Steps", name: str) -> Iterator[Job]:
    """A test set keeps all of its utterances."""
    o, run = steps.options, steps.commands
    yield Job(tuple(run.validate(name)))
    if name in (o.train_set, o.training_set, o.valid_set):
        yield Job(tuple(run.filter(name)))


def _labelling(steps: "Steps", name: str) -> tuple[Job, Job]:
    o, run = steps.options, steps.commands
    log = steps.layout.labels(name) / "logdir" / "label.JOB.log"
    gpu = {"gpus": o.ngpu, "submit": "cuda_cmd" if o.ngpu else "decode_cmd"}
    return (Job(tuple(run.label(name, "--job", "JOB")), log, o.nj, **gpu),
            Job(tuple(run.label(name, "--merge", "true"))))
