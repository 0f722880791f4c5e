"""API keys as text."""

from hypothesis import given
from hypothesis import strategies as st

from headgate.core.chance import SeededChance
from headgate.core.keys import check_shape, hash_key, key_prefix, make_key


@given(st.integers(0, 2**32))
def test_a_made_key_has_the_right_shape(seed: int) -> None:
    key = make_key(SeededChance(seed)).reveal()
    assert key.startswith("hg_") and len(key) == 52 and check_shape(key)
    assert key.startswith(key_prefix(key)) and len(key_prefix(key)) == 9


@given(st.integers(0, 1000), st.integers(3, 51), st.sampled_from("0Az9"))
def test_one_wrong_character_is_noticed(seed: int, place: int, other: str) -> None:
    key = make_key(SeededChance(seed)).reveal()
    wrong = key[:place] + other + key[place + 1 :]
    assert check_shape(wrong) == (wrong == key)


@given(st.text(max_size=80))
def test_other_text_is_no_key(text: str) -> None:
    assert not check_shape(text)


def test_no_line_break_passes_as_a_key() -> None:
    assert not check_shape(make_key(SeededChance(1)).reveal() + "\n")


def test_extreme_bits_still_fit() -> None:
    class Ones:
        def token_bytes(self, count: int) -> bytes:
            return b"\xff" * count

        def uniform(self, low: float, high: float) -> float:
            return high

    class Zeros(Ones):
        def token_bytes(self, count: int) -> bytes:
            return bytes(count)

    assert check_shape(make_key(Ones()).reveal()) and check_shape(make_key(Zeros()).reveal())


def test_the_hash_depends_on_key_and_pepper() -> None:
    assert hash_key("hg_a", b"1" * 32) != hash_key("hg_b", b"1" * 32)
    assert hash_key("hg_a", b"1" * 32) != hash_key("hg_a", b"2" * 32)
    # Source: HMAC-SHA-256, RFC 4231 test case 2.
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert hash_key("what do ya want for nothing?", b"Jefe") == expected


def test_a_key_is_not_shown_by_accident() -> None:
    key = make_key(SeededChance(3))
    assert key.reveal() not in f"{key} {key!r}"
