"""The options of a recipe: one record; parser, help and presets are made from it."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from whisfusion_asr.config import read_yaml
from whisfusion_asr.errors import UserError

CHOICES = {
    "token_type": ("unigram", "bpe", "char", "llama", "whisper"),
    "ctc_token_type": ("", "unigram", "bpe", "char", "whisper"),
    "feats_type": ("states", "raw"),
    "states_storage": ("int8", "float16", "float32"),
    "text_case": ("keep", "upper", "lower"),
    "punctuation": ("keep", "remove"),
    "labels": ("", "whisper"),
    "relabel": ("", "replace", "rewrite"),
    "inference_dtype": ("float32", "bfloat16", "float16", "int8"),
    "normalizer": ("none", "published", "basic", "whisper_en", "cjk"),
    "asr_task": ("diffusion", "espnet", "espnet_maskctc"),
}


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Options:
    """Values of one call; paths are relative to the recipe directory, lists are separated by blanks."""

    # What to run
    stage: str = _option("0", "first stage, a number or a name; `list` prints the table of stages")
    stop_stage: str = _option("", "last stage, a number or a name; default: 6 score, or a later --stage alone")
    skip_stages: str = _option("", "stages to leave out, numbers or names")
    preset: str = _option("", "values of conf/preset_NAME.yaml; they replace those of run.sh, the command line wins")
    dry_run: bool = _option(False, "print the commands, what they would write and need, and run nothing")
    force: bool = _option(False, "redo what is up to date; an old training is moved to <dir>.old-N")
    # Where and with what
    datadir: str = _option("data", "Kaldi directories and token models")
    dumpdir: str = _option("dump", "encoder states and tokenised text")
    expdir: str = _option("exp", "trained models and results")
    python: str = _option("python3", "interpreter that runs the commands")
    nj: int = _option(4, "jobs of the state dump")
    inference_nj: int = _option(4, "jobs of the decoding")
    ngpu: int = _option(0, "GPUs of a machine for training, dump and decoding; 0 is the CPU")
    num_nodes: int = _option(1, "machines of a training (more than one: Slurm)")
    seed: int = _option(0, "seed of every training")
    # Data
    train_set: str = _option("", "name of the training set, a directory below datadir")
    valid_set: str = _option("", "name of the validation set")
    test_sets: str = _option("", "names of the sets to decode and score")
    lang: str = _option("", "language, becomes part of the default tags")
    corpus_dir: str = _option("", "folder of the corpus, given to local/data.sh as --corpus_dir")
    local_data_opts: str = _option("", "options for local/data.sh")
    labels: str = _option("", "whisper: that of whisper_dir writes missing transcripts")
    relabel: str = _option("", "transcripts to train and validate on: replace, or rewrite as Whisper writes")
    label_args: str = _option("", "more options of the labelling: --min_mean_log_prob -0.5 ...")
    min_wav_duration: float = _option(0.1, "shorter training and validation utterances are dropped (seconds)")
    max_wav_duration: float = _option(30.0, "longer training and validation utterances are dropped (seconds)")
    max_data_loss: float = _option(0.05, "largest share of a set that may be dropped before it is an error")
    speed_perturb_factors: str = _option("", "speeds of copies (0.9 1.0 1.1) to train on, as TRAIN_SET_sp (stage 0)")
    # Tokens and parts
    token_type: str = _option("unigram", "unigram, bpe or char; llama: as published; whisper: of whisper_dir's model")
    nbpe: int = _option(500, "number of tokens (unigram and bpe)")
    tokenizer_model: str = _option("", "Llama's tokenizer.model: file, folder or hub name; default: TinyLlama's")
    languages: str = _option("", "codes (en de) of the sets' utt2lang: their tokens tell the decoder what to write")
    text_case: str = _option("keep", "case of transcripts before they become tokens: keep, upper or lower")
    punctuation: str = _option("keep", "punctuation of transcripts before they become tokens: keep or remove")
    token_text: str = _option("", "files of plain sentences that the token model sees besides the training transcripts")
    text_data: str = _option("", "plain sentences for the text model; default: the training transcripts")
    text_valid: str = _option("", "plain sentences to validate the text model; default: the validation transcripts")
    feats_type: str = _option("states", "states: train on dumped encoder states; raw: encode on the fly, store nothing")
    states_storage: str = _option("int8", "numbers of the dumped states: int8 (scaled by channel), float16 or float32")
    encoder_config: str = _option("", "YAML of the encoder: imported with `encoder: whisper`, else trained")
    whisper_dir: str = _option("", "folder of a Whisper: its encoder instead of a download, tokens, decoder")
    encoder_tag: str = _option("", "name of the encoder's directory below expdir")
    encoder_args: str = _option("", "more options for the import or training of the encoder")
    smdm: str = _option("", "weights of SMDM as the text model: file, or owner/model:path on the hub; empty: none")
    text_config: str = _option("", "YAML of the text diffusion model to train; empty: none")
    text_tag: str = _option("", "name of the text model's directory below expdir")
    text_args: str = _option("", "more options for its training: --max_epoch 3 ...")
    # Model
    ctc_config: str = _option("", "YAML of a CTC head to train on the encoder's states first; empty: none")
    ctc_token_type: str = _option("", "tokens of a CTC head that is kept apart and drafts; empty: the model holds it")
    ctc_nbpe: int = _option(500, "number of the CTC head's own tokens (unigram and bpe)")
    adapter_config: str = _option("", "YAML of stage train_adapter (the paper's stage 1); empty: left out, as for a "
                                   "decoder with conditioned: false")
    adapter_args: str = _option("", "more options for stage train_adapter: --max_epoch 3 ...")
    asr_config: str = _option("", "YAML of stage train_decoder (the paper's stage 2)")
    asr_args: str = _option("", "more options for stage train_decoder: --max_epoch 3 ...")
    asr_task: str = _option("diffusion", "diffusion: this package's; espnet, espnet_maskctc: ESPnet's own programs")
    asr_tag: str = _option("", "name of the model's directory below expdir; default: config name and tokens")
    # Decoding
    inference_config: str = _option("", "YAML files of the decoding; each gets a directory of its own")
    inference_args: str = _option("", "changed keys of the decoding: sampler_conf.candidates=5 ...")
    inference_tag: str = _option("", "name of the decoding's directory; default: name of its YAML")
    inference_dtype: str = _option("float32", "arithmetic of decoder and drafter: float32, bfloat16, float16 (GPU) or "
                                   "int8 (CPU); that of the original Whisper is `precision` in its YAML")
    inference_trace: bool = _option(False, "keep the canvases of every pass, for the report's step-by-step table")
    inference_model: str = _option("valid.loss.ave.pth", "checkpoint to decode with")
    normalizer: str = _option("none", "of both texts in scoring: none, published, basic, whisper_en or cjk")
    # Comparison
    compare: str = _option("", "systems of stage compare, NAME=DIR ...; default: all scored decodings below expdir")
    compare_to: str = _option("", "name of the one that the others are tested against; default: the first "
                               "autoregressive one, else the first")
    # Publishing
    publish_license: str = _option("", "license of the packed model, a line of its card; empty: not stated")
    hub_repo: str = _option("", "OWNER/NAME on the hub to upload the packed model to; empty: nothing is uploaded")

    def words(self, name: str) -> list[str]:
        """The blank-separated values of an option, each once."""
        return list(dict.fromkeys(getattr(self, name).split()))

    @property
    def training_set(self) -> str:
        """The set that is trained on: train_set, or what stage data makes of it."""
        return f"{self.train_set}_sp" if self.train_set and self.speed_perturb_factors else self.train_set

    def need(self, name: str, stage: str) -> str:
        """Value of an option that a stage cannot do without."""
        if not getattr(self, name):
            raise UserError(f"--{name} is not set; stage {stage} needs it. Set it in run.sh or on the command line")
        return getattr(self, name)

    def check(self) -> None:
        """Refuse combinations that no stage can run; raises UserError naming the options."""
        self._check_sets()
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                known = ", ".join(filter(None, allowed))
                raise UserError(f"--{name} must be one of {known}; got {getattr(self, name)!r}")
        if self.smdm and self.token_type != "llama":
            raise UserError(f"--smdm knows Llama's tokens only: set --token_type llama, not {self.token_type}")
        if self.smdm and self.text_config:
            raise UserError("--smdm and --text_config both name the text model to start from; leave one empty")
        if self.token_type == "whisper" and not self.whisper_dir:
            raise UserError("--token_type whisper takes the tokens of a Whisper folder: give it with --whisper_dir DIR")
        if self.ctc_token_type and not self.ctc_config:
            raise UserError(f"--ctc_token_type {self.ctc_token_type}: no CTC head is trained; set --ctc_config too")
        for name in ("smdm", "text_config"):
            if self.languages and getattr(self, name):
                raise UserError(f"--languages and --{name}: a text model is of one language; leave one of them empty")
        if self.languages and self.token_type in ("llama", "whisper"):
            raise UserError(f"--languages: the published tokens of --token_type {self.token_type} have no place for "
                            "them; take unigram, bpe or char")
        if self.asr_task != "diffusion" and self.inference_dtype != "float32":
            raise UserError(f"--inference_dtype {self.inference_dtype}: the models of --asr_task {self.asr_task} are "
                            "decoded by ESPnet: say --inference_args dtype=... in its place")
        if self.labels and not self.whisper_dir:
            raise UserError("--labels whisper needs a complete Whisper model: give its folder with --whisper_dir DIR")
        if self.relabel and not self.labels:
            raise UserError(f"--relabel {self.relabel}: say who listens, --labels whisper")
        for name in ("nj", "inference_nj", "num_nodes", "nbpe", "ctc_nbpe"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, got {getattr(self, name)}")
        for name in ("datadir", "dumpdir", "expdir", "asr_tag", "encoder_tag", "inference_tag"):
            if "JOB" in getattr(self, name):
                raise UserError(f"--{name} {getattr(self, name)}: JOB stands for a job's number; choose another name")
        if self.ngpu < 0:
            raise UserError(f"--ngpu must be 0 (CPU) or more, got {self.ngpu}")
        for word in self.words("compare"):
            if not re.fullmatch(r"[^=]+=.+", word):
                raise UserError(f"--compare {word}: expected NAME=DIR, as in ar=exp/asr/decode_ar")
        if self.inference_tag and len(self.words("inference_config")) > 1:
            raise UserError("--inference_tag names one directory, but --inference_config holds several files")

    def _check_sets(self) -> None:
        for name in filter(None, (self.train_set, self.training_set)):
            if name == self.valid_set:
                raise UserError(f"--train_set and --valid_set are both {name}; they must differ")
            if name in self.words("test_sets"):
                raise UserError(f"--test_sets contains the training set {name}")
        for word in self.words("speed_perturb_factors"):
            if not re.fullmatch(r"\d*\.?\d+", word):
                raise UserError(f"--speed_perturb_factors {word}: expected numbers as in 0.9 1.0 1.1")


def build_options(*layers: Mapping[str, Any]) -> Options:
    """Options from layers of values, the later ones win; checked."""
    options = replace(Options(), **{name: value for layer in layers for name, value in layer.items()})
    options.check()
    return options


def read_preset(name: str) -> dict[str, Any]:
    """Values of conf/preset_NAME.yaml of the recipe; every key must be an option, every value of its type."""
    if not name:
        return {}
    path = Path("conf", f"preset_{name}.yaml")
    if not path.is_file():
        known = sorted(p.stem.removeprefix("preset_") for p in Path("conf").glob("preset_*.yaml"))
        raise UserError(f"{path} does not exist; presets of this recipe: {', '.join(known) or 'none'}")
    known = {f.name: f for f in fields(Options)}
    return {key: _preset_value(path, str(key), value, known) for key, value in read_yaml(path).items()}


def _preset_value(path: Path, key: str, value: Any, known: Mapping[str, Field]) -> Any:
    if key not in known or key == "preset":
        near = difflib.get_close_matches(key, known, n=1)
        raise UserError(f"{path}: unknown option {key}" + (f"; did you mean {near[0]}?" if near else ""))
    wanted = known[key].type
    if wanted is str and isinstance(value, list):
        return " ".join(map(str, value))
    if wanted is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    if wanted is str and value is None:
        return ""
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted:
        raise UserError(f"{path}: {key}: expected {wanted.__name__}, got {value!r}")
    return value
