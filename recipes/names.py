"""The names that synthetic tickets hold: people, products, and random ones that make a model copy instead of recall.

All product names are invented. Training and held-out lists share no entry; `tests/unit/recipes` checks it.
"""

from random import Random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words(
    """Maria Anna Peter John Laura Paul Emma Lucas Sofia Daniel Julia Martin Eva Thomas Nina Oliver Clara Simon Helen
    David Ines Marco Lena Victor Alice Hugo Sara Felix Diana Robert Mei Wei Yuki Hiro Aisha Omar Fatima Ali Priya Raj
    Ananya Chen Li Kofi Amara Zanele Tariq Leila Noah Mia José Łukasz Zoë Renée Jürgen Søren Björn Anaïs Chloé Mateo
    Ivan Olga Dmitri Katya Pavel Milan Petra Tomas Jana Eszter Gabor Andrei Ioana Elif Mehmet Yusuf Niko Eleni Giorgos
    Fiona Sean Brigid Owen Megan Rhys Ingrid Lars Astrid Nils Karin Femke Daan Sanne Joost Amélie Pierre Luc Manon
    Giulia Paolo Chiara Luca Carmen Pablo Lucía Javier Rosa Diego Joana Tiago Bruno Camila Thiago"""
)
LAST_NAMES = _words(
    """Smith Miller Brown Garcia Lopez Meyer Schmidt Weber Fischer Rossi Bianchi Moreau Dubois Novak Horvat Kowalski
    Nowak Ivanov Petrov Jensen Hansen Larsen Berg Lindqvist Virtanen Korhonen Silva Santos Costa Pereira Kim Park Lee
    Wang Zhang Liu Tanaka Sato Suzuki Patel Sharma Gupta Khan Ahmed Hassan Okafor Mensah Dlamini Nguyen Tran Yılmaz
    Demir Papadopoulos O'Brien Murphy Evans Hughes Clarke Walker Turner Baker Carter Cooper Müller Schäfer Groß
    Nuñez Ibáñez Fernández Gómez Lefèvre François Škoda Dvořák Čapek Szabó Kovács Ionescu Popa Van-Dijk De-Vries Bakker
    Visser Janssen Haddad Nasser Farouk Cohen Levi Rivera Torres Flores Castillo Reyes Mendoza Vargas"""
)
HELD_OUT_FIRST_NAMES = _words(
    """Beatrix Cornelius Delphine Evander Ginevra Hamish Isolde Jocasta Kenji Ludmila Magnus Nerys Ottilie Piotr
    Quentin Rosalind Stellan Tabitha Ulrike Valentina Wilhelmina Xavier Yannick Zsófia Adaeze Bashir Chidi Devika
    Étienne Françoise Gülşen Håkon"""
)
HELD_OUT_LAST_NAMES = _words(
    """Abernathy Bergström Castellano Drummond Eriksson Fitzgerald Grünwald Hollingworth Iwanowski Jankovic Kirchner
    Lindholm MacKenzie Nakamura Oyelaran Pellegrini Quispe Rasmussen Stavros Thistlewood Ueda Vandermeer Whitcombe
    Ximenes Yamaguchi Zielinski Øvrebø Błaszczyk Delacroix-Roy Ó-Faoláin"""
)
PRODUCT_NOUNS = _words(
    """lamp kettle toaster router printer headphones keyboard monitor chair desk blender vacuum drone camera tablet
    speaker charger backpack tent jacket fan heater scale mixer grinder mower drill scooter mouse watch phone mirror
    shelf clock radio"""
)
HELD_OUT_PRODUCT_NOUNS = _words(
    "projector thermostat doorbell humidifier treadmill microphone juicer stroller hammock freezer sander"
)
PRODUCT_BRANDS = _words(
    """Norda Lumo Vexa Kitto Brava Orbi Zento Pallas Quill Tavo Mirra Helio Sonta Ferro Clyde Aqua Terra Volta Nimbo
    Raven Koala Swift Pico Delta Arco Zephyr Bolt Cobalt Juno Argo Tempo Vista Polar Ember Sola Onyx Fjord Cedar
    Magna Prisma"""
)
HELD_OUT_PRODUCT_BRANDS = _words(
    "Wexford Ixora Glimmer Jasperon Ubiko Dorvale Hestia Krane Yarrow Omnivox Skylark Thundra Plover Quasar"
)
SERIES = ("Pro", "Max", "Mini", "Plus", "Air", "One", "XL", "Go", "Eco", "Ultra")
HELD_OUT_SERIES = ("Neo", "Lite", "Duo", "Prime")
_ONSETS = _words("b c ch d f g h j k l m n p qu r s sh st t th tr v w x y z br kl gr mc ph sk wh dr fl gl") + ("",) * 6
_VOWELS = _words("a e i o u a e i o u a e i o u y ai ea ou ie ee oo ia au ei ue")
_CODAS = ("", "", "", "", *_words("l n r s t x nd rt m ck ng ss b d k p ll ngs rg lt ff z v c"))
_ACCENTS = {
    "a": "áàâäãåāą", "c": "çćč", "e": "éèêëęē", "i": "íìîïıī", "l": "łľ", "n": "ñńň", "o": "óòôöõøőō",
    "s": "śşšß", "u": "úùûüůűū", "z": "źżž", "g": "ğģ", "y": "ýÿ", "d": "đď", "r": "řŕ",
}  # fmt: skip


def draw_word(rng: Random) -> str:
    """A random word with a capital, mostly pronounceable, at times accented: nothing to recall, only to copy."""
    if rng.random() < 0.15:
        word = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 8)))
    else:
        syllables = rng.choice((1, 2, 2, 2, 3, 3, 4))
        word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))
    if rng.random() < 0.2:
        word = "".join(rng.choice(_ACCENTS[c]) if c in _ACCENTS and rng.random() < 0.35 else c for c in word)
    return word[0].upper() + word[1:]


def draw_code(rng: Random) -> str:
    """A model code such as `X200`, `7i` or `K-45`."""
    letter = rng.choice("ABCDEFGHKLMNPQRSTVWXZ")
    number = rng.randint(2, 999)
    return rng.choice(
        (
            f"{letter}{number}",
            f"{number}",
            f"{number}{letter.lower()}",
            f"{letter}-{number}",
            f"{letter}{letter}{number}",
        )
    )


def draw_person(rng: Random, *, held_out: bool, random_share: float) -> str:
    """A full name; in training a `random_share` of the words (0..1) is random letters."""
    firsts, lasts = (HELD_OUT_FIRST_NAMES, HELD_OUT_LAST_NAMES) if held_out else (FIRST_NAMES, LAST_NAMES)
    first, last = (
        draw_word(rng) if not held_out and rng.random() < random_share else rng.choice(names)
        for names in (firsts, lasts)
    )
    return rng.choice(
        (f"{first} {last}",) * 8 + (first, f"{first[0]}. {last}", f"{first} {rng.choice('ABCDEFGHJKLMNPRST')}. {last}")
    )


def draw_product(rng: Random, *, held_out: bool, random_share: float) -> str:
    """A product name such as `Norda lamp X200`; in training a `random_share` (0..1) of the words is random letters."""
    brand = rng.choice(HELD_OUT_PRODUCT_BRANDS if held_out else PRODUCT_BRANDS)
    noun = rng.choice(HELD_OUT_PRODUCT_NOUNS if held_out else PRODUCT_NOUNS)
    series = rng.choice(HELD_OUT_SERIES if held_out else SERIES)
    if not held_out and rng.random() < random_share:
        brand = draw_word(rng)
    if not held_out and rng.random() < random_share / 2:
        noun = draw_word(rng).lower()
    noun = noun.capitalize() if rng.random() < 0.3 else noun
    code = draw_code(rng)
    shapes = (
        f"{brand} {noun}",
        f"{brand} {code}",
        f"{brand} {code} {noun}",
        f"{brand} {series} {noun}",
        f"{brand} {noun} {code}",
        f"{brand} {series}",
        f"{noun} {code}",
        f"{brand} {series} {code}",
    )
    return rng.choice(shapes)
