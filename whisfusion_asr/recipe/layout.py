"""Where everything of a recipe lies, and how it is named."""

from dataclasses import dataclass
from pathlib import Path

from whisfusion_asr.errors import UserError
from whisfusion_asr.recipe.options import Options
from whisfusion_asr.recipe.settings import find_config, read_settings


@dataclass(frozen=True)
class Layout:
    """Directories of one set of options."""

    options: Options

    def data(self, name: str) -> Path:
        """Kaldi directory of a set."""
        return Path(self.options.datadir, name)

    def states(self, name: str) -> Path:
        """Dumped encoder states of a set."""
        return Path(self.options.dumpdir, "states", name)

    def utt2lang(self, name: str) -> tuple[Path, ...]:
        """The languages of a set's utterances, where there are several to tell apart."""
        return (self.data(name) / "utt2lang",) if len(self.options.words("languages")) > 1 else ()

    def labels(self, name: str) -> Path:
        """What the original Whisper heard in a set."""
        return Path(self.options.dumpdir, "labels", name)

    def text(self, name: str) -> Path:
        """Tokenised sentences of the text model."""
        return Path(self.options.dumpdir, "text", name)

    @property
    def token_name(self) -> str:
        """Kind, number and form of tokens, as in `unigram500` or `llama_lower`; part of default names."""
        o = self.options
        kind = o.token_type if o.token_type in ("char", "llama", "whisper") else f"{o.token_type}{o.nbpe}"
        form = [o.text_case] if o.text_case != "keep" else []
        form += ["nopunct"] if o.punctuation == "remove" else []
        return "_".join([kind, *form, *sorted(o.words("languages"))])

    @property
    def tokens(self) -> Path:
        """Directory of tokens.txt and tokens.model."""
        return Path(self.options.datadir, "token_list", self.token_name)

    @property
    def encoder_is_imported(self) -> bool:
        """True for a published encoder, False for one that the recipe trains."""
        config = self.options.encoder_config
        return bool(config) and read_settings(find_config(config)).get("encoder") == "whisper"

    @property
    def encoder(self) -> Path:
        """Directory of the encoder; raises UserError when the options name none."""
        if not (self.options.encoder_tag or self.options.encoder_config):
            raise UserError("no encoder: set --encoder_config or --encoder_tag, or --feats_type raw")
        tokens = () if self.encoder_is_imported else (self.token_name,)
        return self._experiment(self.options.encoder_tag, self.options.encoder_config, *tokens)

    @property
    def text_model(self) -> Path:
        """Directory of the text diffusion model, trained here or imported."""
        if self.options.smdm:
            return Path(self.options.expdir, self.options.text_tag or f"smdm_{self.token_name}")
        return self._experiment(self.options.text_tag, self.options.text_config, self.token_name)

    @property
    def model(self) -> Path:
        """Directory of the recognition model."""
        if not (self.options.asr_tag or self.options.asr_config):
            raise UserError("no model: set --asr_config (conf/train_decoder.yaml) or --asr_tag")
        return self._experiment(self.options.asr_tag, self.options.asr_config, self.token_name)

    @property
    def packed(self) -> Path:
        """The recognition model as one file."""
        return self.model / "model.tar"

    @property
    def ctc(self) -> Path:
        """Directory of the CTC head trained on the states."""
        return self.model.with_name(self.model.name + "_ctc")

    @property
    def adapter(self) -> Path:
        """Directory of the first training step of the decoder."""
        return self.model.with_name(self.model.name + "_adapter")

    def decoding_name(self, config: str) -> str:
        """Name of a decoding's directory below the model's."""
        return self.options.inference_tag or Path(config).stem

    def decoding(self, config: str, name: str) -> Path:
        """Decode directory of a set."""
        return self.model / self.decoding_name(config) / name

    def _experiment(self, tag: str, config: str, *parts: str) -> Path:
        language = (self.options.lang,) if self.options.lang and parts else ()
        return Path(self.options.expdir, tag or "_".join((Path(config).stem, *language, *parts)))
