"""Whisper's own decoder as the masked-diffusion decoder: it hears already, and learns to write in parallel.

Weights, tokens, positions and prefix are Whisper's. New are that self-attention sees the whole canvas, one embedding
for the mask, and an output bias. The autoregressive shift stays: what stands in slot i is read at slot i - 1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whisfusion_asr.errors import UserError
from whisfusion_asr.models.adapter import Acoustics, Memory
from whisfusion_asr.models.attention import Attend, Fold, attend_shared, attention_weights, split_heads
from whisfusion_asr.models.flash import check_attention, choose_attention
from whisfusion_asr.models.frontend import frames_mask
from whisfusion_asr.models.listening import watched_weights
from whisfusion_asr.models.whisper_encoder import load_part
from whisfusion_asr.models.whisper_vocabulary import prefix_ids, read_vocabulary, whisper_ids


class SelfAttention(nn.Module):
    """Self-attention over prefix and canvas, with Whisper's projections (no bias for the keys)."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(size, size)
        self.k_proj = nn.Linear(size, size, bias=False)
        self.v_proj = nn.Linear(size, size)
        self.out_proj = nn.Linear(size, size)

    def forward(self, x: Tensor, inside: Tensor | None, causal: bool, attention: Attend) -> Tensor:
        """x: (R, S, D); inside: (R, S) bool, what may be seen; causal: see the left only. Returns (R, S, D)."""
        query, key, value = (split_heads(part(x), self.heads) for part in (self.q_proj, self.k_proj, self.v_proj))
        if causal:  # what lies beyond a row's length is to the right of all its slots
            return self.out_proj(attention(query, key, value, causal=True))
        return self.out_proj(attention(query, key, value, inside))


class Block(nn.Module):
    """Self-attention and feed-forward of a layer; what reads the audio is kept apart, to be frozen on its own."""

    def __init__(self, size: int, heads: int, ffn_size: int) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(size)
        self.attn = SelfAttention(size, heads)
        self.norm_2 = nn.LayerNorm(size)
        self.fc1 = nn.Linear(size, ffn_size)
        self.fc2 = nn.Linear(ffn_size, size)

    def mlp(self, x: Tensor) -> Tensor:
        """x: (R, S, D). Returns the feed-forward branch, (R, S, D)."""
        return self.fc2(F.gelu(self.fc1(self.norm_2(x))))


class CrossAttention(nn.Module):
    """The asking half of cross-attention: norm, queries, output."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(size)
        self.q_proj = nn.Linear(size, size)
        self.out_proj = nn.Linear(size, size)

    def forward(self, x: Tensor, key: Tensor, value: Tensor, key_mask: Tensor, fold: Fold | None,
                attention: Attend) -> Tensor:
        """x: (R, S, D); key, value: (B, H, T, E); key_mask: (B, T); fold: None when R = B. Returns (R, S, D)."""
        query = self.query(x)
        if fold is None:
            return self.out_proj(attention(query, key, value, key_mask))
        return self.out_proj(attend_shared(query, key, value, key_mask, fold, attention))

    def query(self, x: Tensor) -> Tensor:
        """What x (R, S, D) asks the states, (R, H, S, E)."""
        return split_heads(self.q_proj(self.norm(x)), self.heads)

    def weights(self, x: Tensor, key: Tensor, value: Tensor, key_mask: Tensor, *_: object) -> Tensor:
        """How much each slot looks at each state: of `forward`'s arguments with R = B, (B, H, S, T)."""
        return attention_weights(self.query(x), key, key_mask)


class Reader(nn.Module):
    """The answering half of cross-attention: keys and values of the states, computed once per utterance."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(size, size, bias=False)
        self.v_proj = nn.Linear(size, size)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """states: (B, T, D). Returns keys and values, (B, H, T, E)."""
        return split_heads(self.k_proj(states), self.heads), split_heads(self.v_proj(states), self.heads)


class Layers(nn.Module):
    """Whisper's positions and layers up to the last norm, without what reads the audio."""

    def __init__(self, whisper: nn.Module) -> None:
        """whisper: transformers' decoder, whose weights are copied under our names."""
        super().__init__()
        config = whisper.config
        size, heads = config.d_model, config.decoder_attention_heads
        self.positions = nn.Embedding.from_pretrained(whisper.embed_positions.weight.detach().clone(), freeze=False)
        self.blocks = nn.ModuleList(Block(size, heads, config.decoder_ffn_dim) for _ in whisper.layers)
        self.adapters = nn.ModuleList(CrossAttention(size, heads) for _ in whisper.layers)
        self.norm = nn.LayerNorm(size)
        self.norm.load_state_dict(whisper.layer_norm.state_dict())
        for block, cross, layer in zip(self.blocks, self.adapters, whisper.layers, strict=True):
            for ours, theirs in (
                (block.norm_1, layer.self_attn_layer_norm), (block.attn, layer.self_attn),
                (block.norm_2, layer.final_layer_norm), (block.fc1, layer.fc1), (block.fc2, layer.fc2),
                (cross.norm, layer.encoder_attn_layer_norm),
                (cross.q_proj, layer.encoder_attn.q_proj), (cross.out_proj, layer.encoder_attn.out_proj),
            ):
                ours.load_state_dict(theirs.state_dict())


class WhisperDiffusionDecoder(Layers):
    """A CanvasDecoder made of a Whisper folder. A canvas holds text only: the prefix is put before it in here.

    vocab_size, pieces: the token list, whose rows are found in Whisper's vocabulary by their spelling
    encoder_output_size: width of the states, padded or of true length, 50 a second or pooled to 25
    model: folder in Hugging Face's layout, or a name on its hub
    language, task: prefix of a multilingual Whisper; an English-only one has neither
    causal: keep Whisper's causal mask; without training the logits are then Whisper's own
    logit_shift: read slot i at slot i - 1, as Whisper does (the first one at the prefix's end)
    separate_reading: `hidden_before` has positions and layers of its own, a second copy of Whisper's, so that reading
        from left to right and filling masks can each be trained without harm to the other
    dropout: after embedding and in every branch, in training
    attention: auto, sdpa or flash, see models/flash.py

    Parts for freeze_param: `embed` (token table, input and output), `positions`, `mask`, `head_bias`, `blocks`
    (self-attention and feed-forward), `adapters` (queries and outputs of the cross-attention), `readers` (its keys and
    values), `norm`; `causal_layers` (the copy that reads from left to right: positions, blocks, adapters, norm).
    Raises UserError: no weights, another width, a token that Whisper does not have.
    """

    brings_weights = True  # frozen parts stay in the folder they came from
    prefix = 0
    ruler = None

    def __init__(self, vocab_size: int, encoder_output_size: int | None, pieces: list[str] | None, model: str,
                 language: str = "en", task: str = "transcribe", causal: bool = False, logit_shift: bool = True,
                 separate_reading: bool = False, dropout: float = 0.0, attention: str = "auto") -> None:
        whisper = load_part(model, "decoder").float()
        super().__init__(whisper)
        config = whisper.config
        if encoder_output_size != config.d_model:
            raise UserError(f"decoder_conf.model: {model} reads states of width {config.d_model}, but those here have "
                            f"width {encoder_output_size}: take the Whisper that made the states")
        if pieces is None or len(pieces) != vocab_size:
            raise UserError("decoder: whisper_diffusion needs the pieces of its token list (token_list)")
        self.vocab_size, self.causal, self.logit_shift = vocab_size, causal, logit_shift
        self.attention, self.head_size = check_attention(attention), config.d_model // config.decoder_attention_heads
        vocabulary = read_vocabulary(model)
        rows = torch.tensor(whisper_ids(vocabulary, pieces, model))
        size, heads = config.d_model, config.decoder_attention_heads
        table = whisper.embed_tokens.weight.detach()
        self.embed = nn.Embedding.from_pretrained(table[rows].clone(), freeze=False)
        prefix = torch.tensor(prefix_ids(vocabulary, model, language, task))
        self.register_buffer("prefix_embed", table[prefix].clone(), persistent=False)
        self.mask = nn.Parameter(self.embed.weight.detach().mean(0))
        self.head_bias = nn.Parameter(torch.zeros(vocab_size))
        self.head: nn.Module | None = None  # in the place of token table and bias, see models/running.py
        self.readers = nn.ModuleList(Reader(size, heads) for _ in whisper.layers)
        for reader, layer in zip(self.readers, whisper.layers, strict=True):
            reader.k_proj.load_state_dict(layer.encoder_attn.k_proj.state_dict())
            reader.v_proj.load_state_dict(layer.encoder_attn.v_proj.state_dict())
        self.causal_layers = Layers(whisper) if separate_reading else None
        self.dropout = nn.Dropout(dropout)

    def read(self, acoustics: Acoustics | None, length: int | Tensor) -> Memory:
        """Keys and values of all layers; see CanvasDecoder. The length of the canvas is of no importance here."""
        if acoustics is None:
            raise UserError("decoder: whisper_diffusion reads states; set encoder: in the same YAML")
        pairs = [reader(acoustics.states) for reader in self.readers]
        key_mask = frames_mask(acoustics.lengths, acoustics.states.size(1))
        return Memory([key for key, _ in pairs], [value for _, value in pairs], key_mask)

    def hidden(self, canvas: Tensor, memory: Memory, rows: Tensor | None = None,
               lengths: Tensor | None = None) -> Tensor:
        """See CanvasDecoder. canvas: (R, L). Returns for each slot what its logits are made of, (R, L, D).

        Raises UserError: a canvas longer than Whisper's positions allow.
        """
        return self._run(self, canvas, memory, rows, lengths, self.causal)

    def hidden_before(self, canvas: Tensor, memory: Memory, rows: Tensor | None = None,
                      lengths: Tensor | None = None) -> Tensor:
        """`hidden` under Whisper's causal mask: what stands in a slot is foretold from the slots before it alone."""
        return self._run(self.causal_layers or self, canvas, memory, rows, lengths, True)

    def _run(self, layers: Layers, canvas: Tensor, memory: Memory, rows: Tensor | None, lengths: Tensor | None,
             causal: bool) -> Tensor:
        x = self.dropout(self.embedded(canvas, layers.positions))
        start = self.prefix_embed.size(0)
        inside = None if lengths is None else frames_mask(lengths.to(canvas.device) + start, x.size(1))
        fold = None if rows is None else Fold.of(rows, memory.key_mask.size(0)).to(canvas.device)
        attention = choose_attention(self.attention, self.embed.weight, self.head_size)
        for block, adapter, key, value in zip(layers.blocks, layers.adapters, memory.keys, memory.values, strict=True):
            x = x + self.dropout(block.attn(block.norm_1(x), inside, causal, attention))
            x = x + self.dropout(adapter(x, key, value, memory.key_mask, fold, attention))
            x = x + self.dropout(block.mlp(x))
        first = start - int(self.logit_shift)
        return layers.norm(x[:, first : first + canvas.size(1)])

    def listening(self, canvas: Tensor, memory: Memory) -> Tensor:
        """Where the heads of the upper half of the layers look at each slot of filled canvases, (B, C, L, T).

        canvas: (B, L); memory: of these rows. The row that a slot is read from looks a little early, the one where its
        token stands a little late: with the shift it is the geometric mean of the two.
        """
        upper = self.adapters[len(self.adapters) // 2 :]
        weights = watched_weights(upper, lambda: self.hidden(canvas, memory)).transpose(0, 1).flatten(1, 2)
        start, slots = self.prefix_embed.size(0), canvas.size(1)
        own = weights[:, :, start : start + slots]
        return (own * weights[:, :, start - 1 : start - 1 + slots]).sqrt() if self.logit_shift else own

    def embedded(self, canvas: Tensor, positions: nn.Embedding) -> Tensor:
        """Prefix and canvas (R, L) with their positions, (R, P + L, D)."""
        start, limit = self.prefix_embed.size(0), positions.num_embeddings
        total = start + canvas.size(1)
        if total > limit:
            raise UserError(f"a canvas of {canvas.size(1)} slots: Whisper's decoder has {limit} positions, "
                            f"{start} of them for its prefix; use shorter utterances or a smaller canvas")
        hidden = (canvas == self.embed.num_embeddings).unsqueeze(-1)
        slots = torch.where(hidden, self.mask, self.embed(canvas.clamp(max=self.embed.num_embeddings - 1)))
        prefix = self.prefix_embed.expand(canvas.size(0), -1, -1)
        return torch.cat((prefix, slots), 1) + positions.weight[:total]

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden: (..., D), any choice of slots. Returns (..., V)."""
        return F.linear(hidden, self.embed.weight, self.head_bias) if self.head is None else self.head(hidden)

    def forward(self, canvas: Tensor, memory: Memory) -> Tensor:
        """canvas: (B, L) int64; memory: what `read` returned for these rows. Returns logits (B, L, V)."""
        return self.logits(self.hidden(canvas, memory))
