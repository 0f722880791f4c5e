"""A small byte-level BPE tokenizer that makes copying easy.

Merges are learned inside runs of lower-case ASCII letters only, so capitals, digits, marks and non-ASCII bytes stay
single tokens and an unseen name falls into the same pieces wherever it stands. Merges with a leading space come last
and cover whole frequent words only. Fixed phrases of the answers are one token each.
Why: a model of one or two million weights copies what it has seen as the same token ids, and nothing else.
"""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

BEGIN, ANSWER, END = "<s>", "<|answer|>", "</s>"
SPACE = "Ġ"
LETTER_MERGES = 260
SPACED_WORDS = 170


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Token texts by id, in GPT-2's byte alphabet, and the merges by rank; `fixed` holds the whole-phrase tokens."""

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]
    fixed: tuple[str, ...]

    def build_tokenizer(self) -> Tokenizer:
        """The encoder that training uses; llama.cpp's `gpt-2` pre-tokenizer gives the same ids."""
        vocab = {token: i for i, token in enumerate(self.tokens)}
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(self.merges)))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (BEGIN, ANSWER, END)])
        tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in self.fixed])
        return tokenizer


def learn_vocabulary(texts: list[str], fixed: tuple[str, ...]) -> Vocabulary:
    """The vocabulary for `texts`: specials, bytes, letter merges, spaced whole words, then `fixed` phrases."""
    merges = _learn_letter_merges(Counter(w for t in texts for w in re.findall("[a-z]+", t)), LETTER_MERGES)
    pieces = {left + right for left, right in merges}
    spaced = Counter(w for t in texts for w in re.findall(r"(?<= )[a-z]+(?![^\W\d_])", t))
    words = [w for w, _ in sorted(spaced.items(), key=lambda kv: (-kv[1], kv[0])) if w in pieces][:SPACED_WORDS]
    merges += [(SPACE, word) for word in words]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [BEGIN, ANSWER, END, *alphabet, *(left + right for left, right in merges), *fixed]
    return Vocabulary(tokens=tuple(tokens), merges=tuple(merges), fixed=fixed)


def _learn_letter_merges(words: Counter[str], count: int) -> list[tuple[str, str]]:
    """`count` BPE merges over `words` and their frequencies, the most frequent pair first, ties in alphabet order."""
    spellings = {word: list(word) for word in words}
    merges: list[tuple[str, str]] = []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, pieces in spellings.items():
            for pair in pairwise(pieces):
                pairs[pair] += words[word]
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        for word, pieces in spellings.items():
            if best[0] + best[1] in word:
                spellings[word] = _merge(pieces, best)
    return merges


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged
