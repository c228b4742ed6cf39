"""Numbers and names as people read them."""

import pytest

from robustlab.reporting import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0.000"),
        (-0.0, "0.000"),
        (0.04249, "0.042"),
        (-0.25, "−0.250"),
        (0.0001, "1.0e−4"),
        (12.34, "12.3"),
        (14.0, "14.0"),
        (-2.5e-7, "−2.5e−7"),
        (456.7, "457"),
        (4567.8, "4568"),
        (12345.0, "1.2e4"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("norm", "epsilon", "text"),
    [
        ("linf", 8 / 255, "8/255"),
        ("linf", 0.5 / 255, "0.5/255"),
        ("linf", 0.0, "0"),
        ("linf", 0.3, "0.3"),
        ("linf", 0.1234567, "0.1235"),
        ("l2", 8 / 255, "0.03137 L2"),
        ("l2", 1.5, "1.5 L2"),
        ("l2/8bit", 2.0, "2 L2 (8 bit)"),
        ("patch", 0.05, "5\u202f%"),
        ("patch", 64**2 / 224**2, "8.16\u202f%"),
        ("linf/8bit", 2 / 255, "2/255 (8 bit)"),
        ("patch/8bit", 0.1, "10\u202f% (8 bit)"),
    ],
)
def test_budgets(norm: str, epsilon: float, text: str) -> None:
    assert wording.budget(norm, epsilon) == text


def test_beside_the_name_of_the_norm_only_the_number_is_said() -> None:
    assert wording.radius("l2", 1.5) == "1.5"
    assert wording.radius("linf/8bit", 2 / 255) == "2/255"


def test_intervals_have_brackets_only_where_there_is_one() -> None:
    assert wording.with_interval(0.5, 0.4, 0.6) == "0.500 [0.400, 0.600]"
    assert wording.with_interval(0.5, None, None) == "0.500"


def test_percent() -> None:
    assert wording.percent(0.42).replace("\u202f", " ") == "42 %"
    assert wording.percent(0.004).replace("\u202f", " ") == "0.4 %"
    assert wording.percent(0.0004).replace("\u202f", " ") == "0.0 %"
    assert wording.percent(0.0096).replace("\u202f", " ") == "1 %"
    assert wording.percent(0.0).replace("\u202f", " ") == "0 %"


@pytest.mark.parametrize(
    ("norm", "text"),
    [("linf", "L∞"), ("l2", "L2"), ("patch", "patch area"), ("linf/8bit", "L∞, 8 bit")],
)
def test_norms(norm: str, text: str) -> None:
    assert wording.norm_name(norm) == text
