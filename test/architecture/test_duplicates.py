"""No block of code stands in two places."""

from collections import defaultdict

SHARED_LINES = 12
CODE = (".py", ".sh")


def code_lines(text: str) -> list[tuple[int, str]]:
    """(line number, stripped line) of what is work: no blank lines, comments, imports or lone brackets."""
    kept = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if any(letter.isalnum() for letter in line) and not line.startswith(("#", "import ", "from ", '"""')):
            kept.append((number, line))
    return kept


def shared_blocks(files: dict[str, str], size: int = SHARED_LINES) -> list[str]:
    """Places, also within one file, where `size` consecutive code lines are equal; one message per block."""
    places: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, text in files.items():
        lines = code_lines(text)
        for start in range(len(lines) - size + 1):
            block = tuple(line for _, line in lines[start : start + size])
            places[block].append((name, lines[start][0]))
    messages, previous = [], ()
    for block, found in places.items():
        # the next windows of the same pair of places belong to the block that is already reported
        if len(found) > 1 and block[:-1] != previous[1:]:
            messages.append("equal lines at " + " and ".join(f"{name}:{line}" for name, line in found))
        if len(found) > 1:
            previous = block
    return messages


def test_no_block_stands_in_two_places(texts):
    files = {source.name: source.text for source in texts if source.name.endswith(CODE)}
    assert shared_blocks(files) == []


def test_a_shared_block_is_found_once_and_a_shorter_one_is_not():
    block = [f"value_{number} = compute({number})" for number in range(14)]
    first = "\n".join(["import os", *block, "done = True"])
    second = "\n".join(["x = 1", *block[:7], "", "    # a comment between", *block[7:]])
    assert shared_blocks({"a.py": first, "b.py": second}) == ["equal lines at a.py:2 and b.py:2"]
    assert shared_blocks({"a.py": first, "b.py": "\n".join(block[:11])}) == []


def test_a_block_repeated_within_one_file_is_found():
    block = "\n".join(f"call({number})" for number in range(12))
    assert len(shared_blocks({"a.py": f"{block}\nother()\n{block}"})) == 1
