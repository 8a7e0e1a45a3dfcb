"""Stages train_decoder and decode of the controls that ESPnet itself trains and decodes, from the same data.

`--asr_task espnet` is its hybrid CTC/attention model (or whatever the YAML says), `espnet_maskctc` its Mask-CTC. They
learn from the audio (`--feats_type raw`) or from the same dumped states as this package's decoder (`states`; the YAML
then gives their width as `input_size`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisfusion_asr.errors import UserError
from whisfusion_asr.recipe.jobs import Job
from whisfusion_asr.recipe.settings import find_config, read_decoding_settings, read_settings, split_arguments
from whisfusion_asr.recipe.step import Step
from whisfusion_asr.recipe.steps import Steps

INFERENCE = {"espnet": "asr_inference", "espnet_maskctc": "asr_inference_maskctc"}  # programs by --asr_task


def train_decoder(steps: Steps) -> Iterator[Step]:
    """Stage 4: this package's decoder, or the whole model of ESPnet."""
    yield from EspnetSteps(steps).train() if steps.options.asr_task in INFERENCE else steps.train_decoder()


def decode(steps: Steps) -> Iterator[Step]:
    """Stage 5: every test set with every decoding configuration."""
    yield from EspnetSteps(steps).decode() if steps.options.asr_task in INFERENCE else steps.decode()


@dataclass(frozen=True)
class EspnetSteps:
    """Steps and command lines of ESPnet's own programs."""

    steps: Steps

    def train(self) -> Iterator[Step]:
        """The token list in ESPnet's order, then the training. raises UserError: tokens that ESPnet cannot make"""
        o, layout = self.steps.options, self.steps.layout
        self._check_tokens()
        config = find_config(o.need("asr_config", "train_decoder"))
        settings, out = read_settings(config, o.asr_args), layout.model
        sets = (o.training_set, o.valid_set)
        epochs = settings.get("max_epoch", 40)  # ESPnet's default
        job = Job(tuple(self._train_words(config)), out / "train.log", submit="cuda_cmd", gpus=o.ngpu,
                  nodes=o.num_nodes, epochs=epochs)
        yield Step(
            title=f"training {out.name}",
            out=out,
            jobs=(Job(tuple(self._token_words())), job),
            settings=settings | {"seed": o.seed, "tokens": str(layout.tokens), "sets": list(sets)},
            reads={path: stage for name in sets for path, stage in self._training_files(name).items()}
            | {layout.tokens / "tokens.txt": "parts"},
            writes=(out / "config.yaml", out / o.inference_model),
            work=("*.pth",),
            tag="asr_tag",
            training=True,
            record=out,
            notes=(f"settings: {config}; ESPnet's own model and trainer",),
        )

    def decode(self) -> Iterator[Step]:
        """Every set with every configuration: split into jobs, decoded, joined."""
        o = self.steps.options
        o.need("inference_config", "decode")
        for config in o.words("inference_config"):
            for name in o.words("test_sets"):
                yield self._decoding(config, name)

    def _decoding(self, config: str, name: str) -> Step:
        o, layout = self.steps.options, self.steps.layout
        data, out = layout.data(name), layout.decoding(config, name)
        count = self.steps.jobs_of(name, o.inference_nj)
        gpu = {"gpus": o.ngpu, "submit": "cuda_cmd" if o.ngpu else "decode_cmd"}
        split = self.steps.commands.module("data", "split", data, count)
        array = Job(tuple(self._decode_words(config, name, count)), out / "logdir" / "decode.JOB.log", count, **gpu)
        model = {layout.model / file: "train_decoder" for file in (o.inference_model, "config.yaml")}
        states = {} if self._hears else {layout.states(name) / "states.scp": "dump"}
        return Step(
            title=f"{out.parent.name}/{name}",
            out=out,
            jobs=(Job(tuple(split)), array, Job(tuple(self._merge_words(config, name, count)))),
            settings=self._settings(config) | {"model_file": o.inference_model},
            reads={data / file: "data" for file in ("wav.scp", "utt2spk", "utt2num_samples")} | states | model,
            writes=tuple(out / file for file in ("text", "token", "score", "meta.json")),
            keys=(data / "utt2spk", out / "text"),
            work=("text",),
            tag="inference_tag",
            record=out.parent,
        )

    @property
    def _hears(self) -> bool:
        """True for a model that learns from the audio, False for one on the states of the frozen encoder."""
        return self.steps.options.feats_type == "raw"

    def _speech(self, name: str) -> tuple[Path, str]:
        """Where the speech of a set lies, and ESPnet's name for its kind."""
        layout = self.steps.layout
        return (layout.data(name) / "wav.scp", "sound") if self._hears else (layout.states(name), "states")

    def _lengths(self, name: str) -> Path:
        """The file from which ESPnet's batches know the length of an utterance."""
        layout = self.steps.layout
        return layout.data(name) / "utt2num_samples" if self._hears else layout.states(name) / "shape"

    def _training_files(self, name: str) -> dict[Path, str]:
        """What a training reads of a set, with the stage that makes it."""
        speech, _ = self._speech(name)
        made = (speech, "data") if self._hears else (speech / "states.scp", "dump")
        return {self.steps.layout.data(name) / "text": "data", made[0]: made[1], self._lengths(name): made[1]}

    @property
    def _token_list(self) -> Path:
        return self.steps.layout.tokens / "tokens_espnet.txt"

    def _token_words(self) -> list[str]:
        tokens = self.steps.layout.tokens
        return self.steps.commands.module("espnet", "tokens", "--token_list", tokens, "--out", self._token_list)

    def _train_words(self, config: Path) -> list[str]:
        o, layout = self.steps.options, self.steps.layout
        data: list[object] = []
        for role, name in (("train", o.training_set), ("valid", o.valid_set)):
            speech, kind = self._speech(name)
            for triple in (f"{speech},speech,{kind}", f"{layout.data(name) / 'text'},text,text"):
                data += [f"--{role}_data_path_and_name_and_type", triple]
            data += [f"--{role}_shape_file", self._lengths(name)]
        char = o.token_type == "char"
        return self.steps.commands.module(
            *("espnet", "asr_train", "--config", config, "--output_dir", layout.model),
            *("--token_type", "char" if char else "bpe", "--token_list", self._token_list),
            *(() if char else ("--bpemodel", layout.tokens / "tokens.model")),
            *data,
            *("--ngpu", o.ngpu, "--resume", "true", "--seed", o.seed),
            *(("--multiprocessing_distributed", "true") if o.ngpu > 1 or o.num_nodes > 1 else ()),
            *split_arguments(o.asr_args),
        )

    def _decode_words(self, config: str, name: str, count: int) -> list[str]:
        o, layout = self.steps.options, self.steps.layout
        changed = [word for each in o.inference_args.split() for word in ("--" + each).split("=", 1)]
        part = f"{layout.data(name)}/split{count}/JOB/wav.scp"
        speech, kind = (part, "sound") if self._hears else self._speech(name)
        return self.steps.commands.module(
            *("espnet", INFERENCE[o.asr_task], "--config", find_config(config), "--ngpu", min(o.ngpu, 1)),
            *("--asr_train_config", layout.model / "config.yaml"),
            *("--asr_model_file", layout.model / o.inference_model),
            *("--data_path_and_name_and_type", f"{speech},speech,{kind}", "--key_file", part),
            *("--output_dir", layout.decoding(config, name) / "logdir" / "output.JOB"),
            *changed,
        )

    def _merge_words(self, config: str, name: str, count: int) -> list[str]:
        o, layout = self.steps.options, self.steps.layout
        return self.steps.commands.module(
            *("espnet", "merge", "--out", layout.decoding(config, name), "--num_jobs", count),
            *("--data_dir", layout.data(name), "--program", INFERENCE[o.asr_task], "--config", find_config(config)),
            *("--model_file", layout.model / o.inference_model, "--device", "cuda" if o.ngpu else "cpu"),
            *(() if self._hears else ("--states", "true")),
            *(("--inference_args", o.inference_args) if o.inference_args else ()),
        )

    def _settings(self, config: str) -> dict[str, Any]:
        o = self.steps.options
        return read_decoding_settings(find_config(config), o.inference_args) | {"program": INFERENCE[o.asr_task]}

    def _check_tokens(self) -> None:
        o = self.steps.options
        if o.token_type in ("llama", "whisper"):
            raise UserError(f"--asr_task {o.asr_task} cannot use --token_type {o.token_type}; ESPnet's programs take "
                            "unigram, bpe or char")
        if (o.text_case, o.punctuation) != ("keep", "keep"):
            raise UserError(f"--asr_task {o.asr_task} takes transcripts as they are written: change them in "
                            "local/data.sh instead of by --text_case or --punctuation")
