"""Models of the Hugging Face hub, fetched file by file into its cache."""

from collections.abc import Sequence
from pathlib import Path

from whisfusion_asr.errors import UserError

WHISPER_FILES = (
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
)


def fetch_model(name: str, files: Sequence[str], remedy: str) -> Path:
    """Folder with the wanted files of a hub model; what the cache lacks is downloaded.

    The hub's own client resumes a download and checks it.
    name: `owner/model`; files: names or patterns, so that other frameworks' copies of the weights stay where they are
    remedy: what to do without a network, for the message
    raises UserError: no such model, no network, or no huggingface_hub
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise UserError(
            f"{name}: the hub needs huggingface_hub ({error}): pip install huggingface_hub, or {remedy}"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except (OSError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{name}: not to be had from the hub ({reason.rstrip('.')}): {remedy}") from error
