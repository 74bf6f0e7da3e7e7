"""Dates in words and in the form of ISO 8601: pairs to learn a translation from, made and not read."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np

FIRST, LAST = date(1900, 1, 1), date(2099, 12, 31)

MONTHS = (
    "january february march april may june july august september october november december").split()
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth").split()
ORDINALS += [f"twenty-{unit}" for unit in ORDINALS[:9]] + ["thirtieth", "thirty-first"]

# Filled in by `in_words`.
PHRASINGS = (
    "the {ordinal} of {month} {year}",
    "{month} the {ordinal}, {year}",
    "the {short} of {month}, {year}",
    "{month} {short} {year}",
    "{day} {month} {year}",
    "{abbreviated} {day}, {year}",
    "in {year}, on {month} {day}",
)

Pair = tuple[str, str]


def date_pairs(training: int, held_out: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """So many pairs (in words, ISO form) to train on, and so many to test on, all of different dates.

    "the third of march 1987" is "1987-03-03". Each date is drawn from those of 1900 to 2099, and its
    phrasing from seven. No date is in both lists, in whatever phrasing. A pure function of its
    arguments, and the held-out pairs do not depend on the number of the others.

    Raises
    ------
    ValueError
        There are not so many dates.
    """
    days = (LAST - FIRST).days + 1
    if training + held_out > days:
        raise ValueError(f"date_pairs: at most {days:,} dates, those from {FIRST} to {LAST}, got "
                         f"{training:,} to train on and {held_out:,} held out")
    rng = np.random.default_rng(seed)
    order, phrasings = rng.permutation(days), rng.integers(0, len(PHRASINGS), days)
    pairs = []
    for day, phrasing in zip(order[:held_out + training].tolist(), phrasings.tolist()):
        chosen = FIRST + timedelta(day)
        pairs.append((in_words(chosen, phrasing), chosen.isoformat()))
    return pairs[held_out:], pairs[:held_out]


def in_words(day: date, phrasing: int) -> str:
    """A date in the phrasing of this number, in lower case."""
    month = MONTHS[day.month - 1]
    return PHRASINGS[phrasing].format(
        ordinal=ORDINALS[day.day - 1], short=f"{day.day}{_suffix(day.day)}", day=day.day, month=month,
        abbreviated=month[:3], year=day.year)


def _suffix(n: int) -> str:
    """The end of "1st", "2nd", "3rd", "4th"."""
    return "th" if 11 <= n <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
