"""Customer tickets to load the bundled models with: endless, varied, repeatable. Nobody judges their answers."""

from __future__ import annotations

from collections.abc import Sequence

from headgate.core.chance import Chance

_GREETINGS = ("Hello,", "Dear team,", "Hi there,", "Good morning,", "To whom it may concern,")
_PRODUCTS = ("Lumo kettle K-45", "Norden desk lamp D2", "Arbor office chair", "Veloce bike light", "Senta radio R-7")
_PROBLEMS = (
    "arrived broken",
    "stopped working after two days",
    "has not arrived yet",
    "is not the one that I ordered",
    "came without its cable",
)
_WISHES = (
    "Please send me a refund.",
    "I would like a replacement.",
    "Can you tell me when it arrives?",
    "Please cancel the order.",
    "Could you repair it?",
)
_NAMES = ("Maria Lopez", "Jonas Berg", "Aisha Khan", "Peter Novak", "Chloe Martin", "Emeka Obi", "Yuki Tanaka")
_MONTHS = ("January", "February", "March", "April", "May", "June")


def write_ticket(chance: Chance) -> str:
    """One ticket."""
    order = int(chance.uniform(10_000, 99_999))
    price = f"{chance.uniform(9, 400):.2f}"
    day = f"{int(chance.uniform(1, 28))} {_pick(_MONTHS, chance)} 2026"
    lines = (
        _pick(_GREETINGS, chance),
        "",
        f"My {_pick(_PRODUCTS, chance)} {_pick(_PROBLEMS, chance)}. Order number is {order}. "
        f"I paid ${price} on {day}. {_pick(_WISHES, chance)}",
        "",
        "Kind regards,",
        _pick(_NAMES, chance),
    )
    return "\n".join(lines)


def _pick(words: Sequence[str], chance: Chance) -> str:
    return words[min(int(chance.uniform(0, len(words))), len(words) - 1)]
