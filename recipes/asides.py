"""More sentences of synthetic tickets: the ones that mention a fact in passing, and the ones that mean nothing.

Same rules as `phrases.py`, and likewise this project's own writing.
"""

# Mentions of the product where the problem does not name it.
PRODUCTS = (
    "It is about [the|my] {product}.",
    "[I bought|I ordered|I have] [a|the] {product} [from you|in your shop|].",
    "I am [talking about|writing about] [the|my] {product}.",
    "Product: {product}.",
    "This concerns [a|the|my] {product}.",
    "My [purchase|order] was [a|the] {product}.",
    "[The article|The item] is [called |]{product}.",
    "I [recently |]purchased [a|the] {product}.",
    "The {product} is what I [bought|ordered].",
    "It's the {product} [I mean|that I wrote about].",
    "We own a {product} from your [shop|house].",
)

ORDERS = (
    "[My|The] order number is {order}.",
    "Order [number|no.|nr.|#|]: {order}.",
    "It is order {order}.",
    "[The|My] order [has the number|is number] {order}.",
    "You find it under order {order}.",
    "[See|Look at] order {order}[, please|].",
    "Order #{order}.",
    "My order is {order}.",
    "I placed order {order}[ on your site| in your shop|].",
    "For your files: order {order}.",
    "This is about order {order}.",
    "The order in question: {order}.",
    "(order {order})",
    "The [order number|order code] reads {order}.",
    "The purchase was booked as order no. {order}.",
    "It was order number {order}.",
    "Regarding order {order}[:|.]",
    "Order reference {order}.",
    "The confirmation mail says order {order}.",
    "I refer to my order {order}.",
)

AMOUNTS = (
    "I paid {amount}[ for it| in total|].",
    "It cost [me |]{amount}.",
    "The price was {amount}.",
    "{amount} [was taken|were taken|left] [from my card|from my account].",
    "That is {amount} I will not lose.",
    "The total was {amount}[ with shipping| with tax|].",
    "We are talking about {amount} here.",
    "My [card|account] was charged {amount}.",
    "[The bill|The payment] [was|is] {amount}.",
    "You took {amount} for it.",
    "I [spent|gave you] {amount} [on it|].",
    "The amount [is|was] {amount}.",
    "It was not cheap: {amount}.",
    "{amount} [is|was] the price [I paid|on your site].",
    "For {amount} I hoped for better.",
)

SECOND_AMOUNTS = (
    "Shipping [was|cost] {amount}[ on top|].",
    "I also paid {amount} for [delivery|express shipping|the wrapping].",
    "[And then|There was also] a fee of {amount}.",
    "A [coupon|voucher] of {amount} was [used|taken off].",
    "Customs wanted another {amount}.",
    "The [delivery|postage] alone [was|cost] {amount}.",
)

DATES = (
    "I [ordered|bought] it on {date}.",
    "The order [is|was] from {date}.",
    "[It was bought|It was ordered|I paid] on {date}.",
    "The [date of purchase|order date] [is|was] {date}.",
    "My purchase dates from {date}.",
    "I placed [the|my] order on {date}.",
    "[On|It was on] {date} I [ordered|paid|bought it].",
    "The confirmation [came|arrived] on {date}.",
    "Bought: {date}.",
    "The receipt carries the date {date}.",
    "The [payment|purchase] was made on {date}.",
    "It all [started|began] on {date}.",
)

SECOND_DATES = (
    "[I wrote|I called] you on {date}[ already|].",
    "You [promised|told me] {date}[ for delivery|].",
    "[I need|I want] an answer [by|before] {date}.",
    "I [leave|go on holiday|am away] on {date}.",
    "Nobody has answered since {date}.",
    "My last [mail|letter|message] was from {date}.",
    "The delivery [was planned|was announced] for {date}.",
)

# Sentences without a fact that an answer needs; `{number}` and `{colleague}` are there to mislead.
DISTRACTORS = (
    "I [waited|was] {number} minutes [on the phone|in the line].",
    "Your colleague {colleague} [told me to write|could not help me|was very kind].",
    "I have been a customer for {number} years.",
    "The weather here is [awful|lovely] [today|at the moment].",
    "My dog barked at the driver again.",
    "I [wrote|called] {number} times[ already|].",
    "Otherwise your shop is [great|fine|good].",
    "I [talked|spoke] to {colleague} [on the phone|from your team|last week].",
    "My neighbour {colleague} has the same [problem|one|model].",
    "It is [urgent|important|not urgent].",
    "I am [very |a bit |][disappointed|annoyed|sad|angry].",
    "This is the {number}th time.",
    "You can call me [at|on] {phone}.",
    "My phone number is {phone}.",
    "My {number} cats send their love.",
    "We are a family of {number}.",
    "Sorry for my [bad English|long mail|spelling].",
    "My [customer number|customer id] is {reference}.",
    "It was [a gift|a birthday present] for my [mother|son|wife|brother].",
    "The courier was in a hurry, as {colleague} can tell.",
    "I read your terms on page {number}.",
    "I live on floor {number}.",
    "I hope you [are well|have a good day].",
    "[The photos are attached|I attach a photo|See the picture].",
    "My sister {colleague} recommended you.",
    "The ticket before this one was {reference}.",
    "This should not happen[ with such a shop| again|].",
    "I am at home after {number} o'clock.",
    "{colleague} from your team promised to call[ back|].",
    "Your chat bot sent me round in circles.",
)
