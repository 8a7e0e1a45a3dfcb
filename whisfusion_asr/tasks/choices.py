"""What can be named in YAML: ESPnet's encoders beside ours, our optimiser, schedules and data types."""

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from whisfusion_asr.tasks import espnet_compat  # noqa: F401  (first: makes espnet2 importable)

# isort: split
from espnet2.schedulers.abs_scheduler import AbsBatchStepScheduler, AbsEpochStepScheduler
from espnet2.tasks.abs_task import optim_classes, scheduler_classes
from espnet2.train.class_choices import ClassChoices
from espnet2.train.dataset import DATA_TYPES

from whisfusion_asr.models.build import CTCS, DECODERS, ENCODERS, FRONTENDS, SPECAUGS
from whisfusion_asr.training.muon import Muon
from whisfusion_asr.training.schedules import EpochCosine, WarmupCosine, WarmupHoldLinear


class EspnetEncoder(nn.Module):
    """An encoder of ESPnet behind the interface of ours: features in, states and lengths out.

    input_size: F; conf: the keys of ESPnet's own encoder_conf.
    """

    source: ClassVar[str]

    def __init__(self, input_size: int, **conf: Any) -> None:
        super().__init__()
        module, name = self.source.rsplit(".", 1)
        self.body = getattr(importlib.import_module(module), name)(input_size, **conf)  # late: costs seconds
        self.output_size: int = self.body.output_size()

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features: (B, T, F); lengths: (B,). Returns states (B, T', D), lengths (B,)."""
        states, lengths, _ = self.body(features, lengths)
        return states, lengths


class EspnetConformer(EspnetEncoder):
    """espnet2's conformer."""

    source = "espnet2.asr.encoder.conformer_encoder.ConformerEncoder"


class EspnetEBranchformer(EspnetEncoder):
    """espnet2's E-Branchformer."""

    source = "espnet2.asr.encoder.e_branchformer_encoder.EBranchformerEncoder"


class EspnetTransformer(EspnetEncoder):
    """espnet2's transformer."""

    source = "espnet2.asr.encoder.transformer_encoder.TransformerEncoder"


def read_audio_table(path: str) -> Mapping[str, np.ndarray]:
    """Data type `audio`: a Kaldi data directory, utterance -> waveform at 16 kHz."""
    from whisfusion_asr.data.audio import AudioTable

    return AudioTable(path)


def read_states_table(path: str) -> Mapping[str, np.ndarray]:
    """Data type `states`: a directory of dumped encoder states, utterance -> (T, D)."""
    from whisfusion_asr.data.states import StatesTable

    return StatesTable(path)


ENCODERS.update(conformer=EspnetConformer, e_branchformer=EspnetEBranchformer, transformer=EspnetTransformer)
optim_classes["muon"] = Muon
scheduler_classes.update(
    warmup_cosine=WarmupCosine, warmup_hold_linear=WarmupHoldLinear, epoch_cosine=EpochCosine
)
# By registration, not inheritance: the room of schedules does not know ESPnet.
AbsBatchStepScheduler.register(WarmupCosine)
AbsBatchStepScheduler.register(WarmupHoldLinear)
AbsEpochStepScheduler.register(EpochCosine)
DATA_TYPES["audio"] = {"func": read_audio_table, "kwargs": [], "help": "a Kaldi data directory: any audio, at 16 kHz"}
DATA_TYPES["states"] = {"func": read_states_table, "kwargs": [], "help": "a directory of dumped encoder states"}

frontend_choices = ClassChoices("frontend", FRONTENDS)
specaug_choices = ClassChoices("specaug", SPECAUGS)
encoder_choices = ClassChoices("encoder", ENCODERS)
ctc_choices = ClassChoices("ctc", CTCS)
decoder_choices = ClassChoices("decoder", DECODERS)
