"""Synthetic customer tickets with their right answers, drawn from a seed.

Owns the facts, their formats and the three answers (JSON, summary, category). Knows nothing of tokens or models.
The split is by construction: a held-out ticket is built only of phrases, people and products that training never sees.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from recipes import asides, asks, names, phrases, problems

REQUESTS = {
    "refund": ("refund", "wants a refund for"),
    "replacement": ("replacement", "wants a replacement for"),
    "repair": ("repair", "wants a repair of"),
    "status": ("delivery status", "asks about the delivery of"),
    "cancel": ("cancellation", "cancels the order of"),
    "address": ("address change", "wants a new delivery address for"),
    "invoice": ("invoice", "asks for the invoice of"),
    "account": ("account access", "needs account access"),
    "setup": ("setup help", "needs setup help with"),
}
PROBLEM_TEXTS = {
    "damaged": "arrived damaged",
    "stopped": "stopped working",
    "not_arrived": "has not arrived",
    "wrong_item": "wrong item sent",
    "missing_parts": "parts missing",
    "charged_twice": "charged twice",
    "not_needed": "no longer needed",
    "moved": "address is wrong",
    "locked": "cannot log in",
    "setup_fails": "setup fails",
}
PROBLEMS_BY_REQUEST: dict[str, tuple[str | None, ...]] = {
    "refund": ("damaged", "stopped", "not_arrived", "wrong_item", "missing_parts", "charged_twice", "not_needed"),
    "replacement": ("damaged", "stopped", "not_arrived", "wrong_item", "missing_parts"),
    "repair": ("damaged", "stopped"),
    "status": ("not_arrived", None),
    "cancel": ("not_needed", "not_arrived"),
    "address": ("moved", None),
    "invoice": ("charged_twice", None, None),
    "account": ("locked", None),
    "setup": ("setup_fails", None),
}
CATEGORIES = ("account", "billing", "delivery", "order", "returns", "technical")
_CATEGORY_BY_REQUEST = {
    "refund": "returns", "replacement": "returns", "repair": "technical", "status": "delivery", "cancel": "order",
    "address": "delivery", "invoice": "billing", "account": "account", "setup": "technical",
}  # fmt: skip
_ASIDES = (
    (asides.ORDERS, 0.75),
    (asides.AMOUNTS, 0.45),
    (asides.SECOND_AMOUNTS, 0.15),
    (asides.DATES, 0.45),
    (asides.SECOND_DATES, 0.2),
)
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One ticket and the facts in it; a fact that the text does not state is None or absent."""

    text: str
    customer: str | None
    product: str | None
    order_number: str | None
    amounts: tuple[str, ...]
    dates: tuple[str, ...]
    request: str
    problem: str | None

    @property
    def answer(self) -> str:
        """The facts as one line of compact JSON, values as the ticket writes them, amounts and dates in text order."""
        facts = {
            "customer": self.customer,
            "product": self.product,
            "order_number": self.order_number,
            "amounts": list(self.amounts),
            "dates": list(self.dates),
            "request": REQUESTS[self.request][0],
        }
        return json.dumps(facts, ensure_ascii=False, separators=(",", ":"))

    @property
    def summary(self) -> str:
        """Who wants what for which product and why, in one line."""
        line = f"{self.customer or 'A customer'} {REQUESTS[self.request][1]}"
        if self.request != "account":
            line += f" {self.product or 'an unnamed product'}"
        if self.order_number:
            line += f" (order {self.order_number})"
        return f"{line}: {PROBLEM_TEXTS[self.problem]}." if self.problem else f"{line}."

    @property
    def category(self) -> str:
        """One of `CATEGORIES`; a double charge is a billing matter whatever is asked."""
        return "billing" if self.problem == "charged_twice" else _CATEGORY_BY_REQUEST[self.request]


def draw_order_number(rng: Random) -> str:
    """An order number in one of eight formats."""
    digits = "".join(rng.choice("0123456789") for _ in range(8))
    letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(3))
    return rng.choice(
        (digits[:5], digits[:6], digits, f"{letters[0]}-{digits[:5]}", f"{letters[:2]}{digits[:6]}",
         f"{letters}-{digits[:4]}", f"{digits[:3]}-{digits[3:]}", f"{digits[:4]}/{letters[:2]}")
    )  # fmt: skip


def draw_amount(rng: Random) -> str:
    """An amount of money in one of fourteen notations."""
    units, cents = (
        rng.choice((rng.randint(2, 99), rng.randint(100, 999))),
        rng.choice((0, 50, 90, 95, 99, rng.randint(1, 98))),
    )
    thousands = rng.randint(1, 9)
    symbol, code = rng.choice("$€£"), rng.choice(("EUR", "USD", "GBP", "CHF"))
    return rng.choice(
        (f"{symbol}{units}.{cents:02}", f"{symbol}{units}", f"{symbol}{thousands},{units % 1000:03}.{cents:02}",
         f"{units},{cents:02} €", f"{units} €", f"{thousands}.{units:03},{cents:02} €", f"{units}.{cents:02} {code}",
         f"{code} {units}.{cents:02}", f"{units} {code}", f"{units} dollars", f"{units} euros", f"{code} {units}",
         f"{symbol} {units}.{cents:02}", f"{units}.{cents:02}€")
    )  # fmt: skip


def draw_date(rng: Random) -> str:
    """A calendar date in one of eleven notations."""
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(2021, 2029)
    name = _MONTHS[month - 1]
    ending = "th" if 10 < day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return rng.choice(
        (f"{year}-{month:02}-{day:02}", f"{day:02}.{month:02}.{year}", f"{month:02}/{day:02}/{year}",
         f"{day} {name} {year}", f"{name} {day}, {year}", f"{name} {day}", f"{name} {day}{ending}",
         f"{day} {name}", f"{day}.{month}.{year}", f"{day} {name[:3]} {year}", f"{day}{ending} of {name}")
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How tickets are drawn.

    `held_out` takes the phrases that training never sees, `unseen_names` the people and products likewise. `plain`
    leaves out asides and noise (the first lessons of the curriculum). `scramble` also drops and swaps words, so that
    training cannot lean on the wording of single phrases.
    """

    held_out: bool = False
    unseen_names: bool = False
    plain: bool = False
    scramble: bool = False


SEEN = Draw()
UNSEEN_NAMES = Draw(unseen_names=True)
HELD_OUT = Draw(held_out=True, unseen_names=True)


def draw_tickets(seed: int, count: int, draw: Draw = SEEN) -> Iterator[Ticket]:
    """`count` tickets drawn from `seed`; the same arguments always give the same tickets."""
    rng = Random(seed)
    for _ in range(count):
        yield _Draft(rng, draw).finish()


class _Draft:
    """A ticket while its sentences are being drawn.

    Facts stand in its text as marks (`\\x01` number `\\x02`) until noise has been added, so noise never touches them.
    """

    def __init__(self, rng: Random, draw: Draw) -> None:
        self.rng, self.draw = rng, draw
        self.request = rng.choice(list(REQUESTS))
        self.problem = rng.choice(PROBLEMS_BY_REQUEST[self.request])
        self.random_share = rng.choice((0.2, 0.7, 1.0))
        self.once = {
            "customer": self.person(),
            "product": names.draw_product(rng, held_out=draw.unseen_names, random_share=self.random_share),
            "order": draw_order_number(rng),
        }
        self.facts: list[tuple[str, str]] = []

    def person(self) -> str:
        return names.draw_person(self.rng, held_out=self.draw.unseen_names, random_share=self.random_share)

    def phrase(self, group: tuple[str, ...]) -> str:
        """One phrase of the right side of the split, alternatives picked and facts marked."""
        text = self.rng.choice(phrases.split_phrases(group, held_out=self.draw.held_out))
        text = re.sub(r"\[([^][]*)\]", lambda m: self.rng.choice(m[1].split("|")), text)
        return re.sub(r"\{(\w+)\}", lambda m: self._mark(m[1]), text)

    def _mark(self, slot: str) -> str:
        rng = self.rng
        drawn = {
            "customer": lambda: self.once["customer"],
            "product": lambda: self.once["product"],
            "order": lambda: self.once["order"],
            "amount": lambda: draw_amount(rng),
            "date": lambda: draw_date(rng),
            "number": lambda: str(rng.randint(2, 90)),
            "colleague": self.person,
            "phone": lambda: f"{rng.choice(('0', '+49 ', '555-'))}{rng.randint(10**5, 10**9)}",
            "reference": lambda: f"{rng.choice(('C', 'K', 'T', ''))}{rng.randint(1000, 999999)}",
        }[slot]()
        self.facts.append((slot, drawn))
        return f"\x01{len(self.facts) - 1}\x02"

    def body(self) -> list[str]:
        """The sentences between greeting and signature, in a shuffled order; asks stay at either end."""
        rng, sentences = self.rng, []
        if self.problem:
            sentences.append(self.phrase(problems.PROBLEMS[self.problem]))
        if not any(slot == "product" for slot, _ in self.facts) and self.request != "account" and rng.random() < 0.9:
            sentences.append(self.phrase(asides.PRODUCTS))
        for group, share in _ASIDES:
            if rng.random() < share:
                sentences.append(self.phrase(group))
        for _ in range(0 if self.draw.plain else rng.choice((0, 0, 1, 1, 2, 3))):
            sentences.append(self.phrase(asides.DISTRACTORS))
        if rng.random() < 0.7:
            rng.shuffle(sentences)
        ask = self.phrase(asks.ASKS[self.request])
        return [*sentences, ask] if rng.random() < 0.75 else [ask, *sentences]

    def finish(self) -> Ticket:
        """The ticket, its lists in the order of the text."""
        rng = self.rng
        place = (
            rng.choice(("intro", "signature", "signature", "signature", "both", "none"))
            if rng.random() < 0.9
            else "intro"
        )
        body = self.body()
        if place in ("intro", "both"):
            body.insert(rng.choice((0, 0, 0, len(body))), self.phrase(phrases.INTRODUCTIONS))
        text = " ".join(body)
        if rng.random() < 0.6:
            text = self.phrase(phrases.GREETINGS) + rng.choice((" ", "\n", "\n\n")) + text
        if place in ("signature", "both"):
            text += rng.choice((" ", "\n", "\n\n")) + self.phrase(phrases.SIGNATURES)
        elif rng.random() < 0.4:
            text += " " + self.phrase(phrases.CLOSINGS)
        text = text if self.draw.plain else add_noise(text, rng, scramble=self.draw.scramble)
        told = [self.facts[int(mark)] for mark in re.findall("\x01(\\d+)\x02", text)]
        first = dict(reversed(told))
        return Ticket(
            text=re.sub("\x01(\\d+)\x02", lambda m: self.facts[int(m[1])][1], text),
            customer=first.get("customer"), product=first.get("product"), order_number=first.get("order"),
            amounts=tuple(value for slot, value in told if slot == "amount"),
            dates=tuple(value for slot, value in told if slot == "date"),
            request=self.request, problem=self.problem,
        )  # fmt: skip


def add_noise(text: str, rng: Random, *, scramble: bool) -> str:
    """`text` with typos, lower case, doubled or missing marks here and there, outside of marked facts."""
    parts = re.split("(\x01\\d+\x02)", text)
    if scramble and rng.random() < 0.4:
        share = rng.choice((0.03, 0.06, 0.12))
        parts[::2] = [re.sub(r" ?[A-Za-z']+", lambda m: _scramble(m[0], rng, share), part) for part in parts[::2]]
    if rng.random() < 0.5:
        return "".join(parts)
    typo_share = rng.choice((0.0, 0.03, 0.06))
    lower, bang = rng.random() < 0.3, rng.random() < 0.15
    for i in range(0, len(parts), 2):
        part = parts[i].lower() if lower else parts[i]
        part = part.replace(".", rng.choice(("!", "..", ""))) if bang else part
        parts[i] = re.sub(r"[a-z]{4,}", lambda m: _typo(m[0], rng) if rng.random() < typo_share else m[0], part)
    return "".join(parts) + rng.choice(("", "", "", " :(", " !!!", " 😡", "\n"))


def _scramble(word: str, rng: Random, share: float) -> str:
    """`word` (with its leading space), or with probability `share` nothing or a made-up word."""
    if rng.random() >= share:
        return word
    made_up = names.draw_word(rng)
    return rng.choice(("", " " + (made_up if word.strip()[:1].isupper() else made_up.lower())))


def _typo(word: str, rng: Random) -> str:
    """`word` with two letters swapped, one dropped or one doubled."""
    i = rng.randrange(1, len(word) - 1)
    return rng.choice(
        (word[:i] + word[i + 1] + word[i] + word[i + 2 :], word[:i] + word[i + 1 :], word[:i] + word[i] + word[i:])
    )
