"""Every YAML file of the presets and recipes loads, and means what it seems to mean."""

import re

import pytest
import yaml

# YAML 1.1 reads a number without a dot and with an exponent as text: 1e-3 is the string "1e-3".
FALSE_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?[eE][+-]?\d+")


class UniqueKeys(yaml.SafeLoader):
    """Refuses a mapping that names a key twice; plain PyYAML keeps the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """The mapping of a node.

        raises ValueError: a key stands twice
        """
        keys = [key.value for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise ValueError(f"line {node.start_mark.line + 1}: {sorted(twice)} twice")
        return super().construct_mapping(node, deep)


def values(tree: object) -> list[object]:
    """All leaves of nested mappings and lists."""
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in values(value)]
    if isinstance(tree, list):
        return [leaf for value in tree for leaf in values(value)]
    return [tree]


def problems_of(name: str, text: str) -> list[str]:
    """What is wrong with one file."""
    try:
        tree = yaml.load(text, UniqueKeys)
    except (yaml.YAMLError, ValueError) as error:
        return [f"{name}: {error}"]
    if not isinstance(tree, dict) or not tree:
        return [f"{name}: is no mapping"]
    return [
        f"{name}: {leaf} is read as text, write it with a dot: {float(leaf)!r}"
        for leaf in values(tree)
        if isinstance(leaf, str) and FALSE_NUMBER.fullmatch(leaf)
    ]


def test_every_yaml_file_loads(texts):
    files = [s for s in texts if s.name.endswith((".yaml", ".yml")) and s.name.startswith(("conf/", "egs/"))]
    assert files
    assert [problem for source in files for problem in problems_of(source.name, source.text)] == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("lr: 1e-3", "read as text"),
        ("a: {b: [2E5]}", "read as text"),
        ("a: 1\nb: 2\na: 3", "twice"),
        ("a:\n  b: 1\n  b: 2", "twice"),
        ("a: [1", "x.yaml"),
        ("- 1", "no mapping"),
        ("", "no mapping"),
    ],
)
def test_a_bad_file_is_found(text, problem):
    assert len(problems_of("x.yaml", text)) == 1
    assert problem in problems_of("x.yaml", text)[0]


def test_a_good_file_is_left_alone():
    assert problems_of("x.yaml", "lr: 1.0e-3\nname: e3\nlist: [1, {a: 2.0e+5}]") == []
