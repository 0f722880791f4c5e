"""Synthetic customer tickets with their right answers, drawn from a seed.

Owns the facts, their formats and the three answers (JSON, summary, category). Knows nothing of tokens or models.
The split is by construction: a held-out ticket is built only of phrases, people and products that training never sees.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from recipes import asides, names, phrases

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
_MONTHS = ("January February March April May June July August September October November December").split()


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
    units, cents = rng.choice((rng.randint(2, 99), rng.randint(100, 999))), rng.choice((0, 50, 90, 95, 99, rng.randint(1, 98)))
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
        (f"{year}-{month:02}-{day:02}", f"{day:02}.{month:02}.{year}", f"{month:02}/{day:02}/{year}", f"{day} {name} {year}",
         f"{name} {day}, {year}", f"{name} {day}", f"{name} {day}{ending}", f"{day} {name}", f"{day}.{month}.{year}",
         f"{day} {name[:3]} {year}", f"{day}{ending} of {name}")
    )  # fmt: skip


def draw_tickets(seed: int, count: int, *, held_out: bool = False, unseen_names: bool | None = None, simple: bool = False) -> Iterator[Ticket]:
    """`count` tickets drawn from `seed`.

    `held_out` takes the phrases that training never sees; `unseen_names` (default: as `held_out`) does so for people and
    products. `simple` leaves out asides and noise (the first lessons of the curriculum).
    """
    rng = Random(seed)
    unseen = held_out if unseen_names is None else unseen_names
    for _ in range(count):
        yield _Draft(rng, held_out=held_out, unseen_names=unseen, simple=simple).finish()


class _Draft:
    """A ticket while its sentences are being drawn; the order of drawing is the order of the random stream."""

    def __init__(self, rng: Random, *, held_out: bool, unseen_names: bool, simple: bool) -> None:
        self.rng, self.held_out, self.simple = rng, held_out, simple
        self.request = rng.choice(list(REQUESTS))
        self.problem = rng.choice(PROBLEMS_BY_REQUEST[self.request])
        share = rng.choice((0.0, 0.6, 1.0))
        self.person: Callable[[], str] = lambda: names.draw_person(rng, held_out=unseen_names, random_share=share)
        self.facts = {
            "customer": self.person(),
            "product": names.draw_product(rng, held_out=unseen_names, random_share=share),
            "order": draw_order_number(rng),
        }
        self.used: set[str] = set()
        self.values: dict[str, list[str]] = {"amount": [], "date": []}

    def phrase(self, group: tuple[str, ...]) -> str:
        """One phrase of the right side of the split, alternatives picked and facts filled in."""
        text = self.rng.choice(phrases.split_phrases(group, held_out=self.held_out))
        text = re.sub(r"\[([^][]*)\]", lambda m: self.rng.choice(m[1].split("|")), text)
        return re.sub(r"\{(\w+)\}", lambda m: self._fill(m[1]), text)

    def _fill(self, slot: str) -> str:
        if slot in self.facts:
            self.used.add(slot)
            return self.facts[slot]
        if slot in self.values:
            drawn = draw_amount(self.rng) if slot == "amount" else draw_date(self.rng)
            self.values[slot].append(drawn)
            return drawn
        return {
            "number": lambda: str(self.rng.randint(2, 90)),
            "colleague": self.person,
            "phone": lambda: f"{self.rng.choice(('0', '+49 ', '555-'))}{self.rng.randint(10**5, 10**9)}",
            "reference": lambda: f"{self.rng.choice(('C', 'K', 'T', ''))}{self.rng.randint(1000, 999999)}",
        }[slot]()

    def body(self) -> list[str]:
        """The sentences between greeting and signature, in a shuffled order; asks stay at either end."""
        rng, sentences = self.rng, []
        if self.problem:
            sentences.append(self.phrase(phrases.PROBLEMS[self.problem]))
        if "product" not in self.used and self.request != "account" and rng.random() < 0.9:
            sentences.append(self.phrase(asides.PRODUCTS))
        for group, share in ((asides.ORDERS, 0.75), (asides.AMOUNTS, 0.45), (asides.SECOND_AMOUNTS, 0.15), (asides.DATES, 0.45),
                             (asides.SECOND_DATES, 0.2)):  # fmt: skip
            if rng.random() < share:
                sentences.append(self.phrase(group))
        for _ in range(0 if self.simple else rng.choice((0, 0, 1, 1, 2, 3))):
            sentences.append(self.phrase(asides.DISTRACTORS))
        if rng.random() < 0.7:
            rng.shuffle(sentences)
        ask = self.phrase(phrases.ASKS[self.request])
        return [*sentences, ask] if rng.random() < 0.75 else [ask, *sentences]

    def finish(self) -> Ticket:
        """The ticket, its lists in the order of the text."""
        rng = self.rng
        place = rng.choice(("intro", "signature", "signature", "signature", "both", "none")) if rng.random() < 0.9 else "intro"
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
        known = [self.facts[slot] for slot in self.used] + self.values["amount"] + self.values["date"]
        text = text if self.simple else add_noise(text, known, rng)
        take = lambda slot: self.facts[slot] if slot in self.used else None  # noqa: E731
        return Ticket(
            text=text, customer=take("customer"), product=take("product"), order_number=take("order"),
            amounts=_in_text_order(text, self.values["amount"]), dates=_in_text_order(text, self.values["date"]),
            request=self.request, problem=self.problem,
        )  # fmt: skip


def _in_text_order(text: str, values: list[str]) -> tuple[str, ...]:
    return tuple(sorted(values, key=text.index))


def add_noise(text: str, facts: list[str], rng: Random) -> str:
    """`text` with typos, lower case, doubled or missing marks here and there, outside of `facts`."""
    if rng.random() < 0.5:
        return text
    typo_share = rng.choice((0.0, 0.03, 0.06))
    lower, bang = rng.random() < 0.3, rng.random() < 0.15
    parts = re.split("(" + "|".join(re.escape(f) for f in sorted(facts, key=len, reverse=True)) + ")", text) if facts else [text]
    for i in range(0, len(parts), 2):
        part = parts[i].lower() if lower else parts[i]
        part = part.replace(".", rng.choice(("!", "..", ""))) if bang else part
        parts[i] = re.sub(r"[a-z]{4,}", lambda m: _typo(m[0], rng) if rng.random() < typo_share else m[0], part)
    return "".join(parts) + rng.choice(("", "", "", " :(", " !!!", " 😡", "\n"))


def _typo(word: str, rng: Random) -> str:
    """`word` with two letters swapped, one dropped or one doubled."""
    i = rng.randrange(1, len(word) - 1)
    return rng.choice((word[:i] + word[i + 1] + word[i] + word[i + 2 :], word[:i] + word[i + 1 :], word[:i] + word[i] + word[i:]))
