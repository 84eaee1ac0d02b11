"""Which token is chosen."""

from __future__ import annotations

import pytest
import torch

from ourvidz_enhancer.sampling import Sampler

LOGITS = torch.tensor([0.0, 3.0, 2.0, 1.0, -1.0])


def sampler(seed: int | None = None, **changes: float) -> Sampler:
    given = {"temperature": 1.0, "top_k": 5, "top_p": 1.0, "repetition_penalty": 1.0, **changes}
    return Sampler(seed, **given)


def choose_many(chooser: Sampler, count: int = 400) -> list[int]:
    return [chooser.choose(LOGITS.clone(), []) for _ in range(count)]


def test_without_a_seed_it_is_the_likeliest_each_time() -> None:
    assert set(choose_many(sampler(), 10)) == {1}


def test_a_seed_repeats_its_choices_and_another_one_makes_others() -> None:
    assert choose_many(sampler(7)) == choose_many(sampler(7))
    assert choose_many(sampler(7)) != choose_many(sampler(8))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {0, 1, 2, 3, 4}),
        ({"top_k": 2}, {1, 2}),
        # Their probabilities are 0.64 and 0.24.
        ({"top_p": 0.6}, {1}),
        ({"top_p": 0.7}, {1, 2}),
        ({"temperature": 0.05}, {1}),
        ({"top_k": 1000}, {0, 1, 2, 3, 4}),
    ],
)
def test_the_settings_say_from_which_tokens_it_chooses(changes: dict[str, float], expected: set[int]) -> None:
    assert set(choose_many(sampler(7, **changes))) == expected


def test_the_frequencies_are_those_that_the_logits_say() -> None:
    choices = choose_many(sampler(7), 4000)
    shares = torch.bincount(torch.tensor(choices), minlength=5) / 4000
    torch.testing.assert_close(shares, torch.softmax(LOGITS, 0), atol=0.03, rtol=0)


def test_a_token_that_was_written_gets_less_likely() -> None:
    chooser = sampler(repetition_penalty=2.0)
    assert chooser.choose(LOGITS.clone(), [1]) == 2
    # An unlikely one gets still less likely, not more.
    assert chooser.choose(torch.tensor([-1.0, -1.5]), [0]) == 1
