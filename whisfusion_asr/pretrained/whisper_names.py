"""Names and shapes of a Whisper's tensors in its public layouts: one table each, for reading and for writing.

Between the layouts a tensor goes by its part, `encoder` or `decoder`, and Hugging Face's name inside that part.
"""

from collections.abc import Iterable
from dataclasses import dataclass

# Parts of a layer: Hugging Face's name, openai's.
ENCODER_LAYER = {
    "self_attn_layer_norm": "attn_ln", "self_attn.q_proj": "attn.query", "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value", "self_attn.out_proj": "attn.out", "final_layer_norm": "mlp_ln", "fc1": "mlp.0",
    "fc2": "mlp.2",
}  # fmt: skip
DECODER_LAYER = ENCODER_LAYER | {
    "encoder_attn_layer_norm": "cross_attn_ln", "encoder_attn.q_proj": "cross_attn.query",
    "encoder_attn.k_proj": "cross_attn.key", "encoder_attn.v_proj": "cross_attn.value",
    "encoder_attn.out_proj": "cross_attn.out",
}  # fmt: skip
# What is named otherwise in openai's file, layers apart.
OPENAI_TOP = {
    "encoder": {"embed_positions.weight": "positional_embedding", "layer_norm.weight": "ln_post.weight",
                "layer_norm.bias": "ln_post.bias"},
    "decoder": {"embed_positions.weight": "positional_embedding", "embed_tokens.weight": "token_embedding.weight",
                "layer_norm.weight": "ln.weight", "layer_norm.bias": "ln.bias"},
}  # fmt: skip
# CTranslate2's parts of a layer, and what of Hugging Face's stands in them, one below the other.
ENCODER_PACKED = {
    "self_attention/layer_norm": ["self_attn_layer_norm"],
    "self_attention/linear_0": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "self_attention/linear_1": ["self_attn.out_proj"],
    "ffn/layer_norm": ["final_layer_norm"], "ffn/linear_0": ["fc1"], "ffn/linear_1": ["fc2"],
}  # fmt: skip
DECODER_PACKED = ENCODER_PACKED | {
    "attention/layer_norm": ["encoder_attn_layer_norm"], "attention/linear_0": ["encoder_attn.q_proj"],
    "attention/linear_1": ["encoder_attn.k_proj", "encoder_attn.v_proj"],
    "attention/linear_2": ["encoder_attn.out_proj"],
}  # fmt: skip
PACKED = {"encoder": ENCODER_PACKED, "decoder": DECODER_PACKED}
PACKED_TOP = {
    "encoder": {"encoder/conv1": ["conv1"], "encoder/conv2": ["conv2"], "encoder/layer_norm": ["layer_norm"]},
    "decoder": {"decoder/layer_norm": ["layer_norm"]},
}


@dataclass(frozen=True)
class EncoderSizes:
    """The numbers of a Whisper encoder, under Hugging Face's names; vocab_size: 0 where no decoder is beside it."""

    d_model: int
    encoder_layers: int
    encoder_attention_heads: int
    encoder_ffn_dim: int
    num_mel_bins: int
    max_source_positions: int
    vocab_size: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of all tensors, 7 + 15 per layer; names without any prefix."""
        d = self.d_model
        shapes: dict[str, tuple[int, ...]] = {
            "conv1.weight": (d, self.num_mel_bins, 3), "conv1.bias": (d,), "conv2.weight": (d, d, 3),
            "conv2.bias": (d,), "embed_positions.weight": (self.max_source_positions, d),
            "layer_norm.weight": (d,), "layer_norm.bias": (d,),
        }  # fmt: skip
        return shapes | _layer_shapes(ENCODER_LAYER, self.encoder_layers, d, self.encoder_ffn_dim)


@dataclass(frozen=True)
class DecoderSizes:
    """The numbers of a Whisper decoder, under Hugging Face's names."""

    d_model: int
    decoder_layers: int
    decoder_attention_heads: int
    decoder_ffn_dim: int
    max_target_positions: int
    vocab_size: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of all tensors, 4 + 24 per layer; names without any prefix."""
        d = self.d_model
        shapes: dict[str, tuple[int, ...]] = {
            "embed_tokens.weight": (self.vocab_size, d), "embed_positions.weight": (self.max_target_positions, d),
            "layer_norm.weight": (d,), "layer_norm.bias": (d,),
        }  # fmt: skip
        return shapes | _layer_shapes(DECODER_LAYER, self.decoder_layers, d, self.decoder_ffn_dim)


def _layer_shapes(parts: Iterable[str], layers: int, d: int, ffn: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    inner = {"fc1": (ffn, d), "fc2": (d, ffn)}
    for i in range(layers):
        for part in parts:
            weight = inner.get(part, (d,) if part.endswith("norm") else (d, d))
            shapes[f"layers.{i}.{part}.weight"] = weight
            if not part.endswith("k_proj"):
                shapes[f"layers.{i}.{part}.bias"] = weight[:1]
    return shapes


def openai_names(part: str, names: Iterable[str]) -> dict[str, str]:
    """Hugging Face's name -> openai's, both without the part in front. part: encoder or decoder."""
    found = {}
    for name in names:
        theirs = OPENAI_TOP[part].get(name, name)
        if name.startswith("layers."):
            _, number, inner = name.split(".", 2)
            inner, kind = inner.rsplit(".", 1)
            theirs = f"blocks.{number}.{DECODER_LAYER[inner]}.{kind}"
        found[name] = theirs
    return found


def ctranslate2_names(part: str, layers: int) -> dict[str, list[str]]:
    """CTranslate2's variable -> names of the tensors that stand in it, one below the other; without scalars.

    The bias of a key is among them, which no other layout has and which is zero. part: encoder or decoder
    """
    found = {f"{part}/position_encodings/encodings": ["embed_positions.weight"]}
    if part == "decoder":
        found["decoder/embeddings/weight"] = ["embed_tokens.weight"]
    packed = dict(PACKED_TOP[part])
    for i in range(layers):
        packed |= {f"{part}/layer_{i}/{name}": [f"layers.{i}.{inner}" for inner in stored]
                   for name, stored in PACKED[part].items()}  # fmt: skip
    for name, stored in packed.items():
        kinds = ("gamma", "beta") if name.endswith("layer_norm") else ("weight", "bias")
        for theirs, kind in zip(kinds, ("weight", "bias"), strict=True):
            found[f"{name}/{theirs}"] = [f"{inner}.{kind}" for inner in stored]
    return found
