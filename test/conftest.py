"""Fixtures of several rooms."""

import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def given(variable: str, what: str) -> list:
    """Parameters of a fixture: the folders that an environment variable lists with : between, else one that skips."""
    folders = [Path(word) for word in os.environ.get(variable, "").split(os.pathsep) if word]
    skip = pytest.mark.skip(reason=f"set {variable} to {what}, or to several with : between")
    return folders or [pytest.param(None, marks=skip)]


@pytest.fixture(params=given("WHISFUSION_WHISPER_DIR", "a complete English-speaking Whisper folder"), ids=str)
def real_whisper(request: pytest.FixtureRequest) -> Path:
    """True weights in Hugging Face's layout."""
    return request.param


@pytest.fixture(params=given("WHISFUSION_CTRANSLATE2_DIR", "a faster-whisper folder with model.bin"), ids=str)
def real_ctranslate2(request: pytest.FixtureRequest) -> Path:
    """True weights as CTranslate2's converter writes them."""
    return request.param


class Loopback(ThreadingHTTPServer):
    """A web server on this machine, as bad as a test wants it.

    files: path -> content; asked: (path, Range header or None) of every request so far
    breaks_after: bytes after which each connection is cut; ignores_range: always sends the whole file
    statuses: HTTP errors for the next requests; pace: seconds of rest after every 16 kB
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.breaks_after: int | None = None
        self.ignores_range = False
        self.statuses: list[int] = []
        self.pace = 0.0
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Loopback

    def do_GET(self) -> None:
        server, wish = self.server, self.headers.get("Range")
        server.asked.append((self.path, wish))
        body = server.files.get(self.path)
        if server.statuses or body is None:
            return self.send_error(server.statuses.pop(0) if server.statuses else 404)
        start = int(wish.removeprefix("bytes=").rstrip("-")) if wish and not server.ignores_range else 0
        if start and start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        self._send(body[start:][: server.breaks_after])

    def _send(self, body: bytes) -> None:
        for first in range(0, len(body), 1 << 14):
            try:
                self.wfile.write(body[first : first + (1 << 14)])
            except OSError:  # the client was killed
                return
            time.sleep(self.server.pace)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """A running Loopback, asked without any proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Loopback() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real corpora and hard cases: $WHISFUSION_SHARED, or `shared/data` in or above the repository."""
    named = os.environ.get("WHISFUSION_SHARED")
    places = [Path(named)] if named else [folder / "shared" / "data" for folder in (ROOT, *ROOT.parents)]
    for place in places:
        if place.is_dir():
            return place
    pytest.skip(f"no folder shared/data in or above {ROOT.name}; set WHISFUSION_SHARED to run this test")


WHISPER_TEXT = ["the cat saw a small house", "a dog takes the old boat", "my aunt wants a letter"]


@pytest.fixture(scope="session")
def toy_whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random multilingual Whisper of 2 layers and width 16 in Hugging Face's layout, with a BPE of its own."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    folder = tmp_path_factory.mktemp("toy_whisper")
    words = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"]
    words.append("<|notimestamps|>")
    bpe = ByteLevelBPETokenizer()
    texts = [f" {text}" for text in WHISPER_TEXT] + [" Punctuation, and Capitals."] * 2
    bpe.train_from_iterator(texts, vocab_size=330, min_frequency=1, show_progress=False)
    bpe.add_special_tokens(words)
    bpe.save(str(folder / "tokenizer.json"))
    sizes = dict(d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=32, num_mel_bins=80)
    sizes |= dict(decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=32, max_target_positions=40)
    end, start = bpe.token_to_id(words[0]), bpe.token_to_id(words[1])
    ids = dict(pad_token_id=end, bos_token_id=end, eos_token_id=end, decoder_start_token_id=start)
    ids |= dict(suppress_tokens=[], begin_suppress_tokens=[])
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(WhisperConfig(**sizes, **ids, vocab_size=bpe.get_vocab_size()))
    for name, parameter in model.named_parameters():  # far from the start values: a tensor left out shows
        torch.nn.init.normal_(parameter, mean=float("norm.weight" in name), std=0.2)
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"is_multilingual": True}), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def toy_whisper_tokens(toy_whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token folder of that Whisper: tokens.txt and tokens.model."""
    from whisfusion_asr.data.whisper_tokens import choose_tokens

    folder = tmp_path_factory.mktemp("toy_whisper_tokens")
    choose_tokens(WHISPER_TEXT, toy_whisper, folder)
    return folder
