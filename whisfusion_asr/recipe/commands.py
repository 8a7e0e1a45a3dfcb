"""The commands that the stages run, as lists of words; each can be typed by hand."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from whisfusion_asr.config import read_yaml
from whisfusion_asr.recipe.layout import Layout
from whisfusion_asr.recipe.options import Options
from whisfusion_asr.recipe.settings import find_config, read_settings, split_arguments

MADE_OF_WHISPER = {"decoder": "whisper_diffusion", "ctc": "anchored_whisper"}
LLAMA = "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"  # hub model with Llama's tokenizer.model


@dataclass(frozen=True)
class Commands:
    """Builds command lines from options; `JOB` stands for the number of a job."""

    options: Options
    layout: Layout

    def local_data(self) -> list[str]:
        """The corpus' own preparation."""
        o = self.options
        corpus = ("--corpus_dir", o.corpus_dir) if o.corpus_dir else ()
        return ["bash", "local/data.sh", *corpus, *split_arguments(o.local_data_opts)]

    def label(self, name: str, *task: str) -> list[str]:
        """Let the original Whisper transcribe what has no transcript, or all. task: `--job JOB`, or `--merge true`."""
        o = self.options
        return self.module(
            "label",
            *("--data_dir", self.layout.data(name), "--whisper_dir", o.whisper_dir),
            *("--out", self.layout.labels(name), "--num_jobs", o.nj, *task, *self._device()),
            *(("--inference_args", f"language={o.lang}") if o.lang else ()),
            *(("--relabel", o.relabel) if o.relabel and name in (o.train_set, o.valid_set) else ()),
            *split_arguments(o.label_args),
        )

    def validate(self, name: str) -> list[str]:
        """Check a data directory; a test utterance may have an empty transcript, which counts insertions."""
        words = self.module("data", "validate", self.layout.data(name))
        return words + ["--allow_empty_text", "true"] if name in self.options.words("test_sets") else words

    def filter(self, name: str) -> list[str]:
        """Drop utterances of a training or validation set that cannot be used."""
        o = self.options
        limits = ("--min_seconds", o.min_wav_duration, "--max_seconds", o.max_wav_duration)
        return self.module("data", "filter", self.layout.data(name), *limits, "--max_loss", o.max_data_loss)

    def perturb_speed(self) -> list[str]:
        """Make the set that is trained on of the training set at several speeds."""
        o, factors = self.options, self.options.words("speed_perturb_factors")
        sets = (self.layout.data(o.train_set), self.layout.data(o.training_set))
        return self.module("data", "perturb_speed", *sets, "--factors", *factors, "--nj", o.nj)

    def tokens(self) -> list[str]:
        """Train the token model, or take the published one."""
        o, extra = self.options, self.options.words("token_text")
        form = ("--text_case", o.text_case) if o.text_case != "keep" else ()
        form += ("--punctuation", o.punctuation) if o.punctuation != "keep" else ()
        form += ("--languages", *o.words("languages")) if o.languages else ()
        if o.token_type == "llama":
            return self.module(
                "import_model", "--tokenizer", o.tokenizer_model or LLAMA, *form, "--out", self.layout.tokens
            )
        size = {"char": (), "whisper": ("--whisper_dir", o.whisper_dir)}.get(o.token_type, ("--vocab_size", o.nbpe))
        return self.module(
            "train_tokens",
            *("--text", self.layout.data(o.training_set) / "text"),
            *(("--plain_text", *extra) if extra else ()),
            *("--token_type", o.token_type),
            *size,
            *form,
            *("--out", self.layout.tokens),
        )

    def import_text(self) -> list[str]:
        """Take a published text model."""
        words = ("--smdm", self.options.smdm, "--tokenizer", self.layout.tokens, "--out", self.layout.text_model)
        return self.module("import_model", *words)

    def prepare_text(self, name: str, sentences: str) -> list[str]:
        """Tokenise the transcripts of a set, or a file of plain sentences in their place."""
        source = ("--text", sentences, "--plain", "true") if sentences else ("--text", self.layout.data(name) / "text")
        return self.module(
            "prepare_text", *source, "--token_list", self.layout.tokens, "--out", self.layout.text(name)
        )

    def import_encoder(self) -> list[str]:
        """Fetch and convert a published encoder."""
        o = self.options
        weights = ("--whisper_dir", o.whisper_dir) if o.whisper_dir else ()
        words = ("--config", find_config(o.encoder_config), "--out", self.layout.encoder, *weights)
        return self.module("import_encoder", *words, *split_arguments(o.encoder_args))

    def dump(self, name: str, jobs: int) -> list[str]:
        """Encoder states of a set, one job of many."""
        return self.module(
            "dump_states",
            *("--encoder_dir", self.layout.encoder, *self._dumped(name, jobs)),
            *("--storage", self.options.states_storage, "--job", "JOB", *self._device()),
        )

    def dump_merge(self, name: str, jobs: int) -> list[str]:
        """The common index of the jobs' states."""
        return self.module("dump_states", *self._dumped(name, jobs), "--merge", "true")

    def train(self, config: str, out: Path, data: str, init: tuple[str, ...] = (), arguments: str = "") -> list[str]:
        """A training; `data` is audio, states or text."""
        o = self.options
        tokens = self.layout.tokens
        model = () if o.token_type == "char" else ("--bpemodel", tokens / "tokens.model")
        return self.module(
            "train",
            *("--config", find_config(config), "--output_dir", out),
            *(self._width() if data == "states" else ()),
            *(self._imported_encoder() if data == "audio" else ()),
            *self._whisper_weights(config, arguments),
            *("--token_type", "char" if o.token_type == "char" else "bpe", "--token_list", tokens / "tokens.txt"),
            *model,
            *self._training_data("train", o.training_set, data),
            *self._training_data("valid", o.valid_set, data),
            *("--ngpu", o.ngpu, "--resume", "true", "--seed", o.seed),
            *(("--multiprocessing_distributed", "true") if o.ngpu > 1 or o.num_nodes > 1 else ()),
            *(("--init_param", *init) if init else ()),
            *split_arguments(arguments),
        )

    @property
    def _drafter(self) -> tuple[str | Path, ...]:
        return ("--draft_dir", self.layout.ctc) if self.options.ctc_token_type else ()

    def calibrate(self) -> list[str]:
        """The model's bound of silence, from the validation set."""
        o, data = self.options, self.layout.data(self.options.valid_set)
        states = ("--states_dir", self.layout.states(o.valid_set)) if o.feats_type == "states" else ()
        model = ("--exp_dir", self.layout.model, "--model_file", o.inference_model, *self._drafter)
        return self.module("calibrate", *model, "--data_dir", data, *states)

    def decode(self, config: str, name: str, jobs: int) -> list[str]:
        """Recognise a set, one job of many."""
        return self._decode(config, name, jobs, "--job", "JOB")

    def decode_merge(self, config: str, name: str, jobs: int) -> list[str]:
        """The common files of the jobs' results."""
        return self._decode(config, name, jobs, "--merge", "true")

    def decode_original(self, config: str, name: str, jobs: int, *task: str) -> list[str]:
        """Transcribe a set with the original Whisper. task: `--job JOB` for one job of many, or `--merge true`."""
        o = self.options
        return self.module(
            "decode_whisper",
            *("--whisper_dir", o.whisper_dir, "--config", find_config(config)),
            *("--data_dir", self.layout.data(name), "--out", self.layout.decoding(config, name)),
            *("--num_jobs", jobs, *task, *self._device()),
            *(("--inference_args", o.inference_args) if o.inference_args else ()),
        )

    def score(self, config: str, name: str) -> list[str]:
        """Error rates of a decoded set."""
        data, decoded = self.layout.data(name), self.layout.decoding(config, name)
        # The tokens are those of the texts as they are: a normalised text has no token error rate.
        plain = self.options.normalizer == "none"
        form = ("--token_list", self.layout.tokens) if plain else ("--normalizer", self.options.normalizer)
        return self.module(
            "score",
            *("--ref", data / "text", "--hyp", decoded / "text", "--utt2spk", data / "utt2spk"),
            *(*form, "--out", decoded),
        )

    def results(self) -> list[str]:
        """RESULTS.md of the model."""
        return self.module("results", "--exp_dir", self.layout.model, "--out", self.layout.model / "RESULTS.md")

    def compare(self, systems: Mapping[str, Path], against: str) -> list[str]:
        """COMPARISON.md of some decodings; systems: name -> directory of a decoding, above those of the sets."""
        named = [f"{name}={place}" for name, place in systems.items()]
        words = ("--systems", *named, "--against", against, "--sets", *self.options.words("test_sets"))
        return self.module("compare", *words, "--out", Path(self.options.expdir, "COMPARISON.md"))

    def pack(self, config: str) -> list[str]:
        """The model as one file, with a decoding configuration."""
        o = self.options
        chosen = {"--inference_args": o.inference_args, "--license": o.publish_license, "--hub_repo": o.hub_repo}
        if o.feats_type == "states":
            chosen["--encoder_dir"] = str(self.layout.encoder)
        if o.ctc_token_type:
            chosen["--draft_dir"] = str(self.layout.ctc)
        return self.module(
            "pack",
            *(self.layout.model, "--out", self.layout.packed, "--model_file", o.inference_model),
            *("--inference_config", find_config(config)),
            *(word for option, value in chosen.items() if value for word in (option, value)),
        )

    def training_files(self, name: str, data: str) -> tuple[Path, ...]:
        """What a training reads of a set: features, text and lengths."""
        if data == "text":
            return self.layout.text(name) / "text", self.layout.text(name) / "shape"
        text = self.layout.data(name) / "text"
        if data == "states":
            states = self.layout.states(name)
            return states / "states.scp", text, states / "shape"
        return self.layout.data(name) / "wav.scp", text, self.layout.data(name) / "utt2num_samples"

    def _width(self) -> tuple[str, ...]:
        """Width of the dumped states, so that one YAML serves encoders of any size."""
        meta = self.layout.states(self.options.training_set) / "meta.json"  # not there yet in a dry run before the dump
        width = json.loads(meta.read_text(encoding="utf-8")).get("width") if meta.is_file() else None
        return () if width is None else ("--encoder_conf", f"size={width}")

    def _imported_encoder(self) -> tuple[str, ...]:
        """The published encoder in the place of dumped states: it encodes within the training."""
        if not (self.options.encoder_config and self.layout.encoder_is_imported):
            return ()
        config = self.layout.encoder / "config.yaml"  # not there yet in a dry run before it is imported
        conf = read_yaml(config).get("encoder_conf", {}) if config.is_file() else {}
        words = [word for key, value in conf.items() for word in ("--encoder_conf", f"{key}={value}")]
        return ("--encoder", "whisper", *words)

    def _whisper_weights(self, config: str, arguments: str) -> tuple[str, ...]:
        """The folder that a decoder or a head starts from, if it is made of Whisper's decoder."""
        settings, folder = read_settings(find_config(config), arguments), self.options.whisper_dir
        made = [part for part, name in MADE_OF_WHISPER.items() if folder and settings.get(part) == name]
        return tuple(word for part in made for word in (f"--{part}_conf", f"model={Path(folder).absolute()}"))

    def _training_data(self, role: str, name: str, data: str) -> list[object]:
        *sources, shape = self.training_files(name, data)
        if data == "states":
            triples = [f"{self.layout.states(name)},states,states", f"{sources[1]},text,text"]
        elif data == "audio":
            triples = [f"{self.layout.data(name)},speech,audio", f"{sources[1]},text,text"]
        else:
            triples = [f"{sources[0]},text,text"]
        triples += [f"{path},language,text" for path in self.layout.utt2lang(name)]
        words: list[object] = []
        for triple in triples:
            words += [f"--{role}_data_path_and_name_and_type", triple]
        return [*words, f"--{role}_shape_file", shape]

    def _decode(self, config: str, name: str, jobs: int, *task: str) -> list[str]:
        o = self.options
        states = ("--states_dir", self.layout.states(name)) if o.feats_type == "states" else ()
        return self.module(
            "decode",
            *("--exp_dir", self.layout.model, "--model_file", o.inference_model, "--config", find_config(config)),
            *("--data_dir", self.layout.data(name), *states, "--out", self.layout.decoding(config, name)),
            *("--num_jobs", jobs, *task, *self._device()),
            *self._drafter,
            *self._arithmetic(),
            *(("--inference_args", o.inference_args) if o.inference_args else ()),
            *(("--trace", "true") if o.inference_trace else ()),
        )

    def _arithmetic(self) -> tuple[str, ...]:
        dtype = self.options.inference_dtype
        return () if dtype == "float32" else ("--quantize" if dtype == "int8" else "--dtype", dtype)

    def _device(self) -> tuple[str, ...]:
        return ("--device", "cuda") if self.options.ngpu else ()

    def _dumped(self, name: str, jobs: int) -> list[object]:
        return ["--data_dir", self.layout.data(name), "--out", self.layout.states(name), "--num_jobs", jobs]

    def module(self, name: str, *words: object) -> list[str]:
        """A command of this package."""
        return [self.options.python, "-m", f"whisfusion_asr.bin.{name}", *map(str, words)]

    def text_bound(self) -> list[str]:
        """The text model's bound on a few validation sentences, beside n-grams of the training's; takes seconds."""
        o, text, model = self.options, self.layout.text, self.layout.text_model
        texts = ("--text", text(o.valid_set) / "text", "--train_text", text(o.training_set) / "text")
        few = ("--max_sentences", 200, "--max_train_sentences", 20000, "--draws", 4)
        out = ("--out", model / "text_bound.json")
        return self.module("evaluate_text", "--exp_dir", model, *texts, *few, *out, *self._device())
