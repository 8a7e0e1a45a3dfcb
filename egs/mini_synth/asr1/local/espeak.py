"""eSpeak NG through ctypes: text to a waveform, and text to phonemes.

The library and its data come with the `espeakng-loader` wheel: no root, no system package. eSpeak is one global state
machine, hence one instance per process. What was learned the hard way:

- Output mode 2 (synchronous) and a single `espeak_Initialize` per process. Workers that used mode 1 (retrieval) and
  initialised again for each piece of work stopped for ever after a while, without a message.
- A voice variant that does not exist is accepted and speaks the plain voice, so the name is checked against the files.
- The samples are not reproducible: the same call gives other bits, and a length a few samples away, even in a fresh
  process. A seed fixes text, voice, rate and pitch, never the samples.
"""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from whisfusion_asr.errors import UserError

SAMPLE_RATE = 22050
SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS
DO_NOT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: return an error instead of ending the process
POSITION_IN_CHARACTERS = 1
UTF8 = 1
IPA = 2  # phoneme mode of espeak_TextToPhonemes
RATE, PITCH, RANGE = 1, 3, 4  # espeak_PARAMETER

NO_MORE, WORD, END = 0, 1, 5  # espeak_EVENT_TYPE


class Event(ctypes.Structure):
    """espeak_EVENT; the last field is a union of a number, a pointer and 8 letters."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("message", ctypes.c_uint),
        ("position", ctypes.c_int),  # of the character in the text, counted from 1
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user", ctypes.c_void_p),
        ("what", ctypes.c_char * 8),
    ]


CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


def data_folder() -> Path:
    """The data folder of eSpeak NG; raises UserError when the wheel is not installed."""
    try:
        import espeakng_loader
    except ImportError:
        raise UserError("eSpeak NG is missing, mini_synth speaks with it: pip install espeakng-loader") from None
    return Path(espeakng_loader.get_data_path())


def variant_files() -> dict[str, Path]:
    """Voice variant name -> its file, sorted by name."""
    return {path.name: path for path in sorted((data_folder() / "voices" / "!v").iterdir())}


class Speaker:
    """The one eSpeak instance of this process; get it with `speaker()`."""

    def __init__(self) -> None:
        path = data_folder()
        import espeakng_loader

        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        # text, size with the final zero, position, its kind, end position, flags; identifier and user data: unused
        numbers = [ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint]
        self.library.espeak_Synth.argtypes = [ctypes.c_char_p, *numbers, ctypes.c_void_p, ctypes.c_void_p]
        self.library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
        self.library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        rate = self.library.espeak_Initialize(SYNCHRONOUS, 0, str(path).encode(), DO_NOT_EXIT)
        if rate != SAMPLE_RATE:
            raise UserError(
                f"{path}: eSpeak NG did not start (answer {rate}, expected {SAMPLE_RATE}): "
                "pip install --force-reinstall espeakng-loader"
            )
        self.pieces: list[np.ndarray] = []
        self.starts: dict[int, float] = {}  # of the last text: where a word begins in it -> seconds; its end
        self.text = ""
        self.variants = variant_files()
        self.callback = CALLBACK(self._keep)  # the library stores the pointer only: the object must live on
        self.library.espeak_SetSynthCallback(self.callback)

    def _keep(self, wave: ctypes._Pointer, samples: int, events: ctypes._Pointer) -> int:
        """Copy a piece of the waveform, which is only valid during the call, and note its words; 0 asks for more."""
        number = 0
        while events[number].type != NO_MORE:
            if events[number].type in (WORD, END):
                place = events[number].position - 1 if events[number].type == WORD else len(self.text)
                self.starts[place] = events[number].sample / SAMPLE_RATE
            number += 1
        if wave and samples > 0:
            self.pieces.append(np.ctypeslib.as_array(wave, (samples,)).copy())
        return 0

    def choose(self, accent: str, variant: str | None = None) -> None:
        """Select accent and variant, for example en-us and f1; raises UserError when either does not exist."""
        if variant is not None and variant not in self.variants:
            raise UserError(f"voice variant '{variant}' is not in {data_folder() / 'voices' / '!v'}")
        name = f"{accent}+{variant}" if variant else accent
        if self.library.espeak_SetVoiceByName(name.encode()) != 0:
            raise UserError(f"eSpeak NG has no voice '{name}' (British English is called en)")

    def speak(self, text: str, accent: str, variant: str, rate: int, pitch: int, pitch_range: int) -> np.ndarray:
        """The waveform (S,) int16 at 22,050 Hz.

        rate: words per minute; pitch, pitch_range: 0 to 100, 50 is the voice's own
        """
        self.choose(accent, variant)
        for parameter, value in ((RATE, rate), (PITCH, pitch), (RANGE, pitch_range)):
            self.library.espeak_SetParameter(parameter, value, 0)  # after the voice, which resets them
        self.pieces.clear()
        self.starts, self.text = {}, text
        data = text.encode()
        self.library.espeak_Synth(data, len(data) + 1, 0, POSITION_IN_CHARACTERS, 0, UTF8, None, None)
        self.library.espeak_Synchronize()
        return np.concatenate(self.pieces) if self.pieces else np.zeros(0, np.int16)

    def transcribe(self, text: str, accent: str) -> str:
        """The sounds of a text in the International Phonetic Alphabet, with marks for stress and length."""
        self.choose(accent)
        pointer = ctypes.c_char_p(text.encode())
        clauses = []
        while pointer.value is not None:  # the library moves the pointer clause by clause, to NULL at the end
            clauses.append(self.library.espeak_TextToPhonemes(ctypes.byref(pointer), UTF8, IPA).decode())
        return " ".join(clauses)


@cache
def speaker() -> Speaker:
    """This process's eSpeak, started on the first call."""
    return Speaker()
