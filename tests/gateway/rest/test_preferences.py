"""The `Prefer` header."""

import pytest

from ourvidz_gateway.rest.preferences import MAX_WAIT_S, wait_of


@pytest.mark.parametrize(
    ("prefer", "wait_s"),
    [
        (["wait=10"], 10),
        (["WAIT = 10"], 10),
        (['wait="10"'], 10),
        (["respond-async, wait=10"], 10),
        (["respond-async", "wait=10; strict"], 10),
        (["wait=10, wait=20"], 10),
        (["wait=007"], 7),
        ([f"wait={MAX_WAIT_S + 1}"], MAX_WAIT_S),
        (["wait=" + "9" * 5000], MAX_WAIT_S),
        (["wait=x, wait=20"], 20),
        (['note="a, wait=5", wait=20'], 20),
        ([r'note="\", wait=5", wait=20'], 20),
        ([], None),
        ([""], None),
        (["wait"], None),
        (["wait="], None),
        (["wait=0"], None),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait=²"], None),
        (["await=10"], None),
        (["wait=10 seconds"], None),
        (['note="wait=5'], None),
        (["return=minimal"], None),
    ],
)
def test_a_wait_is_found_among_other_preferences_and_what_can_not_be_read_is_ignored(prefer, wait_s):
    assert wait_of(prefer) == wait_s
