"""Reading logits by blocks and parts: what torch's own functions say."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whisfusion_asr.decoding import rows
from whisfusion_asr.decoding.rows import BLOCK, CACHED, in_cache, largest

WIDTHS = (1, 7, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 1, 3 * BLOCK, 4001)


@given(st.integers(0, 5), st.sampled_from(WIDTHS), st.integers())
def test_the_largest_is_where_torch_finds_it(count: int, width: int, seed: int) -> None:
    """At any place: inside a block, in the rest behind the last whole one; where a class is ruled out, too."""
    generator = torch.Generator().manual_seed(seed % 2**31)
    table = torch.randn(count, width, generator=generator)
    table[:, torch.randint(width, (1,), generator=generator)] = -torch.inf
    if count:
        table[0, -1] = 9.0
    value, place = largest(table)
    wanted = table.max(-1)
    assert torch.equal(value, wanted.values) and torch.equal(place, wanted.indices)


@pytest.mark.parametrize("place", [0, BLOCK - 1, BLOCK, 2 * BLOCK, 2 * BLOCK + 5])
def test_each_edge_of_a_block(place: int) -> None:
    table = torch.zeros(2, 2 * BLOCK + 6)
    table[1, place] = 1.0
    assert largest(table)[1][1] == place and largest(table)[0].tolist() == [0.0, 1.0]


def test_not_a_number_is_not_hidden() -> None:
    table = torch.zeros(1, 4 * BLOCK)
    table[0, 700] = torch.nan
    assert largest(table)[0].isnan().all()


@pytest.mark.parametrize(("count", "width", "sizes"), [
    (7, CACHED // 3, [3, 3, 1]), (2, CACHED + 1, [1, 1]), (3, 10, [3]), (0, 10, [0]),
])  # fmt: skip
def test_parts_are_whole_rows_in_order(count: int, width: int, sizes: list[int]) -> None:
    table = torch.arange(count)[:, None].expand(count, width)
    parts = list(in_cache([table]))
    assert [len(part) for part in parts] == sizes and torch.equal(torch.cat(parts), table)


def test_another_device_gets_it_in_one() -> None:
    """It has kernels of its own for both."""
    table = torch.empty(9, rows.CACHED, device="meta")
    assert len(list(in_cache([table]))) == 1 and largest(table)[0].shape == (9,)
