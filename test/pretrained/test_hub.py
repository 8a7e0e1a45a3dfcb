"""The hub client against a hub on this machine: resume, checksums, offline, local places."""

import ast
import base64
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from engine_fakes import WIDTH, experiment

from whisfusion_asr.errors import UserError
from whisfusion_asr.pretrained.hub import find_file, find_model, upload_model
from whisfusion_asr.pretrained.pack import write_pack

COMMIT = "c" * 40
BIG = random.Random(0).randbytes(1 << 20) * 21  # the client writes pieces of 10 MiB
SMALL = b'{"model_type": "whisper"}\n'


class Hub(ThreadingHTTPServer):
    """A hub with the model o/m.

    files: path -> content; asked: (method, path, Range header); breaks: cut connections to come, each after `cut` bytes
    claims: path -> checksum that is told instead of the true one
    posted: (path, body) of what was sent; refuses: answer 403 to that
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {"a/big.bin": BIG, "config.json": SMALL}
        self.asked: list[tuple[str, str, str | None]] = []
        self.breaks, self.cut = 0, 11 << 20
        self.claims: dict[str, str] = {}
        self.posted: list[tuple[str, bytes]] = []
        self.refuses = False
        self.url = f"http://127.0.0.1:{self.server_port}"

    def etag(self, name: str) -> str:
        """Git's checksum of a small file, SHA-256 of a large one, as the real hub has them."""
        body = self.files[name]
        true = hashlib.sha1(b"blob %d\0" % len(body) + body) if len(body) < 1000 else hashlib.sha256(body)
        return self.claims.get(name, true.hexdigest())

    def listing(self, path: str) -> bytes | None:
        """What the API answers."""
        if "/o/m/" not in path:
            return None
        entries = [{"type": "file", "path": name, "size": len(body), "oid": self.etag(name)[:40]}
                   for name, body in self.files.items()]  # fmt: skip
        if "/tree/" in path:
            return json.dumps(entries).encode()
        siblings = [{"rfilename": name} for name in self.files]
        model = {"_id": "1", "id": "o/m", "modelId": "o/m", "sha": COMMIT, "siblings": siblings}
        return json.dumps(model | {"private": False, "downloads": 0, "likes": 0, "tags": []}).encode()

    def reply(self, path: str, body: bytes) -> dict[str, object]:
        """What the API answers to what is sent."""
        if path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            return {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        if path.endswith("/validate-yaml"):
            return {"errors": [], "warnings": []}
        page = f"{self.url}/me/mine"
        return {"url": page, "commitUrl": f"{page}/commit/{COMMIT}", "commitOid": COMMIT, "hookOutput": ""}


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        body = self._answer()
        hub = self.server
        if len(body) > hub.cut and hub.breaks:
            hub.breaks -= 1
            body, self.close_connection = body[: hub.cut], True
        self.wfile.write(body)

    def do_POST(self) -> None:
        hub, body = self.server, self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub.posted.append((self.path.partition("?")[0], body))
        answer = {"error": "not yours"} if hub.refuses else hub.reply(*hub.posted[-1])
        content = json.dumps(answer).encode()
        self.send_response(403 if hub.refuses else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _answer(self) -> bytes:
        hub, wish, path = self.server, self.headers.get("Range"), self.path.partition("?")[0]
        hub.asked.append((self.command, path, wish))
        name = path.partition(f"/{COMMIT}/")[2]
        is_file = "/resolve/" in path
        body = hub.files.get(name) if is_file else hub.listing(path)
        if body is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if "/o/m/" in path else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return b""
        start = int(wish.removeprefix("bytes=").partition("-")[0]) if wish else 0
        self.send_response(206 if wish else 200)
        self.send_header("Content-Length", str(len(body) - start))
        if is_file:
            self.send_header("ETag", f'"{hub.etag(name)}"')
            self.send_header("X-Repo-Commit", COMMIT)
        if wish:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        return body[start:]

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(cache: Path, endpoint: str, what: str, **environment: str) -> subprocess.CompletedProcess:
    """Run find_file or find_model in a process of its own: the client reads its environment when it is imported."""
    code = ("import sys, time; time.sleep = lambda seconds: None\n"  # between the client's attempts
            "from whisfusion_asr.errors import exits_cleanly\n"
            "from whisfusion_asr.pretrained.hub import *\n"
            "from whisfusion_asr.pretrained.pack import open_model\n"
            f"exits_cleanly(lambda: print({what}))()")  # fmt: skip
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "no_proxy": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    own = os.environ | own | environment
    return subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True)


def error_of(run: subprocess.CompletedProcess) -> str:
    assert run.returncode == 2, run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and "Traceback" not in run.stderr
    return last


def downloads(hub: Hub) -> list[str | None]:
    return [wish for method, path, wish in hub.asked if method == "GET" and "/resolve/" in path]


def test_broken_connections_are_resumed_and_the_cache_serves_offline(hub, tmp_path):
    hub.breaks = 1
    run = fetch(tmp_path, hub.url, "find_file('o/m:a/big.bin')")
    assert run.returncode == 0, run.stderr
    path = Path(run.stdout.strip())
    assert path.read_bytes() == BIG and path.parts[-2:] == ("a", "big.bin")
    assert downloads(hub) == [None, f"bytes={10 << 20}-"]
    hub.asked.clear()
    run = fetch(tmp_path, hub.url, "find_file('o/m:a/big.bin')", HF_HUB_OFFLINE="1")
    assert Path(run.stdout.strip()) == path and hub.asked == []
    path.resolve().write_bytes(BIG[:-1] + b"?")
    error = error_of(fetch(tmp_path, hub.url, "find_file('o/m:a/big.bin')", HF_HUB_OFFLINE="1"))
    assert "a/big.bin: damaged, its checksum is" in error and "delete" in error


def test_connections_that_always_break(hub, tmp_path):
    hub.breaks, hub.cut = 1000, 1 << 20  # less than a piece: no attempt gets on
    error = error_of(fetch(tmp_path, hub.url, "find_file('o/m:a/big.bin')"))
    assert "o/m: not to be had from the hub (" in error and "download it on another machine" in error


def test_content_that_does_not_fit_its_checksum(hub, tmp_path):
    hub.claims["config.json"] = "2" * 40
    error = error_of(fetch(tmp_path, hub.url, "find_model('o/m', ['config.json'], '--whisper_dir')"))
    assert "config.json: damaged, its checksum is" in error and f"expected {'2' * 40}" in error


def test_only_the_wanted_files_come(hub, tmp_path):
    run = fetch(tmp_path, hub.url, "find_model('o/m', ['config.json', 'x-*.safetensors'], '--whisper_dir')")
    assert [path.name for path in Path(run.stdout.strip()).iterdir()] == ["config.json"]
    assert len(downloads(hub)) == 1


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("find_file('o/m:none.bin')", "o/m: the hub's model has no none.bin: download it on another machine"),
        ("find_file('o/none:x')", "o/none: not to be had from the hub ("),
        ("find_model('o/none', ['x'], '--tokenizer')", "give the file with --tokenizer"),
    ],
)
def test_what_the_hub_does_not_have(hub, tmp_path, what, message):
    assert message in error_of(fetch(tmp_path, hub.url, what))


UPLOAD = "upload_model('me/mine', {'model.tar': Path(r'%s'), 'README.md': b'card'})"


def sent(hub: Hub) -> dict[str, bytes]:
    """The files of the one commit that was sent."""
    (commit,) = [body for path, body in hub.posted if path == "/api/models/me/mine/commit/main"]
    files = [row["value"] for row in map(json.loads, commit.splitlines()) if row["key"] == "file"]
    return {file["path"]: base64.b64decode(file["content"]) for file in files}


def test_an_upload_is_one_commit_with_the_very_content(hub, tmp_path):
    (tmp_path / "x.tar").write_bytes(SMALL)
    run = fetch(tmp_path, hub.url, UPLOAD % (tmp_path / "x.tar"), HF_TOKEN="hf_toy")
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == f"{hub.url}/me/mine"
    assert json.loads(hub.posted[0][1])["name"] == "mine" and hub.posted[0][0] == "/api/repos/create"
    assert sent(hub) == {"model.tar": SMALL, "README.md": b"card"}


def test_the_command_uploads_what_it_packed(hub, tmp_path):
    """An experiment on raw audio, so that nothing but its own files goes into the tar."""
    encoder = {"output_size": WIDTH, "num_blocks": 1, "attention_heads": 2}
    experiment(tmp_path / "toy", frontend="logmel", encoder="light_conformer", encoder_conf=encoder, decoder=None,
               decoder_conf={}, model_conf={})  # fmt: skip
    out = tmp_path / "model.tar"
    words = [str(tmp_path / "toy"), "--out", str(out), "--license", "cc-by-4.0", "--hub_repo", "me/mine"]
    command = f"__import__('whisfusion_asr.bin.pack', fromlist=['main']).main({words})"
    run = fetch(tmp_path / "hf", hub.url, command, HF_TOKEN="hf_toy")
    assert run.returncode == 0, run.stderr
    assert f"uploaded to {hub.url}/me/mine\n" in run.stdout
    files = sent(hub)
    assert sorted(files) == ["README.md", "model.tar"] and files["model.tar"] == out.read_bytes()
    assert b"license: cc-by-4.0" in files["README.md"]
    hub.refuses = True
    assert "--hub_repo me/mine: not uploaded (" in error_of(fetch(tmp_path / "hf", hub.url, command, HF_TOKEN="hf_toy"))


def test_a_packed_model_is_opened_by_its_name(hub, tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/decoding.yaml").write_text("sampler: pdd\n")
    write_pack(tmp_path / "parts", tmp_path / "model.tar", {})
    hub.files["model.tar"] = (tmp_path / "model.tar").read_bytes()
    run = fetch(tmp_path / "hf", hub.url, "open_model('o/m')", WHISFUSION_CACHE=str(tmp_path / "own"))
    assert run.returncode == 0, run.stderr
    found = ast.literal_eval(run.stdout)
    assert Path(found["exp_dir"]).parent == tmp_path / "own" and found["inference"] == {"sampler": "pdd"}


def test_an_upload_that_is_refused_is_one_line(hub, tmp_path):
    (tmp_path / "x.tar").write_bytes(SMALL)
    hub.refuses = True
    error = error_of(fetch(tmp_path, hub.url, UPLOAD % (tmp_path / "x.tar"), HF_TOKEN="hf_toy"))
    assert "--hub_repo me/mine: not uploaded (" in error and "hf auth login" in error
    with pytest.raises(UserError, match="--hub_repo mine: no hub name of the form owner/model"):
        upload_model("mine", {})


def test_local_places_need_no_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "m").write_text("x")
    assert find_file("o/m") == Path("o/m") and find_model("o/m", [], "--x") == Path("o/m")
    assert find_model(str(tmp_path), [], "--x") == tmp_path
    with pytest.raises(UserError, match="o/none: no such file; a file of a hub model is written owner/model:path"):
        find_file("o/none")
    with pytest.raises(UserError, match="--tokenizer a/b/c: no such file or folder, and no hub name"):
        find_model("a/b/c", [], "--tokenizer")
