"""Stage 0 of the LibriSpeech recipe: data directories from a folder that is there."""

import os
from pathlib import Path

import pytest


@pytest.mark.parametrize("suffix", [".flac", ".wav", ".ogg"])
@pytest.mark.parametrize("inside", [True, False])
def test_folder_that_is_there(libri, tmp_path, suffix, inside):
    root = tmp_path / "elsewhere" / "LibriSpeech"
    libri.make_corpus(root, suffix)
    libri.run("--librispeech_dir", root if inside else root.parent, "--parts", " ".join(libri.parts))
    libri.check_sets(root, suffix)
    assert not libri.downloads.exists()


def test_parts_and_sets_are_options(libri, libri_folder):
    parts = ["--train_parts", "train-b", "--valid_parts", "dev-a test-a", "--test_parts", "dev-a train-a"]
    libri.run("--librispeech_dir", libri_folder, *parts, "--train_set", "train_b", "--valid_set", "valid")
    counts = {path.parent.name: len(path.read_text().splitlines()) for path in libri.data.glob("*/text")}
    assert counts == {"train_b": 2, "valid": 4, "dev_a": 2, "train_a": 6}


def test_older_set_is_replaced(libri, libri_folder):
    (libri.data / "dev").mkdir(parents=True)
    (libri.data / "dev" / "segments").write_text("of another corpus")
    libri.run("--librispeech_dir", libri_folder, "--parts", " ".join(libri.parts))
    libri.check_sets(libri_folder)
    assert not (libri.data / "dev" / "segments").exists()


def test_speakers_file_is_optional(libri, libri_folder):
    (libri_folder / "SPEAKERS.TXT").unlink()
    libri.run("--librispeech_dir", libri_folder, "--parts", "dev-a")
    assert sorted(os.listdir(libri.data / "dev")) == ["spk2utt", "text", "utt2spk", "wav.scp"]
    (libri_folder / "SPEAKERS.TXT").write_text("7 | X | dev-clean | 8.0 | Anne\n")
    assert "SPEAKERS.TXT:1: '7 | X |" in libri.fails("--librispeech_dir", libri_folder, "--parts", "dev-a")


def test_part_of_another_size_than_the_release(libri, libri_folder):
    (libri_folder / "dev-a").rename(libri_folder / "dev-clean")
    said = libri.run("--librispeech_dir", libri_folder, "--parts", "dev-clean")
    assert f"warning: {libri_folder}/dev-clean: 2 utterances, the release has 2703" in said


def lose_audio(chapter: Path) -> str:
    (chapter / "7-2-0001.flac").unlink()
    return f"{chapter}/7-2.trans.txt:2: 7-2-0001 has no audio ({chapter}/7-2-0001{{.flac,.wav,.ogg}})"


def lose_line(chapter: Path) -> str:
    (chapter / "7-2.trans.txt").write_text("7-2-0000 A\n")
    return f"{chapter}/7-2-0001.flac: no transcript of 7-2-0001 in {chapter}/7-2.trans.txt"


def lose_transcript(chapter: Path) -> str:
    (chapter / "7-2.trans.txt").unlink()
    return f"{chapter}/7-2.trans.txt: no such file, yet there are 2 audio files (first: 7-2-0000)"


def lose_text(chapter: Path) -> str:
    (chapter / "7-2.trans.txt").write_text("7-2-0000 A\n7-2-0001 \n")
    return f"{chapter}/7-2.trans.txt:2: '7-2-0001 ', expected `7-2-NUMBER TEXT`"


def mix_chapters(chapter: Path) -> str:
    (chapter / "7-2.trans.txt").write_text("7-2-0000 A\n7-3-0001 B\n")
    return f"{chapter}/7-2.trans.txt:2: '7-3-0001 B', expected `7-2-NUMBER TEXT`"


def repeat_line(chapter: Path) -> str:
    (chapter / "7-2.trans.txt").write_text("7-2-0000 A\n7-2-0001 B\n7-2-0000 C\n")
    return f"{chapter}/7-2.trans.txt:3: 7-2-0000 again, first in line 1"


def break_encoding(chapter: Path) -> str:
    (chapter / "7-2.trans.txt").write_bytes(b"7-2-0000 CAF\xc9\n")
    return f"{chapter}/7-2.trans.txt: not UTF-8 at byte 12"


def empty_part(chapter: Path) -> str:
    for path in chapter.iterdir():
        path.unlink()
    chapter.rmdir()
    return "dev-a: no utterances; expected READER/CHAPTER/READER-CHAPTER.trans.txt"


DEFECTS = [lose_audio, lose_line, lose_transcript, lose_text, mix_chapters, repeat_line, break_encoding, empty_part]


@pytest.mark.parametrize("spoil", DEFECTS)
def test_defects_of_a_part(libri, libri_folder, spoil):
    message = spoil(libri_folder / "dev-a" / "7" / "2")
    assert message in libri.fails("--librispeech_dir", libri_folder, "--parts", " ".join(libri.parts))
    assert not libri.data.exists()


def test_all_defects_are_counted(libri, libri_folder):
    for path in libri_folder.glob("train-a/*/*/*.flac"):
        path.unlink()
    error = libri.fails("--librispeech_dir", libri_folder, "--parts", "train-a")
    assert error.count("has no audio") == 5 and "; and 1 more: extract or copy" in error


def test_utterance_in_two_parts(libri, libri_folder):
    libri.make_part(libri_folder / "copy", "train-b")
    (libri_folder / "copy" / "train-b").rename(libri_folder / "train-c")
    error = libri.fails("--librispeech_dir", libri_folder, "--parts", "train-b train-c")
    assert "1-11-0000 is in two parts: " in error and "train-c/1/11/1-11-0000.flac" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--parts", "train-clean-10"], "unknown part train-clean-10; did you mean train-clean-100?"),
        (["--parts", "train-clean-5 other"], "--parts: other would be in no set: name it in --train_parts"),
        (["--parts", ""], "no part is named"),
        (["--parts", "train-clean-5 dev-clean-2", "--train_set", "dev"], "two sets have the same name (dev, dev)"),
        (["--librispeech_dir", "/nowhere"], "/nowhere: no part train-clean-100, "),
        (["--librispeech_dri", "x"], "unknown option --librispeech_dri; did you mean --librispeech_dir?"),
    ],
)
def test_wrong_options(libri, options, message):
    assert message in libri.fails(*options)


def test_list_of_parts_is_the_release(libri):
    text = (libri.home / "local" / "parts.tsv").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    rows = {line.split("\t")[0]: line.split("\t") for line in lines}
    assert all(len(row) == 5 and len(row[3]) == 32 for row in rows.values())
    train = ["train-clean-100", "train-clean-360", "train-other-500"]
    assert sum(int(rows[part][4]) for part in train) == 281_241
    assert sum(int(rows[part][2]) for part in train) == 6387309499 + 23049477885 + 30593501606


def test_real_subset(libri, shared_data):
    """The sets of a folder with parts train-mini, dev-mini, test-mini, flac-mini equal the lists that come with it."""
    folder = shared_data / "LibriSpeech"
    parts = ["--parts", "train-mini dev-mini test-mini", "--train_set", "train", "--valid_set", "dev"]
    libri.run("--librispeech_dir", folder, *parts)
    libri.run("--librispeech_dir", folder, "--train_parts", "flac-mini", "--valid_parts", "", "--test_parts", "")
    for ours, theirs in {"train": "train", "dev": "dev", "test_mini": "test", "train_960": "flac"}.items():
        lists = folder / "lists" / theirs
        assert (libri.data / ours / "text").read_bytes() == (lists / "text").read_bytes()
        wavs = [line.replace(" ", f" {folder.resolve()}/", 1) for line in open(lists / "wav.scp")]
        assert (libri.data / ours / "wav.scp").read_text() == "".join(wavs)
        readers = dict(line.split() for line in open(lists / "utt2spk"))
        speakers = libri.table(f"{ours}/utt2spk")
        assert {key: speaker.partition("-")[0] for key, speaker in speakers.items()} == readers
        genders = dict(line.split() for line in open(lists / "spk2gender"))
        assert {s.partition("-")[0]: g for s, g in libri.table(f"{ours}/spk2gender").items()} == genders
