"""Given words as Whisper writes them: what is taken from it, and that no word is lost, won or changed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisfusion_asr.data.rewriting import rewritten
from whisfusion_asr.data.text_form import TextForm

PLAIN = TextForm("lower", "remove")


def english(text: str) -> str:
    """Enough of an English normaliser."""
    spelt = {"mr": "mister", "30": "thirty", "favorite": "favourite"}
    return " ".join(spelt.get(word, word) for word in PLAIN(text).split())


@pytest.mark.parametrize(("words", "heard", "wanted"), [
    ("HE ASKED JUDAS IF IT WAS HIS", "He asked Judas, if it was his.", "He asked Judas, if it was his."),
    ("OF MY SHATTERED SELF RESPECT I AM", "of my shattered self-respect. I am", "of my shattered self-respect. I am"),
    ("many-eyed fear", "Many eyed fear", "Many eyed fear"),
    ("MY FAVOURITE MISTER KARA SAW THIRTY", "My favorite Mr. Cara saw 30.", "My favorite Mr. Kara saw 30."),
    ("MY FAVOURITE AND MISTER BELL", "My favorite and Mr. Bell.", "My favorite and Mr. Bell."),
    ("DINE WITH GEORGE GATHERCOLE", "Dine with George Gather Cole.", "Dine with George Gathercole."),
    ("THE GIRL WHO FILLED T X WITH AWE", "The girl who filled TX with awe", "The girl who filled T x with awe"),
    ("so the first one said", "So the the very first one, said", "So the first one, said"),
    ("A WORD THAT IT LOST HERE", "A word here!", "A word that it lost here!"),
    ("Das Haus, sagte Anna", "das haus sagte", "das haus sagte Anna"),
    ("NOTHING HEARD", "", "nothing heard"),
    ("NOTHING HEARD", " ... -", "nothing heard"),
    ("", "Invented.", ""),
    ("costs fifty", "costs $50 %", "costs fifty"),
])  # fmt: skip
def test_words_take_the_form_that_was_heard(words: str, heard: str, wanted: str) -> None:
    assert rewritten(words, heard, english) == wanted


TEXTS = st.lists(
    st.sampled_from(["the", "The", "self-respect", "self", "respect", "don't", "Kara,", "kara", "30", "T", "...", "$"]),
    max_size=8,
).map(" ".join)


@settings(deadline=None, max_examples=300)
@given(words=TEXTS, heard=TEXTS)
def test_the_words_stay_the_same(words: str, heard: str) -> None:
    assert PLAIN(rewritten(words, heard, PLAIN)).split() == PLAIN(words).split()


@settings(deadline=None, max_examples=100)
@given(text=TEXTS)
def test_who_is_heard_right_is_written_as_heard(text: str) -> None:
    marked = [word for word in text.split() if PLAIN(word)]
    assert rewritten(PLAIN(text).upper(), text, PLAIN).split() == marked
