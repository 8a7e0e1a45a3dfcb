"""The steps of every stage: what each runs, reads, writes and depends on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from whisfusion_asr.recipe.commands import LLAMA, Commands
from whisfusion_asr.recipe.decoding import decoding_step
from whisfusion_asr.recipe.estimates import (
    Cost,
    dump_costs,
    encoder_facts,
    hub_download,
    set_size,
    training_costs,
)
from whisfusion_asr.recipe.jobs import Job
from whisfusion_asr.recipe.layout import Layout
from whisfusion_asr.recipe.options import Options
from whisfusion_asr.recipe.settings import find_config, read_decoding_settings, read_settings
from whisfusion_asr.recipe.step import Step
from whisfusion_asr.recipe.text_bound import text_bound_steps

WEIGHTS = "valid.loss.ave.pth"  # what a training leaves for the next step


@dataclass(frozen=True)
class Steps:
    """Builds the steps of each stage from the options; those of a stage when it is its turn."""

    options: Options

    @cached_property
    def layout(self) -> Layout:
        """Where things lie."""
        return Layout(self.options)

    @cached_property
    def commands(self) -> Commands:
        """Command lines."""
        return Commands(self.options, self.layout)

    @cached_property
    def drafter(self) -> "Steps | None":
        """The steps of a CTC head that is kept apart, with tokens of its own; None where the decoder starts from it."""
        o = self.options
        return Steps(replace(o, token_type=o.ctc_token_type, nbpe=o.ctc_nbpe)) if o.ctc_token_type else None

    @property
    def sets(self) -> list[str]:
        """The data sets that are trained on, decoded and scored, each once."""
        o = self.options
        return list(dict.fromkeys(name for name in (o.training_set, o.valid_set, *o.words("test_sets")) if name))

    def parts(self) -> Iterator[Step]:
        """Stage 1: token models, encoder, text diffusion model."""
        yield self._tokens()
        if self.drafter and self.drafter.layout.tokens != self.layout.tokens:
            yield self.drafter._tokens()
        if self.options.encoder_config:
            yield self._imported_encoder() if self.layout.encoder_is_imported else self._trained_encoder()
        if self.options.smdm:
            yield self._imported_text()
        if self.options.text_config:
            yield self._text(self.options.training_set, self.options.text_data)
            yield self._text(self.options.valid_set, self.options.text_valid)
            yield self._training("parts", "text", self.layout.text_model, "text")
            yield from text_bound_steps(self)

    def dump(self) -> Iterator[Step]:
        """Stage 2: encoder states of every set; nothing when training on audio."""
        for name in self.sets if self.options.feats_type == "states" else ():
            data, out = self.layout.data(name), self.layout.states(name)
            facts = encoder_facts(self.layout.encoder, self._encoder_settings(), self.options.whisper_dir)
            count = self.jobs_of(name, self.options.nj)
            gpu = {"gpus": self.options.ngpu, "submit": "cuda_cmd" if self.options.ngpu else "train_cmd"}
            array = Job(tuple(self.commands.dump(name, count)), out / "logdir" / "dump_states.JOB.log", count, **gpu)
            audio = {data / file: "data" for file in ("wav.scp", "utt2spk", "utt2num_samples")}
            segments = {data / "segments": "data"} if (data / "segments").is_file() else {}
            yield Step(
                title=f"states of {name}",
                out=out,
                jobs=(array, Job(tuple(self.commands.dump_merge(name, count)))),
                settings={"encoder": str(self.layout.encoder), "storage": self.options.states_storage},
                reads=audio | segments | dict.fromkeys(self._encoder_files(), "parts"),
                writes=tuple(out / f for f in ("states.scp", "shape", "meta.json")),
                keys=(data / "utt2spk", out / "states.scp"),
                costs=dump_costs(set_size(data), facts, self.options.states_storage),
            )

    def train_adapter(self) -> Iterator[Step]:
        """Stage 3: a CTC head on the states if asked for, then the adapters."""
        if self.options.ctc_config:
            own, out = self.drafter or self, self.layout.ctc
            yield own._training("train_adapter", "ctc", out, self._data, self._encoder_init(), tag="asr")
        if self.options.adapter_config and not self.no_adapters():
            yield self._training("train_adapter", "adapter", self.layout.adapter, self._data, self._parts(), tag="asr")

    def no_adapters(self) -> str:
        """Why the model has no adapters that could be trained; empty if it has."""
        deaf = self.model_settings().get("decoder_conf.conditioned") is False
        return "no adapters to train, decoder_conf.conditioned is false" if deaf else ""

    def train_decoder(self) -> Iterator[Step]:
        """Stage 4: the whole decoder."""
        self.options.need("asr_config", "train_decoder")
        init = self._parts()
        if self.options.adapter_config and not self.no_adapters():
            init |= {str(self.layout.adapter / WEIGHTS): "train_adapter"}
        yield self._training("train_decoder", "asr", self.layout.model, self._data, init)

    def decode(self) -> Iterator[Step]:
        """Stage 5: every test set with every decoding configuration."""
        self.options.need("inference_config", "decode")
        for config in self.options.words("inference_config"):
            for name in self.options.words("test_sets"):
                yield decoding_step(self, config, name)

    def score(self) -> Iterator[Step]:
        """Stage 6: error rates of what was decoded, and the table of all results."""
        results: dict[Path, str] = {}
        for config, name in self.decoded():
            data, out = self.layout.data(name), self.layout.decoding(config, name)
            written = tuple(out / f"score_{kind}" / "result.txt" for kind in ("wer", "cer"))
            results |= dict.fromkeys(written, "score")
            yield Step(
                title=f"{out.parent.name}/{name}",
                out=out,
                jobs=(Job(tuple(self.commands.score(config, name))),),
                settings={"token_list": str(self.layout.tokens), "normalizer": self.options.normalizer},
                reads={out / "text": "decode", data / "text": "data", data / "utt2spk": "data"},
                writes=written,
                stamp_name=".score.stamp.json",
            )
        model = self.layout.model
        job = Job(tuple(self.commands.results()))
        table = (model / "RESULTS.md",)
        yield Step("RESULTS.md", model, (job,), {}, results, table, stamp_name=".results.stamp.json")

    def decoded(self) -> list[tuple[str, str]]:
        """(configuration, set) of every decode directory that the options ask for."""
        self.options.need("inference_config", "score")
        return [(c, s) for c in self.options.words("inference_config") for s in self.options.words("test_sets")]

    def _tokens(self) -> Step:
        o, out = self.options, self.layout.tokens
        more = {Path(path): self._maker(path) for path in o.words("token_text")}
        published = o.token_type == "llama"
        model = Path(o.tokenizer_model)
        own = {model: ""} if model.is_file() else {}
        kept = {"text_case": "keep", "punctuation": "keep"}
        form: dict[str, Any] = {name: getattr(o, name) for name, usual in kept.items() if getattr(o, name) != usual}
        form |= {"languages": sorted(o.words("languages"))} if o.languages else {}
        size = {"char": {}, "llama": {"tokenizer_model": o.tokenizer_model or LLAMA},
                "whisper": {"whisper_dir": o.whisper_dir}}
        files = ("tokens.txt",) if o.token_type == "char" else ("tokens.txt", "tokens.model")
        return Step(
            title=f"{self.layout.token_name} tokens",
            out=out,
            jobs=(Job(tuple(self.commands.tokens()), out / "train_tokens.log"),),
            settings={"token_type": o.token_type} | size.get(o.token_type, {"nbpe": o.nbpe}) | form,
            reads=own if published else {self.layout.data(o.training_set) / "text": "data"} | more,
            writes=tuple(out / file for file in files),
            costs=hub_download(o.tokenizer_model or LLAMA) if published else (),
        )

    def _imported_text(self) -> Step:
        o, out = self.options, self.layout.text_model
        own = {Path(o.smdm): ""} if Path(o.smdm).is_file() else {}
        return Step(
            title=f"text model {out.name}",
            out=out,
            jobs=(Job(tuple(self.commands.import_text()), out / "import.log"),),
            settings={"smdm": o.smdm, "tokens": str(self.layout.tokens)},
            reads=own | {self.layout.tokens / "tokens.txt": "parts"},
            writes=(out / "config.yaml", out / WEIGHTS),
            work=("*.pth",),
            tag="text_tag",
            record=out,
            costs=(*hub_download(o.smdm), Cost("disk: SMDM of 170 M parameters", 0.88)),
        )

    def _imported_encoder(self) -> Step:
        config, out, given = find_config(self.options.encoder_config), self.layout.encoder, self.options.whisper_dir
        return Step(
            title=f"encoder {out.name}",
            out=out,
            jobs=(Job(tuple(self.commands.import_encoder())),),
            settings=read_settings(config, self.options.encoder_args) | {"whisper_dir": given},
            reads={},
            writes=(out / "config.yaml",),
            work=("config.yaml",),
            tag="encoder_tag",
            training=True,
            record=out,
            notes=(f"--whisper_dir {given} is missing",) if given and not Path(given).exists() else (),
            costs=() if given else hub_download(str(self._encoder_settings().get("encoder_conf.model", ""))),
        )

    def _trained_encoder(self) -> Step:
        return self._training("parts", "encoder", self.layout.encoder, "audio")

    def _text(self, name: str, sentences: str) -> Step:
        out = self.layout.text(name)
        source = {Path(sentences): self._maker(sentences)} if sentences else {self.layout.data(name) / "text": "data"}
        return Step(
            title=f"tokenised text of {name}",
            out=out,
            jobs=(Job(tuple(self.commands.prepare_text(name, sentences))),),
            settings={"token_list": str(self.layout.tokens)},
            reads=source | {self.layout.tokens / "tokens.txt": "parts"},
            writes=(out / "text", out / "shape"),
        )

    def _training(
        self, stage: str, part: str, out: Path, data: str, init: Mapping[str, str] | None = None, tag: str = ""
    ) -> Step:
        o = self.options
        config, arguments = getattr(o, f"{part}_config"), getattr(o, f"{part}_args", "")
        settings = read_settings(find_config(config), arguments)
        words = self.commands.train(config, out, data, tuple(init or ()), arguments)
        made_by = {"states": "dump", "audio": "data", "text": "parts"}[data]
        files = {file: made_by for s in (o.training_set, o.valid_set) for file in self.commands.training_files(s, data)}
        sets = (o.training_set, o.valid_set) if data != "text" else ()
        texts = {file: "data" for s in sets for file in (self.layout.data(s) / "text", *self.layout.utt2lang(s))}
        weights = {Path(file.split(":")[0]): writer for file, writer in (init or {}).items()}
        if data == "audio" and self.layout.encoder_is_imported:
            weights |= dict.fromkeys(self._encoder_files(), "parts")
        own = {"seed": o.seed, "tokens": str(self.layout.tokens), "sets": [o.training_set, o.valid_set]}
        epochs = settings.get("max_epoch", 40)  # ESPnet's default
        job = Job(
            tuple(words),
            out / "train.log",
            submit="cuda_cmd",
            gpus=o.ngpu,
            nodes=o.num_nodes,
            epochs=epochs if isinstance(epochs, int) else 40,
        )
        return Step(
            title=f"training {out.name}",
            out=out,
            jobs=(job,),
            settings=settings | own | {"data": data, "init_param": list(init or ())},
            reads=files | texts | {self.layout.tokens / "tokens.txt": "parts"} | weights,
            writes=(out / "config.yaml", out / WEIGHTS),
            work=("*.pth",),
            tag=f"{tag or part}_tag",
            training=True,
            record=out,
            notes=(f"settings: {find_config(config)} (stage {stage})",),
            costs=training_costs(set_size(self.layout.data(o.training_set)), self._vocab(), settings),
        )

    def _vocab(self) -> int | None:
        """Number of tokens; None of characters that are not counted yet, or of a Whisper."""
        tokens = self.layout.tokens / "tokens.txt"
        if tokens.is_file():
            return tokens.read_bytes().count(b"\n")
        return {"llama": 32000, "unigram": self.options.nbpe, "bpe": self.options.nbpe}.get(self.options.token_type)

    @property
    def drafts_from(self) -> dict[Path, str]:
        """Files of the CTC head that drafts for the decoder, and the stage that writes them."""
        return {self.layout.ctc / file: "train_adapter" for file in (WEIGHTS, "config.yaml") if self.drafter}

    def decoding_settings(self, config: str) -> dict[str, Any]:
        """Flat settings of a decoding."""
        return read_decoding_settings(find_config(config), self.options.inference_args)

    def model_settings(self) -> dict[str, Any]:
        """Flat settings of the recognition model's training; none of a model that was only imported."""
        config = self.options.asr_config
        return read_settings(find_config(config), self.options.asr_args) if config else {}

    def _maker(self, path: str) -> str:
        """Stage that writes a text of the user: local/data.sh may put some below datadir."""
        return "data" if Path(self.options.datadir) in Path(path).parents else ""

    @property
    def _data(self) -> str:
        return "states" if self.options.feats_type == "states" else "audio"

    def _parts(self) -> dict[str, str]:
        """Weights that a decoder starts from, and the stage that writes each."""
        init: dict[str, str] = {}
        if self.options.text_config or self.options.smdm:
            init[str(self.layout.text_model / WEIGHTS)] = "parts"
        trained = bool(self.options.encoder_config) and not self.layout.encoder_is_imported
        init |= self._encoder_init()
        if self.options.ctc_config and not self.drafter:
            init[f"{self.layout.ctc / WEIGHTS}:ctc:ctc"] = "train_adapter"
        elif trained and self._encoder_settings().get("model_conf.ctc_weight") != 0:
            init[f"{self.layout.encoder / WEIGHTS}:ctc:ctc"] = "parts"
        return init

    def _encoder_init(self) -> dict[str, str]:
        """The trained encoder, for a model that encodes on the fly."""
        if self._data == "states" or not self.options.encoder_config or self.layout.encoder_is_imported:
            return {}
        return {f"{self.layout.encoder / WEIGHTS}:encoder:encoder": "parts"}

    def _encoder_settings(self) -> dict[str, Any]:
        config = self.options.encoder_config
        return read_settings(find_config(config), self.options.encoder_args) if config else {}

    def _encoder_files(self) -> list[Path]:
        out = self.layout.encoder
        if self.options.encoder_config and not self.layout.encoder_is_imported:
            return [out / "config.yaml", out / WEIGHTS]
        return [out / "config.yaml"]  # an imported one: it holds the checksum of the weights

    def jobs_of(self, name: str, wanted: int) -> int:
        """Number of jobs for a set: no more than it has utterances."""
        keys = self.layout.data(name) / "utt2spk"  # not there yet in a dry run before stage 0
        return min(wanted, max(1, keys.read_bytes().count(b"\n"))) if keys.is_file() else wanted
