"""What the bundled models are measured against: copying the input, plain rules, and always the commonest answer."""

import json
import re
from collections import Counter

from recipes.tickets import PROBLEM_TEXTS, REQUESTS, SEEN, draw_tickets

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_NUMBER = r"\d[\d.,]*\d|\d"
_AMOUNT = re.compile(
    rf"(?:[$€£]|\b(?:EUR|USD|GBP|CHF)) ?(?:{_NUMBER})|(?:{_NUMBER}) ?(?:€|\b(?:EUR|USD|GBP|CHF|dollars|euros)\b)"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_DATE = re.compile(
    r"\b(?:\d{4}-\d\d-\d\d|\d{1,2}\.\d{1,2}\.\d{4}|\d\d/\d\d/\d{4}"
    rf"|{_DAY}(?: of)? {_MONTH}(?: \d{{4}})?|{_MONTH} {_DAY}(?:, \d{{4}})?)"
)
_ORDER = re.compile(
    r"\b(?:order|number|no\.|id)\b\W{0,4}(?:(?:number|no\.|id|is|code|reads)\W{0,3})*((?=[\w/-]*\d)[\w/-]{5,12})",
    re.IGNORECASE,
)
_NAME = r"((?:[^\W\d_a-z][\w'.-]* ?){1,4})"
_CUSTOMER = (
    re.compile(rf"(?:[Mm]y (?:full )?name is|I am|I'm|[Tt]his is|Name:|Customer:) {_NAME}"),
    re.compile(rf"(?:[Rr]egards|wishes|[Tt]hanks|you|[Ss]incerely|Cheers|Best|from|-)[,.!]?\s+{_NAME}\W*$"),
)
_PRODUCT = re.compile(
    r"\b(?:the|my|a|The|My|A) ([^\W\d_a-z]\w+(?: (?:[A-Z0-9]\S*|\w+(?= (?:is|was|has|arrived|does)\b)))*)"
)
_REQUEST_WORDS = {
    "refund": r"refund|money back|pay me|reimburse|repay",
    "replacement": r"replace|exchange|new one|swap|another one",
    "repair": r"repair|\bfix\b|fixed|technician",
    "cancel": r"cancel|withdraw|do not ship",
    "address": r"address",
    "invoice": r"invoice|receipt|\bbill\b",
    "account": r"account|password|log in|sign in",
    "setup": r"set ?up|install|connect|guide",
    "status": r"where is|when will|when does|tracking|arrive|delivery|status",
}


def extract_by_rules(text: str) -> str:
    """The answer that regular expressions and key words give, in the models' own JSON."""
    order, product = _ORDER.search(text), _PRODUCT.search(text)
    customer = next((m for pattern in _CUSTOMER if (m := pattern.search(text))), None)
    request = next((name for name, words in _REQUEST_WORDS.items() if re.search(words, text, re.I)), "refund")
    facts = {
        "customer": customer[1].strip() if customer else None,
        "product": product[1].rstrip(".,!?") if product else None,
        "order_number": order[1] if order else None,
        "amounts": _AMOUNT.findall(text),
        "dates": _DATE.findall(text),
        "request": REQUESTS[request][0],
    }
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":"))


def summarise_by_rules(text: str) -> str:
    """The summary built from `extract_by_rules`, with the request's commonest problem."""
    facts = json.loads(extract_by_rules(text))
    name = next(name for name, (word, _) in REQUESTS.items() if word == facts["request"])
    line = f"{facts['customer'] or 'A customer'} {REQUESTS[name][1]}"
    line += f" {facts['product'] or 'an unnamed product'}" if name != "account" else ""
    line += f" (order {facts['order_number']})" if facts["order_number"] else ""
    usual = {"refund": "damaged", "replacement": "damaged", "repair": "stopped", "status": "not_arrived",
             "cancel": "not_needed", "address": "moved", "account": "locked", "setup": "setup_fails"}  # fmt: skip
    return f"{line}: {PROBLEM_TEXTS[usual[name]]}." if name in usual else f"{line}."


def copy_first_sentence(text: str) -> str:
    """The ticket's first sentence (the lead), as one line."""
    return re.split(r"(?<=[.!?])\s", text.replace("\n", " ").strip())[0]


def commonest_category(seed: int) -> str:
    """The category that most training tickets have."""
    return Counter(ticket.category for ticket in draw_tickets(seed, 8000, SEEN)).most_common(1)[0][0]
