"""The two jobs that a language model learns here, and how tickets become batches of tokens for them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from recipes.tickets import PROBLEM_TEXTS, REQUESTS, Draw, Ticket, draw_tickets
from recipes.tokenizer import ANSWER, BEGIN, END, Vocabulary, learn_vocabulary

BATCHES_PER_GROUP = 8
IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a model is to answer for a ticket; `fixed` are the answer's constant pieces, one token each."""

    name: str
    describes: str
    answer: Callable[[Ticket], str]
    fixed: tuple[str, ...]


JOBS = {
    "extract": Job(
        name="ticket-extract",
        describes="Customer ticket to JSON: customer, product, order number, amounts, dates, request.",
        answer=lambda ticket: ticket.answer,
        fixed=(
            '{"customer":"', '{"customer":null', '","product":"', ',"product":"', '","product":null', ',"product":null',
            '","order_number":"', ',"order_number":"', '","order_number":null', ',"order_number":null',
            '","amounts":["', ',"amounts":["', '","amounts":[]', ',"amounts":[]', '","', '"],"dates":["', ',"dates":["',
            '"],"dates":[]', ',"dates":[]',
            *(f'{close},"request":"{text}"}}' for text, _ in REQUESTS.values() for close in ('"]', "")),
        ),
    ),
    "summary": Job(
        name="ticket-summary",
        describes="Customer ticket to one line: who wants what for which product, and why.",
        answer=lambda ticket: ticket.summary,
        fixed=("A customer", "an unnamed product", " (order ", *(f" {verb}" for _, verb in REQUESTS.values()),
               *(f"{close}: {text}." for text in PROBLEM_TEXTS.values() for close in ("", ")"))),
    ),
}  # fmt: skip


def learn_job_vocabulary(job: Job, seed: int) -> Vocabulary:
    """The vocabulary of `job`, learned from 4,000 training tickets."""
    return learn_vocabulary([ticket.text for ticket in draw_tickets(seed, 4000)], job.fixed)


def draw_batches(
    job: Job, tokenizer: Tokenizer, *, seed: int, first: int, plain_until: int, size: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Endless (tokens_BT, targets_BT, is_answer_BT) from batch `first` on; one number always gives the same batch.

    Batches come in groups whose tickets are sorted by length, so that little is padded; groups that begin below batch
    `plain_until` hold plain tickets.
    """
    group = first // BATCHES_PER_GROUP
    while True:
        start = group * BATCHES_PER_GROUP
        draw = Draw(plain=start < plain_until, scramble=True)
        tickets = list(draw_tickets(seed * 1_000_003 + group, size * BATCHES_PER_GROUP, draw))
        rows = sorted(encode_rows(job, tokenizer, tickets), key=lambda row: len(row[0]))
        batches = [rows[i : i + size] for i in range(0, len(rows), size)]
        Random(group).shuffle(batches)
        for batch in batches[max(first - start, 0) :]:
            yield pad_rows(batch, tokenizer.token_to_id(END))
        group += 1


def encode_rows(job: Job, tokenizer: Tokenizer, tickets: list[Ticket]) -> list[tuple[list[int], int]]:
    """Each ticket as (token ids with its answer, number of ids up to and with the answer mark)."""
    prompts = tokenizer.encode_batch([f"{BEGIN}{ticket.text}{ANSWER}" for ticket in tickets])
    answers = tokenizer.encode_batch([f"{job.answer(ticket)}{END}" for ticket in tickets])
    return [(prompt.ids + answer.ids, len(prompt.ids)) for prompt, answer in zip(prompts, answers, strict=True)]


def pad_rows(rows: list[tuple[list[int], int]], padding: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of different lengths as tokens_BT, targets_BT (the next token, `IGNORED` past the end) and is_answer_BT."""
    length = max(len(ids) for ids, _ in rows) - 1
    tokens_BT = torch.full((len(rows), length), padding)
    targets_BT = torch.full((len(rows), length), IGNORED)
    is_answer_BT = torch.zeros((len(rows), length), dtype=torch.bool)
    for i, (ids, prompt) in enumerate(rows):
        tokens_BT[i, : len(ids) - 1] = torch.tensor(ids[:-1])
        targets_BT[i, : len(ids) - 1] = torch.tensor(ids[1:])
        is_answer_BT[i, prompt - 1 : len(ids) - 1] = True
    return tokens_BT, targets_BT, is_answer_BT
