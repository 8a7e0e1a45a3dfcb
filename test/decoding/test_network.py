"""What the network is asked and answers: probabilities and entropies by their formulas, for any vocabulary."""

import pytest
import torch

from whisfusion_asr.decoding.look import Look, look_back
from whisfusion_asr.decoding.network import Ask, ask_network
from whisfusion_asr.decoding.rows import CACHED

END = 0


def table(slots: int, vocab: int, scale: float) -> torch.Tensor:
    """Logits of each slot; some classes are ruled out."""
    logits = torch.randn(slots, vocab, generator=torch.Generator().manual_seed(vocab)) * scale
    logits[:, 3] = -torch.inf
    return logits


@pytest.mark.parametrize("vocab", [8, 1500, CACHED // 2])  # the last: two rows in each part
@pytest.mark.parametrize("scale", [0.01, 3.0, 100.0])
def test_probability_and_entropy_by_formula(vocab: int, scale: float) -> None:
    """Where text stands the end is no choice; what is not asked stays 0."""
    logits, asked = table(5, vocab, scale), torch.tensor([[True, True, False, True, True, True]])
    text = torch.tensor([False, True, True, False, True, False])
    ask = Ask(torch.full((1, 6), vocab), asked, text, entropy=True)
    ((answer,), rows) = ask_network(lambda canvas, owners, wanted: iter([logits[:2], logits[2:]]), [ask], [0], END)
    exact = logits.double()
    exact[text[asked[0]], END] = -torch.inf
    p = exact.softmax(-1)
    assert rows == [1] and answer.token[asked].tolist() == p.argmax(-1).tolist()
    torch.testing.assert_close(answer.probability[asked].double(), p.amax(-1), rtol=1e-5, atol=1e-7)
    entropy = torch.special.entr(p).sum(-1)
    torch.testing.assert_close(answer.entropy[asked].double(), entropy, rtol=1e-4, atol=1e-6)
    assert (answer.entropy >= 0).all() and answer.entropy[0, 2] == answer.probability[0, 2] == 0


@pytest.mark.parametrize("vocab", [8, CACHED // 2])
def test_what_is_foretold_by_formula(vocab: int) -> None:
    """The best continuation, its probability, and that of the token that stands there."""
    logits, canvas = table(5, vocab, 3.0), torch.tensor([4, 5, 6, 7, 1])
    p = logits.double().softmax(-1)[1:4]
    (found,) = look_back(lambda canvas, owners, asked: iter([logits[1:4]]), [Look(canvas, 1, 4)], [0], END)
    assert found.token.tolist() == p.argmax(-1).tolist()
    torch.testing.assert_close(found.probability.double(), p.amax(-1), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.shown.double(), p[range(3), canvas[1:4]], rtol=1e-5, atol=1e-7)
