"""A llama-architecture decoder in plain torch, laid out as llama.cpp reads it (adjacent-pair RoPE, tied embeddings)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of a model; `width` and `hidden` are multiples of 32 so that Q8_0 can hold them."""

    vocabulary: int
    width: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 384
    context: int = 1024
    rope_base: float = 10_000.0
    epsilon: float = 1e-5


class Block(nn.Module):
    """Attention and gated feed-forward, each behind an RMS norm and added to the stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.attn_norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.attn_q, self.attn_k, self.attn_v, self.attn_output = (
            nn.Linear(shape.width, shape.width, bias=False) for _ in range(4)
        )
        self.ffn_norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.ffn_gate = nn.Linear(shape.width, shape.hidden, bias=False)
        self.ffn_up = nn.Linear(shape.width, shape.hidden, bias=False)
        self.ffn_down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x_BTC: Tensor, turns_TD: Tensor) -> Tensor:
        """The stream after this block; `turns_TD` holds RoPE's complex turns, D = half a head."""
        batch, length, width = x_BTC.shape
        split = (batch, length, self.heads, width // self.heads)
        normed = self.attn_norm(x_BTC)
        query, key, value = (f(normed).view(split).transpose(1, 2) for f in (self.attn_q, self.attn_k, self.attn_v))
        mixed = F.scaled_dot_product_attention(rotate(query, turns_TD), rotate(key, turns_TD), value, is_causal=True)
        x_BTC = x_BTC + self.attn_output(mixed.transpose(1, 2).reshape(batch, length, width))
        normed = self.ffn_norm(x_BTC)
        return x_BTC + self.ffn_down(F.silu(self.ffn_gate(normed)) * self.ffn_up(normed))


class Llama(nn.Module):
    """The whole decoder; the output matrix is the embedding matrix."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.register_buffer("turns_TD", rope_turns(shape), persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                damping = (2 * shape.layers) ** -0.5 if "output.w" in name or "down" in name else 1.0
                nn.init.normal_(weight, std=damping * shape.width**-0.5)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """The normed stream [batch, time, width]; `logits` turns chosen rows of it into scores."""
        x_BTC = self.token_embd(tokens_BT)
        for block in self.blk:
            x_BTC = block(x_BTC, self.turns_TD[: tokens_BT.shape[1]])
        return self.output_norm(x_BTC)

    def logits(self, stream_NC: Tensor) -> Tensor:
        """Scores [rows, vocabulary] of rows of the stream."""
        return F.linear(stream_NC, self.token_embd.weight)


def rope_turns(shape: Shape) -> Tensor:
    """RoPE's turns as complex numbers [context, half a head]. Source: Su et al. 2021, arXiv 2104.09864."""
    half = shape.width // shape.heads // 2
    rates_D = shape.rope_base ** (-torch.arange(half) / half)
    angles_TD = torch.arange(shape.context)[:, None] * rates_D
    return torch.polar(torch.ones_like(angles_TD), angles_TD)


def rotate(x_BHTD: Tensor, turns_TD: Tensor) -> Tensor:
    """`x_BHTD` with each adjacent pair turned by its position's angle (llama.cpp's NORM order)."""
    pairs = torch.view_as_complex(x_BHTD.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns_TD).flatten(-2).type_as(x_BHTD)
