"""The sentences that synthetic tickets are made of; every line is this project's own writing.

Owns wording only: `tickets.py` decides what is drawn and what the right answer is. In a phrase, `[a|b|]` picks one of
the alternatives and `{order}` stands for a fact. Every fifth phrase of a list is held out (`split_phrases`): training
never sees it, whichever alternative is drawn.
"""

HELD_OUT_EVERY = 5


def split_phrases(phrases: tuple[str, ...], *, held_out: bool) -> list[str]:
    """The phrases of one side of the split: every fifth when `held_out`, else the others."""
    return [p for i, p in enumerate(phrases) if (i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out]


GREETINGS = (
    "[Hello|Hi|Hey|Dear] [team|support|all|there],",
    "[Hello|Hi],",
    "Good [morning|afternoon|evening],",
    "Dear [Sir or Madam|customer service|service team],",
    "[Greetings|Good day] to [you|you all],",
    "To whom it may concern,",
    "[Hello|Hi|Hey]!",
    "[Help desk|Support|Service team],",
)

INTRODUCTIONS = (
    "[My name is|I am|I'm] {customer}[.| and I need your help.| and I am a customer of yours.]",
    "[This is|It is] {customer} [writing|again|here].",
    "{customer} [here|writing].",
    "My name: {customer}.",
    "You are [speaking|dealing] with {customer}.",
    "I [write|am writing] to you [today |]as {customer}, a [regular|long-time|new] customer.",
    "Customer: {customer}.",
    "The [account|order|purchase] is [under|in] the name [of |]{customer}.",
    "I, {customer}, [need your help|have a problem|would like to report something].",
    "Please file this under {customer}.",
    "[The name's|Name is] {customer}[, thanks|].",
    "My [full |]name is {customer}[ and I shop with you often|, nice to meet you|].",
    "Name: {customer}",
    "I'm {customer}, [we spoke last week|I bought from you before|a customer since years].",
    "On your [files|list] I am [called|known as] {customer}.",
    "[Hello|Hi], I am {customer}[ and I need some help| and I have a question|].",
    "My name is {customer} and I [bought something from you|ordered from your shop|have a problem].",
    "[Hi|Hello], [this is|my name is] {customer}.",
    "{customer} [is my name|is the name on the order].",
    "The [name on the order|customer name|buyer's name] is {customer}.",
    "It's {customer}[ again| here|].",
    "[Customer name|Full name|Buyer|From]: {customer}.",
    "I [bought|ordered] as {customer}.",
    "I am {customer}, [the buyer|the customer|the owner of the account].",
    "My details: {customer}[.|, you have the rest.]",
)

SIGNATURES = (
    "[Best regards|Kind regards|Regards|Best wishes],\n{customer}",
    "[Thanks|Thank you|Many thanks],\n{customer}",
    "[Thanks|Thank you][!|.] {customer}",
    "[Sincerely|Yours sincerely|Yours],\n{customer}",
    "[Greetings from|Signed,] {customer}",
    "- {customer}",
    "[Best|Cheers], {customer}",
    "[Yours faithfully|Respectfully],\n{customer}",
    "{customer}",
    "[Warm regards|With kind regards], {customer}",
    "[Thanks in advance|Thank you in advance], {customer}",
    "[Have a nice day|Waiting for your answer],\n{customer}",
    "[BR|Rgds], {customer}",
    "[Bye|Talk soon], {customer}",
    "[Gratefully|All the best],\n{customer}",
    "[Thanks|Thank you] and [best|kind] regards,\n{customer}",
    "[Thank you very much|Thanks a lot],\n{customer}",
    "[Yours|Best],\n{customer}",
    "Regards, {customer}",
    "Best regards {customer}",
    "[Greetings|Cheers],\n{customer}",
    "[Looking forward to your reply|Hoping for a quick reply],\n{customer}",
    "[Sent by|From] {customer}",
    "Thanks {customer}",
    "[Thank you for your help|Thanks for your time],\n{customer}",
    "// {customer}",
    "[Sincerely|Cordially], {customer}",
    "With thanks, {customer}",
    "[Thanks|Thx], {customer}",
    "Love, {customer}",
)

CLOSINGS = (
    "Thanks[!| in advance.|.]",
    "[Please answer|Let me know] [soon|quickly|as soon as you can].",
    "I [look forward to|am waiting for] your [answer|reply].",
    "[Best|Kind] regards",
    "Thank you for [reading|your time].",
    "[Many thanks|Thank you so much].",
)
