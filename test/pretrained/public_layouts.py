"""A small random Whisper in all public layouts, written here by hand."""

import struct
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import WhisperConfig, WhisperForConditionalGeneration

WIDTH, LAYERS, HEADS, BINS = 64, 11, 1, 80  # 11 layers: alphabetical order puts layer 10 before layer 2
CODES = {torch.float32: 0, torch.int8: 1, torch.int16: 2, torch.float16: 4, torch.bfloat16: 5}


def write_hugging_face(folder: Path, **changes: int) -> dict[str, Tensor]:
    """A folder as save_pretrained makes it; returns its tensors. float16, like the public files of most sizes."""
    torch.manual_seed(0)
    sizes = dict(d_model=WIDTH, encoder_layers=LAYERS, encoder_attention_heads=HEADS, encoder_ffn_dim=2 * WIDTH,
                 decoder_layers=1, decoder_attention_heads=HEADS, decoder_ffn_dim=WIDTH, vocab_size=60,
                 num_mel_bins=BINS) | changes  # fmt: skip
    ids = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3)
    model = WhisperForConditionalGeneration(WhisperConfig(**sizes, **ids, suppress_tokens=[], begin_suppress_tokens=[]))
    for name, parameter in model.named_parameters():
        if "embed_positions" not in name:
            torch.nn.init.normal_(parameter, 1.0 if "norm.weight" in name else 0.0, std=0.15)
    model.half().save_pretrained(folder)
    return load_file(folder / "model.safetensors")


OPENAI = [
    ("embed_positions.weight", "positional_embedding"), ("layers.", "blocks."),
    ("encoder_attn_layer_norm", "cross_attn_ln"), ("self_attn_layer_norm", "attn_ln"),
    ("encoder_attn.", "cross_attn."), ("self_attn.", "attn."), ("q_proj", "query"),
    ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "out"), ("final_layer_norm", "mlp_ln"), ("fc1", "mlp.0"),
    ("fc2", "mlp.2"), ("encoder.layer_norm", "encoder.ln_post"), ("decoder.layer_norm", "decoder.ln"),
    ("embed_tokens", "token_embedding"),
]  # fmt: skip


def write_openai(path: Path, tensors: dict[str, Tensor], heads: int = HEADS) -> None:
    """The .pt file of openai's own package."""
    state = {}
    for name, value in tensors.items():
        name = name.removeprefix("model.")
        for theirs, openai in OPENAI:
            name = name.replace(theirs, openai)
        state[name] = value
    position = state["encoder.positional_embedding"]
    blocks = len({name.split(".")[2] for name in state if name.startswith("encoder.blocks.")})
    dims = dict(n_mels=state["encoder.conv1.weight"].shape[1], n_audio_ctx=len(position),
                n_audio_state=position.shape[1], n_audio_head=heads, n_audio_layer=blocks,
                n_vocab=len(state["decoder.token_embedding.weight"]),
                n_text_ctx=448, n_text_state=position.shape[1], n_text_head=1, n_text_layer=1)  # fmt: skip
    torch.save({"dims": dims, "model_state_dict": state}, path)


def ctranslate2_variables(tensors: dict[str, Tensor], heads: int = HEADS) -> dict[str, Tensor]:
    """CTranslate2's names and packing, before quantisation and aliases."""
    tensors = {name.removeprefix("model."): value for name, value in tensors.items()}
    found = {f"{part}/num_heads": torch.tensor(heads, dtype=torch.int16) for part in ("encoder", "decoder")}
    found |= {f"decoder/{name}": torch.tensor(0).char() for name in
              ("alibi", "scale_embeddings", "start_from_zero_embedding")}  # fmt: skip
    found |= {"decoder/activation": torch.tensor(3).char(), "decoder/pre_norm": torch.tensor(1).char()}
    found |= {"decoder/alignment_heads": torch.tensor(1).short(), "decoder/alignment_layer": torch.tensor(-1).short()}

    def linear(target: str, *sources: str) -> None:
        found[f"{target}/weight"] = torch.cat([tensors[f"{source}.weight"] for source in sources])
        biases = [tensors.get(f"{source}.bias") for source in sources]
        size = len(tensors[f"{sources[0]}.weight"])
        found[f"{target}/bias"] = torch.cat([torch.zeros(size).half() if bias is None else bias for bias in biases])

    def norm(target: str, source: str) -> None:
        found[f"{target}/gamma"], found[f"{target}/beta"] = tensors[f"{source}.weight"], tensors[f"{source}.bias"]

    linear("encoder/conv1", "encoder.conv1")
    linear("encoder/conv2", "encoder.conv2")
    found["decoder/embeddings/weight"] = tensors["decoder.embed_tokens.weight"]
    found["decoder/projection/weight"] = tensors["decoder.embed_tokens.weight"]
    for part in ("encoder", "decoder"):
        found[f"{part}/position_encodings/encodings"] = tensors[f"{part}.embed_positions.weight"]
        norm(f"{part}/layer_norm", f"{part}.layer_norm")
    for prefix in sorted({".".join(name.split(".")[:3]) for name in tensors if ".layers." in name}):
        part, _, number = prefix.split(".")
        target = f"{part}/layer_{number}"
        norm(f"{target}/self_attention/layer_norm", f"{prefix}.self_attn_layer_norm")
        linear(f"{target}/self_attention/linear_0", *(f"{prefix}.self_attn.{x}_proj" for x in "qkv"))
        linear(f"{target}/self_attention/linear_1", f"{prefix}.self_attn.out_proj")
        norm(f"{target}/ffn/layer_norm", f"{prefix}.final_layer_norm")
        linear(f"{target}/ffn/linear_0", f"{prefix}.fc1")
        linear(f"{target}/ffn/linear_1", f"{prefix}.fc2")
        if part == "decoder":
            norm(f"{target}/attention/layer_norm", f"{prefix}.encoder_attn_layer_norm")
            linear(f"{target}/attention/linear_0", f"{prefix}.encoder_attn.q_proj")
            linear(f"{target}/attention/linear_1", *(f"{prefix}.encoder_attn.{x}_proj" for x in "kv"))
            linear(f"{target}/attention/linear_2", f"{prefix}.encoder_attn.out_proj")
    return found


def quantised(variables: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Weights as int8 with a scale per row, or int16 with one scale; biases, norms and positions stay."""
    result = dict(variables)
    for name, value in variables.items():
        if name.endswith("/weight"):
            rows = value.float().flatten(1)
            peak = rows.abs().amax(1) if kind == "int8" else rows.abs().amax()
            scale = torch.where(peak > 0, (127 if kind == "int8" else 1024) / peak, 1.0)
            result[f"{name}_scale"] = scale
            whole = (rows * (scale[:, None] if scale.ndim else scale)).round().reshape(value.shape)
            result[name] = whole.to(getattr(torch, kind))
    return result


def with_aliases(variables: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each tensor once, under its alphabetically first name, and alias -> that name for the others."""
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name in sorted(variables):
        value = variables[name]
        same = [n for n, v in kept.items() if value.ndim and v.dtype == value.dtype and torch.equal(v, value)]
        if same:
            aliases[name] = same[0]
        else:
            kept[name] = value
    return kept, aliases


def pack(variables: dict[str, Tensor], aliases: dict[str, str], version: int = 6, spec: str = "WhisperSpec") -> bytes:
    """The bytes of model.bin."""

    def text(name: str) -> bytes:
        return struct.pack("<H", len(name) + 1) + name.encode() + b"\0"

    data = [struct.pack("<I", version), text(spec), struct.pack("<II", 3, len(variables))]
    for name in sorted(variables):
        value = variables[name]
        plain = value.contiguous().view(torch.int16) if value.dtype == torch.bfloat16 else value
        raw = plain.numpy().tobytes()
        data += [text(name), struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)]
        data += [struct.pack("<BI", CODES[value.dtype], len(raw)), raw]
    data.append(struct.pack("<I", len(aliases)))
    return b"".join(data + [text(alias) + text(name) for alias, name in aliases.items()])


def write_ctranslate2(folder: Path, tensors: dict[str, Tensor], kind: str = "float16", heads: int = HEADS) -> None:
    """A faster-whisper folder; kind: float16, float32, bfloat16, int8 or int16."""
    kept, aliases = with_aliases(ctranslate2_variables(tensors, heads))
    if kind in ("int8", "int16"):
        kept = quantised(kept, kind)
    else:
        kept = {n: v.to(getattr(torch, kind)) if v.dtype == torch.float16 else v for n, v in kept.items()}
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(pack(kept, aliases))
    (folder / "config.json").write_text('{"alignment_heads": [[0, 0]], "lang_ids": [], "suppress_ids": []}')
