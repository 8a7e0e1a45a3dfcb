"""The `whisfusion` script: its list of commands and how it finds them."""

from pathlib import Path

import pytest

import whisfusion_asr
from whisfusion_asr.bin import main as script

BIN = Path(script.__file__).parent


def test_the_list_is_complete():
    files = {path.stem for path in BIN.glob("*.py")} - {"__init__", "main", "arguments", "recogniser"}
    assert {script.MODULES.get(name, name) for name in script.COMMANDS} == files
    assert set(script.MODULES) <= set(script.COMMANDS)


def test_help_has_a_line_for_each_command(capsys):
    with pytest.raises(SystemExit) as stop:
        script.main(["--help"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for name, text in script.COMMANDS.items():
        assert any(line.split()[:1] == [name] and line.endswith(text) for line in lines)
    assert max(map(len, lines)) <= 100


def test_no_command_is_a_wrong_call(capsys):
    with pytest.raises(SystemExit) as stop:
        script.main([])
    assert stop.value.code == 2
    assert capsys.readouterr().out.startswith("usage: whisfusion COMMAND")


@pytest.mark.parametrize(
    ("word", "hint"),
    [("docter", "did you mean doctor?"), ("dump-state", "did you mean dump_states?"), ("x", "known: ")],
)
def test_unknown_command(word, hint, capsys):
    with pytest.raises(SystemExit) as stop:
        script.main([word])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: whisfusion: unknown command {word!r}; {hint}")
    assert len(error.splitlines()) == 1


def test_version(capsys):
    script.main(["--version"])
    assert capsys.readouterr().out == f"{whisfusion_asr.__version__}\n"


class FakeImport:
    """Stands for importlib: remembers the module asked for and the words it is called with."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.module, self.words = error, None, None

    def import_module(self, name: str) -> "FakeImport":
        """The module, which is this object."""
        if self.error:
            raise self.error
        self.module = name
        return self

    def main(self, words: list[str]) -> None:
        """The command."""
        self.words = words


@pytest.mark.parametrize("word", ["dump-states", "dump_states"])
def test_dashes_and_underscores_are_equal_and_arguments_pass_untouched(word, monkeypatch):
    fake = FakeImport()
    monkeypatch.setattr(script, "importlib", fake)
    script.main([word, "--nj", "2", "--a-b=c"])
    assert (fake.module, fake.words) == ("whisfusion_asr.bin.dump_states", ["--nj", "2", "--a-b=c"])


def test_a_command_may_be_a_word_of_python(monkeypatch):
    fake = FakeImport()
    monkeypatch.setattr(script, "importlib", fake)
    script.main(["import", "--out", "x"])
    assert (fake.module, fake.words) == ("whisfusion_asr.bin.import_model", ["--out", "x"])


def test_a_missing_package_names_the_doctor(monkeypatch, capsys):
    monkeypatch.setattr(script, "importlib", FakeImport(ModuleNotFoundError("no", name="espnet2.tasks")))
    with pytest.raises(SystemExit) as stop:
        script.main(["train"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "train needs the package espnet2.tasks, which is not installed; `whisfusion doctor`" in error


def test_a_hole_in_our_own_package_is_an_internal_error(monkeypatch):
    monkeypatch.setattr(script, "importlib", FakeImport(ModuleNotFoundError("no", name="whisfusion_asr.data.x")))
    with pytest.raises(ModuleNotFoundError):
        script.main(["train"])
