"""Stands for `python3` in the stage runner's tests: writes what each command would write, and notes the call.

Behaviour comes from files in the recipe: `fail_<command>` holds `<code> [job]`, `slow_<command>` seconds to sleep.
"""

import os
import shutil
import sys
import time
from pathlib import Path

MODULE = sys.argv[2].rpartition(".")[2]
WORDS = sys.argv[3:]
OPTIONS = {word[2:]: WORDS[i + 1] for i, word in enumerate(WORDS[:-1]) if word.startswith("--")}


def keys() -> list[str]:
    return [line.split()[0] for line in Path(OPTIONS["data_dir"], "utt2spk").read_text().splitlines()]


def write(directory: str | Path, **files: str) -> None:
    Path(directory).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        Path(directory, name.replace("__", ".")).write_text(content)


def part(directory: str, job: str) -> None:
    mine = keys()[int(job) - 1 :: int(OPTIONS["num_jobs"])]
    write(directory, **{f"part__{job}": "".join(f"{key} x\n" for key in mine)})


def merged() -> str:
    parts = [Path(OPTIONS["out"], f"part.{n}").read_text() for n in range(1, int(OPTIONS["num_jobs"]) + 1)]
    lines = sorted("".join(parts).splitlines(keepends=True))
    return "".join(lines[1:] if Path("lose_a_key").exists() else lines)


def train() -> None:
    out = OPTIONS["output_dir"]
    for epoch in (1, 2, 3):
        print(f"host INFO: {epoch}epoch results: [train] loss=1.0, [valid] loss=0.{epoch}, acc=0.5", flush=True)
    write(out, config__yaml="a: 1\n", checkpoint__pth="c")
    write(out, valid__loss__ave__pth=f"weights {OPTIONS.get('seed')}")


def run() -> None:
    if MODULE == "data" and WORDS[0] == "validate":
        lines = Path(WORDS[1], "utt2spk").read_text().splitlines()
        write(WORDS[1], utt2num_samples="".join(f"{line.split()[0]} 16000\n" for line in lines))
    elif MODULE == "data" and WORDS[0] == "perturb_speed":
        shutil.copytree(WORDS[1], WORDS[2])
    elif MODULE == "train_tokens":
        write(OPTIONS["out"], tokens__txt="<eos>\n<unk>\na\n", tokens__model="m")
    elif MODULE == "import_model" and "smdm" in OPTIONS:
        write(OPTIONS["out"], config__yaml="a: 1\n", valid__loss__ave__pth="smdm")
    elif MODULE == "import_model":
        write(OPTIONS["out"], tokens__txt="<unk>\n<s>\n</s>\n", tokens__model="m")
    elif MODULE == "import_encoder":
        write(OPTIONS["out"], config__yaml="output_size: 512\nencoder_conf: {model: /w, pool: 2}\n")
    elif MODULE == "prepare_text":
        write(OPTIONS["out"], text="u a\n", shape="u 1\n")
    elif MODULE == "train":
        train()
    elif MODULE == "evaluate_text":
        Path(OPTIONS["out"]).write_text("{}")
    elif MODULE in ("dump_states", "decode") and OPTIONS.get("merge") != "true":
        print("device", os.environ.get("CUDA_VISIBLE_DEVICES"))
        part(OPTIONS["out"], OPTIONS["job"])
    elif MODULE == "dump_states":
        write(OPTIONS["out"], shape=merged(), meta__json='{"width": 384}', states__scp=merged())
    elif MODULE == "decode":
        write(OPTIONS["out"], token=merged(), score=merged(), text=merged(), meta__json="{}")
    elif MODULE == "score":
        write(OPTIONS["out"], summary__json="{}")
        for kind in ("wer", "cer"):
            table = "| SPKR | # Snt |\n| s | 1 |\n| Sum/Avg| 4 12 | 3.3 |\n"
            write(Path(OPTIONS["out"], f"score_{kind}"), result__txt=table, ref__trn="a (s-1)", hyp__trn="a (s-1)")
    elif MODULE == "compare":
        write(Path(OPTIONS["out"]).parent, COMPARISON__md="", COMPARISON__json="", comparison__png="")
    elif MODULE == "pack":
        Path(OPTIONS["out"]).write_text("tar")
    elif MODULE == "results":
        write(Path(OPTIONS["out"]).parent, RESULTS__md="# RESULTS\n")


def main() -> None:
    with open("calls", "a") as file:
        file.write(f"{MODULE} {' '.join(WORDS)}\n")
    if Path(f"slow_{MODULE}").exists():
        Path(f"pid_{MODULE}").write_text(str(os.getpid()))
        time.sleep(float(Path(f"slow_{MODULE}").read_text()))
    failing = Path(f"fail_{MODULE}")
    if failing.exists():
        code, *job = failing.read_text().split()
        if not job or OPTIONS.get("job") == job[0]:
            for number in range(40):
                print("line", number)
            print("error: this is the cause", flush=True)
            sys.exit(int(code))
    run()


main()
