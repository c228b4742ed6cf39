"""The paper's order of trainings, its values, and what is said of both here."""

from dataclasses import replace

from robustlab.records.scorecard import Scorecard
from robustlab.records.scores import Estimate
from robustlab.reporting.ordering import orderings, paper_breaks, step
from robustlab.reporting.published import FASHION_MNIST, MNIST, paper_rows
from tests.reporting import board
from tests.reporting.page import Node
from tests.reporting.scored import around, metric_of


def test_the_papers_values_are_called_unverified(board_page: Node) -> None:
    (table,) = board_page.all("table", "paper")
    assert "unverified" in table.text
    assert "another network" in table.text
    for row, line in zip(FASHION_MNIST, table.all("tbody")[0].all("tr"), strict=True):
        shown = [c.text for c in line.all("td")[:4]]
        values = (row.natural, row.adversarial, row.intersection, row.kendall)
        assert shown == [f"{value:.4f}" for value in values]
    assert paper_rows("mnist_1k") == MNIST
    assert paper_rows("photos") == ()
    assert paper_breaks(FASHION_MNIST) == ["CO falls from Madry to IG-NORM, 0.625 to 0.617"]
    assert paper_breaks(MNIST) == []


def test_a_step_of_the_order() -> None:
    assert step(around(0.4), around(0.5)) == "holds"
    assert step(around(0.5), around(0.4)) == "fails"
    assert step(around(0.4), around(0.5, 0.2)) == "undecided"
    assert step(around(0.5), around(0.49), no_worse=True) == "holds"
    assert step(around(0.5), around(0.4), no_worse=True) == "fails"
    assert step(Estimate(n=1, mean=0.1), around(0.9)) == "undecided"


def test_the_order_names_the_step_that_breaks_it(board_cards: dict[str, Scorecard]) -> None:
    def with_in(model: str, value: float) -> Scorecard:
        card = board_cards[model]
        strict = tuple(
            replace(
                one,
                intersection=replace(metric_of(one, "top_100"), ones=around(value)),
                kendall=None,
            )
            for one in card.strict
        )
        return replace(card, published=None, strict=strict)

    values = (0.3, 0.5, 0.7, 0.7)
    good = [with_in(m, v) for m, v in zip(board.MODELS, values, strict=True)]
    (order,) = orderings(good, "integrated_gradients")
    assert (order.verdict, order.remarks) == ("holds", ())
    assert order.chain == "natural 0.300 < adversarial 0.500 < rar_norm 0.700 ≤ rar_sum_norm 0.700"
    (order,) = orderings([*good[:2], with_in("rar_norm", 0.4), good[3]], "gradient")
    assert (order.verdict, order.remarks) == ("fails", ("rar_norm is below adversarial",))
    (order,) = orderings([good[0], with_in("adversarial", 0.31), *good[3:]], "gradient")
    assert order.verdict == "undecided"
    assert order.remarks == ("intervals meet: natural and adversarial", "no rar_norm here")
