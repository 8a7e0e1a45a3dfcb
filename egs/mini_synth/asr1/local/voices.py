"""Which eSpeak voice variants speak in which set: two rules, fixed before anything was scored.

eSpeak NG ships about a hundred variants of each voice; many are robots, whispers or jokes that people do not understand
either. Rule 1 leaves those out by what their files say, never by how well they were recognised. Rule 2 shares out the
rest without looking at them.

Rule 1. A variant must sound like an adult who speaks normally. It is left out if

- *vocal tract*: it moves formant 1, 2 or 3 outside 87.5 to 125 % of the plain voice. A formant is moved by a percentage
  and a constant in Hz; they are added up at the neutral vowel (500, 1500, 2500 Hz: the resonances of a uniform tube of
  17.5 cm, the male adult whom the plain voice imitates). Resonances go with 1 / length: adult vocal tracts are between
  14 cm (17.5 / 14 = 125 %) and 20 cm (17.5 / 20 = 87.5 %) long. Further out no body speaks, and the vowels move onto
  each other.
- *balance*: strength or width of one of these formants, the strength of voiced sounds (`voicing`) or that of the noise
  in consonants (`consonants`) is changed by more than a factor of two (6 dB). Vowels or consonants disappear then
  under the rest, or under the noise that is added later.
- *quality of the voice*: breath noise above 10 (eSpeak's whispers start at 75; full voice is 100), roughness above 4
  (eSpeak's range is 0 to 7, the plain voice has 2) or flutter above 10 (20 is "croaky" by eSpeak's manual).
- *room*: an echo stronger than 20 % (peaks and dips of the spectrum then differ by more than 20 log10(1.2 / 0.8) =
  3.5 dB; eSpeak suggests 11 %, its robots have 100 and more).
- *name*: it has a `language` of its own, or a blank in its name (which cannot be a speaker id).

Rule 2. Variants whose formants 1 to 3 are moved equally are one family: the same vocal tract with another glottis.
Families of two and more train. The others are, separately for those labelled female and the rest, sorted by name,
shuffled with a fixed seed and dealt out: first the test voices, then the dev voices; what remains trains. So no
vocal tract of the dev or test set occurs in training, and each set has both sexes.
"""

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

NEUTRAL_HZ = {1: 500, 2: 1500, 3: 2500}
LOWEST, HIGHEST = 87.5, 125.0  # per cent of a formant's frequency
FACTOR = 2.0
MAX_BREATH, MAX_ROUGHNESS, MAX_FLUTTER, MAX_ECHO = 10, 4, 10, 20

DEAL = {"female": {"test": 2, "dev": 1}, "male": {"test": 4, "dev": 2}}
DEAL_SEED = 0


@dataclass
class Variant:
    """What a variant file sets; percentages of the plain voice unless said otherwise."""

    name: str
    sex: str = "male"  # "female" where the file says so; the plain voice is a man's
    formants: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)  # frequency, strength, width, + Hz
    numbers: dict[str, list[int]] = field(default_factory=dict)  # other settings
    languages: list[str] = field(default_factory=list)

    def formant(self, number: int) -> tuple[int, int, int, int]:
        """Frequency, strength and width in per cent, and the constant in Hz, of one formant."""
        return self.formants.get(number, (100, 100, 100, 0))

    def shift(self, number: int) -> float:
        """Where the neutral vowel's formant comes to lie, in per cent of the plain voice."""
        frequency, _, _, constant = self.formant(number)
        return frequency + 100 * constant / NEUTRAL_HZ[number]

    def tract(self) -> tuple[tuple[int, int], ...]:
        """What a family shares: how formants 1 to 3 are moved."""
        return tuple((self.formant(n)[0], self.formant(n)[3]) for n in NEUTRAL_HZ)


def read_variant(path: Path) -> Variant:
    """Read a variant file: a setting a line, comments after `//` or `#`; of a setting given twice the last counts."""
    variant = Variant(path.name)
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, *values = re.split(r"//|#", line)[0].split() or [""]
        if key == "language":
            variant.languages += values[:1]
        elif key == "gender" and values and values[0].lower() == "female":
            variant.sex = "female"
        elif key == "formant":
            number, *given = map(int, values)
            defaults = (100, 100, 100, 0)
            variant.formants[number] = tuple(given[:4]) + defaults[len(given) :]
        elif key in ("voicing", "consonants", "breath", "roughness", "flutter", "echo"):
            variant.numbers[key] = [int(value) for value in values]
    return variant


def reasons_against(variant: Variant) -> list[str]:
    """Why rule 1 leaves a variant out, one short phrase each; empty if it stays in."""
    reasons = []

    def unbalanced(percent: float) -> bool:
        return not 100 / FACTOR <= percent <= 100 * FACTOR

    for number in NEUTRAL_HZ:
        _, strength, width, _ = variant.formant(number)
        if not LOWEST <= variant.shift(number) <= HIGHEST:
            reasons.append(f"formant {number} at {variant.shift(number):.0f} %")
        if unbalanced(strength):
            reasons.append(f"formant {number} strength {strength} %")
        if unbalanced(width):
            reasons.append(f"formant {number} width {width} %")
    for setting in ("voicing", "consonants"):
        reasons += [f"{setting} {value} %" for value in variant.numbers.get(setting, []) if unbalanced(value)]
    limits = {"breath": MAX_BREATH, "roughness": MAX_ROUGHNESS, "flutter": MAX_FLUTTER}
    for setting, limit in limits.items():
        strongest = max(variant.numbers.get(setting, [0]))
        if strongest > limit:
            reasons.append(f"{setting} {strongest}")
    echo = variant.numbers.get("echo", [0, 0])  # delay in ms, strength in per cent
    if echo[1] > MAX_ECHO:
        reasons.append(f"echo {echo[1]} %")
    reasons += [f"language {language}" for language in variant.languages if language != "variant"]
    if " " in variant.name:
        reasons.append("blank in the name")
    return reasons


def share_out(variants: list[Variant]) -> dict[str, list[str]]:
    """Rules 1 and 2: names of the train, dev and test voices, each list sorted."""
    kept = [variant for variant in variants if not reasons_against(variant)]
    families: dict[tuple, list[Variant]] = {}
    for variant in kept:
        families.setdefault(variant.tract(), []).append(variant)
    sets: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for family in families.values():
        if len(family) > 1:
            sets["train"] += [variant.name for variant in family]
    for sex, counts in DEAL.items():
        singles = sorted(family[0].name for family in families.values() if len(family) == 1 and family[0].sex == sex)
        random.Random(DEAL_SEED).shuffle(singles)
        for name, count in (("test", counts["test"]), ("dev", counts["dev"]), ("train", len(singles))):
            sets[name] += singles[:count]
            singles = singles[count:]
    return {name: sorted(members) for name, members in sets.items()}
