"""The sentences of the mini_synth corpus: a small English grammar and the rule that keeps the sets apart.

A sentence is one clause, or two joined by a conjunction:

    clause   = subject [adverb] verb phrase [place] [time]
    subject  = (determiner [adjective] person) | (number [adjective] people)
    verb     = transitive object | modal infinitive object | intransitive
    object   = (determiner [adjective] thing) | (number [adjective] things)
    place    = preposition "the" place

Verbs stand in the past or after a modal, so that singular and plural subjects take the same form. No determiner depends
on the sound or number of the noun after it. No two words of the vocabulary sound alike (`espeak.transcribe` tells;
the test asks it for every accent), because a homophone is an error that no recogniser could avoid: there is no "to"
beside "two", no "for" beside "four".
"""

import random
from collections.abc import Sequence

DETERMINERS = "the my our her their this that every another".split()
NUMBERS = "two three four five six seven eight nine ten twelve twenty".split()
ADJECTIVES = (
    "yellow purple small huge ancient broken empty heavy golden wooden quiet clever friendly hungry lazy gentle famous "
    "young curious narrow silver dusty expensive beautiful"
).split()
PERSONS = (
    "teacher farmer doctor captain painter baker sailor driver singer lawyer soldier student engineer neighbor "
    "grandmother visitor pilot musician"
).split()
THINGS = (
    "lamp table window bottle basket letter picture hammer blanket candle ladder mirror pencil camera guitar helmet "
    "jacket umbrella violin carpet ticket telephone banana mushroom elephant rabbit dragon chicken monkey spider "
    "penguin newspaper"
).split()
TRANSITIVES = (
    "carried found painted dropped noticed borrowed repaired described followed collected washed stole ordered "
    "polished admired protected measured chased bought delivered ignored lifted discovered touched"
).split()
MODALS = "can will should must might could".split()
INFINITIVES = (
    "sell build examine forget bring choose destroy photograph replace recommend understand move open throw catch keep "
    "inspect imagine"
).split()
INTRANSITIVES = (
    "arrived laughed waited slept danced vanished whispered shouted stumbled returned escaped smiled argued complained "
    "traveled listened jumped hesitated"
).split()
ADVERBS = (
    "quickly slowly often never always secretly carefully suddenly rarely eagerly silently happily finally usually "
    "angrily politely"
).split()
PREPOSITIONS = "near behind under beside inside above around across outside beyond".split()
PLACES = (
    "garden kitchen river mountain library hospital station market museum forest village harbor bridge castle school "
    "church airport factory island desert valley theater restaurant tunnel"
).split()
TIMES = (
    "yesterday",
    "today",
    "tonight",
    "before breakfast",
    "after lunch",
    "after dinner",
    "during the winter",
    "during the summer",
    "during the storm",
    "last monday",
    "last tuesday",
    "last friday",
    "on sunday",
    "on thursday",
    "at midnight",
    "at noon",
    "in january",
    "in september",
)
CONJUNCTIONS = "and but because while although until so".split()

MAX_WORDS = 19
SET_ORDER = ("test", "dev", "train", "text_valid", "text_train")


def plural(noun: str) -> str:
    """The plural of one of our nouns: all of them take a plain -s."""
    return noun + "s"


def vocabulary() -> list[str]:
    """All words that a sentence can hold, sorted."""
    verbs = TRANSITIVES + MODALS + INFINITIVES + INTRANSITIVES
    words = set(DETERMINERS + NUMBERS + ADJECTIVES + PERSONS + THINGS + verbs + ADVERBS + PREPOSITIONS + PLACES)
    words.update(CONJUNCTIONS)
    words.update(word for time in TIMES for word in time.split())
    words.update(plural(noun) for noun in PERSONS + THINGS)
    return sorted(words)


def noun_phrase(rng: random.Random, nouns: Sequence[str]) -> list[str]:
    """Draw `the [adjective] noun` (four of five) or `number [adjective] nouns`."""
    adjective = [rng.choice(ADJECTIVES)] if rng.random() < 0.35 else []
    noun = rng.choice(nouns)
    if rng.random() < 0.8:
        return [rng.choice(DETERMINERS), *adjective, noun]
    return [rng.choice(NUMBERS), *adjective, plural(noun)]


def verb_phrase(rng: random.Random) -> list[str]:
    """Draw a verb with what it needs: an object after transitive verbs and infinitives, nothing otherwise."""
    kind = rng.random()
    if kind < 0.5:
        return [rng.choice(TRANSITIVES), *noun_phrase(rng, THINGS)]
    if kind < 0.75:
        return [rng.choice(MODALS), rng.choice(INFINITIVES), *noun_phrase(rng, THINGS)]
    return [rng.choice(INTRANSITIVES)]


def clause(rng: random.Random) -> list[str]:
    """Draw one clause, a list of words."""
    words = noun_phrase(rng, PERSONS)
    if rng.random() < 0.4:
        words.append(rng.choice(ADVERBS))
    words += verb_phrase(rng)
    if rng.random() < 0.4:
        words += [rng.choice(PREPOSITIONS), "the", rng.choice(PLACES)]
    if rng.random() < 0.25:
        words += rng.choice(TIMES).split()
    return words


def sentence(rng: random.Random, max_words: int = MAX_WORDS) -> str:
    """Draw one sentence of at most `max_words` words (3 or more), lower case, without punctuation."""
    while True:
        words = clause(rng)
        if rng.random() < 0.2:
            words += [rng.choice(CONJUNCTIONS), *clause(rng)]
        if len(words) <= max_words:
            return " ".join(words)


def draw_sets(sizes: dict[str, int], seed: int, max_words: int = MAX_WORDS) -> dict[str, list[str]]:
    """Draw the sentences of all sets: no sentence occurs twice, within a set or across sets.

    sizes: set name (of SET_ORDER) -> number of sentences
    seed: the sets are a function of (sizes, seed, max_words) alone. Test comes first, so the test sentences do not
        depend on the sizes of the other sets.
    max_words: longest sentence
    returns: set name -> sentences, in the order drawn
    """
    taken: set[str] = set()
    drawn: dict[str, list[str]] = {}
    for name in SET_ORDER:
        rng = random.Random(f"{seed} {name}")
        sentences: list[str] = []
        while len(sentences) < sizes.get(name, 0):
            new = sentence(rng, max_words)
            if new not in taken:
                taken.add(new)
                sentences.append(new)
        drawn[name] = sentences
    return drawn
