"""The command around ESPnet's programs, as far as ESPnet itself is not needed."""

import json
from pathlib import Path

import pytest

from whisfusion_asr.bin.espnet import main
from whisfusion_asr.data.tokenizer import train_tokenizer


def test_an_unknown_program_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["asr_trian", "--config", "x"])
    expected = "expected asr_train, asr_inference, asr_inference_maskctc, tokens or merge"
    assert capsys.readouterr().err == f"error: asr_trian: {expected}\n"


def test_tokens_are_those_of_the_list(tmp_path: Path) -> None:
    train_tokenizer(["ab a", "b"], "char", 0, tmp_path / "list")
    main(["tokens", "--token_list", str(tmp_path / "list"), "--out", str(tmp_path / "tokens_espnet.txt")])
    first, second, *pieces, last = (tmp_path / "tokens_espnet.txt").read_text().splitlines()
    assert (first, second, last) == ("<blank>", "<unk>", "<sos/eos>")
    assert pieces == (tmp_path / "list/tokens.txt").read_text().splitlines()[2:]


def test_meta_tells_the_program_its_settings_and_the_changed_ones(tmp_path: Path) -> None:
    part = tmp_path / "logdir/output.1"
    (part / "1best_recog").mkdir(parents=True)
    for name in ("text", "token", "token_int", "score"):
        (part / "1best_recog" / name).write_text("u x\n")
    (part / "conditions.json").write_text('{"threads": 1, "decode_seconds": 0.5}')
    (tmp_path / "utt2num_samples").write_text("u 32000\n")
    (tmp_path / "decode.yaml").write_text("beam_size: 5\nctc_weight: 0.3\n")
    words = {"out": tmp_path, "data_dir": tmp_path, "program": "asr_inference", "config": tmp_path / "decode.yaml",
             "model_file": "exp/x/valid.acc.ave.pth", "inference_args": "beam_size=20"}  # fmt: skip
    main(["merge", *(str(word) for key, value in words.items() for word in (f"--{key}", value))])
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert meta["sampler"] == "asr_inference" and meta["sampler_conf"] == {"beam_size": 20, "ctc_weight": 0.3}
    assert (meta["exp_dir"], meta["model_file"]) == ("exp/x", "valid.acc.ave.pth")
    assert (meta["audio_seconds"], meta["decode_seconds"], meta["rtf"], meta["encoder"]) == (2.0, 0.5, 0.25, "timed")
