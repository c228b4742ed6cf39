"""Do maps get more robust in the order that the paper reports?

A step from one training to the next *holds* where the mean rises and the two 95 % intervals do
not meet, *fails* where it falls and they do not meet, and is *undecided* else: two intervals
that meet prove nothing. The last step of the paper is no worse than equal, and holds unless it
fails. The models share their images, so a paired comparison would decide more; the cards hold
means alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from robustlab.records.scorecard import Scorecard
from robustlab.records.scores import Estimate, Robustness
from robustlab.reporting.comparison import METRICS, lead_of, part
from robustlab.reporting.published import ORDER, PaperRow
from robustlab.reporting.wording import number

Verdict = Literal["holds", "undecided", "fails"]
NO_WORSE: Final = ("rar_norm", "rar_sum_norm")
WORDS: Final[Mapping[Verdict, str]] = {
    "holds": "holds",
    "undecided": "neither shown nor refuted",
    "fails": "does not hold",
}


@dataclass(frozen=True)
class Ordering:
    """The order of one metric under one protocol.

    Attributes:
        verdict: "fails" if one step does; "holds" if all do.
        chain: the values in the paper's order: ``natural 0.390 < adversarial 0.461``.
        remarks: each step that does not simply hold, in words.
    """

    protocol: str
    metric: str
    verdict: Verdict
    chain: str
    remarks: tuple[str, ...]

    @property
    def words(self) -> str:
        return WORDS[self.verdict]


def orderings(cards: Sequence[Scorecard], lead: str) -> list[Ordering]:
    """IN and CO under both protocols; none where fewer than two of the trainings are there."""
    models = by_objective(cards)
    protocols: dict[str, Callable[[Scorecard], Robustness | None]] = {
        "published": lambda card: card.published,
        "stricter": lambda card: lead_of(card, lead),
    }
    made = []
    for protocol, of in protocols.items():
        for metric in METRICS:
            found = {name: _value(of(card), metric) for name, card in models.items()}
            known = {name: e for name, e in found.items() if e is not None and e.mean is not None}
            if len(known) > 1:
                made.append(_ordering(protocol, metric, known))
    return made


def by_objective(cards: Sequence[Scorecard]) -> dict[str, Scorecard]:
    """The first card of each of the paper's trainings, in the paper's order."""
    found = {name: [card for card in cards if card.model.objective == name] for name in ORDER}
    return {name: same[0] for name, same in found.items() if same}


def paper_breaks(rows: Sequence[PaperRow]) -> list[str]:
    """Where the paper's own values leave its order."""
    said = []
    for before, after in pairwise(rows):
        for metric, a, b in (
            ("IN", before.intersection, after.intersection),
            ("CO", before.kendall, after.kendall),
        ):
            if b < a:
                said.append(
                    f"{metric} falls from {before.name} to {after.name}, {number(a)} to {number(b)}"
                )
    return said


def step(first: Estimate, second: Estimate, *, no_worse: bool = False) -> Verdict:
    """Whether the second is above the first, or at least not below it."""
    if first.mean is None or second.mean is None:
        return "undecided"
    if None in (first.low, first.high, second.low, second.high):
        return "undecided"
    apart = _above(second, first) or _above(first, second)
    if apart:
        return "holds" if second.mean > first.mean else "fails"
    return "holds" if no_worse else "undecided"


def _ordering(protocol: str, metric: str, known: Mapping[str, Estimate]) -> Ordering:
    names = list(known)
    chain, remarks, verdicts, meet = _shown(names[0], known), [], [], []
    for a, b in pairwise(names):
        no_worse = (a, b) == NO_WORSE
        verdict = step(known[a], known[b], no_worse=no_worse)
        chain += f" {'≤' if no_worse else '<'} {_shown(b, known)}"
        verdicts.append(verdict)
        if verdict == "undecided":
            meet.append(f"{a} and {b}")
        if verdict == "fails":
            remarks.append(f"{b} is below {a}")
    if meet:
        remarks.append(f"intervals meet: {', '.join(meet)}")
    remarks += [f"no {name} here" for name in ORDER if name not in known]
    worst: Verdict = "holds"
    if "undecided" in verdicts:
        worst = "undecided"
    if "fails" in verdicts:
        worst = "fails"
    return Ordering(protocol, metric, worst, chain, tuple(remarks))


def _shown(name: str, known: Mapping[str, Estimate]) -> str:
    return f"{name} {number(known[name].mean)}"


def _value(found: Robustness | None, metric: str) -> Estimate | None:
    stability = part(found, metric)
    return stability.ones if stability else None


def _above(high: Estimate, low: Estimate) -> bool:
    return high.low is not None and low.high is not None and high.low > low.high
