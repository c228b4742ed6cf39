"""Which conclusions survive the choices that nobody argues for.

A world is one combination of everything that could reasonably have been otherwise: the options
under ``multiverse:`` in the experiment's file, and every attack, budget and metric of it. In
each world explainers are ranked by the same data (`ranking`), and each claim that a report
would make there is held against all others:

- X holds best; X holds better than Y, at all and surely (5 % among all pairs of a world);
- the attack goes further than random sign on X.

What a single choice matters: the mean of Kendall's τ_a between the rankings of all pairs of
worlds that differ in that choice alone (1: the same order, 0: no more than by chance), and in
how many of them the same explainer is first. Source: Steegen et al. 2016.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from robustlab.records import Manifest
from robustlab.reporting.ranking import Arena, Ranking, arenas, power_warning, ranking, too_few
from robustlab.reporting.samples import Sample
from robustlab.reporting.summary import SummaryRow
from robustlab.reporting.verdicts import Verdict
from robustlab.reporting.wording import budget, count, number


@dataclass(frozen=True)
class World:
    """One combination, with the ranking in it.

    Attributes:
        choices: axis → value. order: explainers, the most stable first.
        beats: does the attack go further than random sign on an explainer?
    """

    model: str
    choices: Mapping[str, str]
    ranking: Ranking
    beats: Mapping[str, Verdict]

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(row.explainer for row in self.ranking.standings)

    def surely(self, first: str, second: str) -> bool:
        """Is ``first`` surely better than ``second`` here?"""
        told = {frozenset((p.first, p.second)) for p in self.ranking.pairs if p.surely}
        ahead = self.order.index(first) < self.order.index(second)
        return ahead and frozenset((first, second)) in told


@dataclass(frozen=True)
class Claim:
    """A sentence, and in how many worlds it is true; ``surely`` and ``never`` with certainty."""

    text: str
    worlds: int
    holds: int
    surely: int
    opposite: int

    @property
    def survives(self) -> bool:
        """True in every world."""
        return self.holds == self.worlds


@dataclass(frozen=True)
class Axis:
    """One choice: its values, and what it alone does to the ranking."""

    name: str
    values: tuple[str, ...]
    pairs: int
    agreement: float | None
    same_first: int


@dataclass(frozen=True)
class Multiverse:
    """All worlds of one model.

    Attributes:
        explainers: by mean place, the best first.
        agreement: mean τ between the rankings of any two worlds.
    """

    model: str
    worlds: tuple[World, ...]
    explainers: tuple[str, ...]
    axes: tuple[Axis, ...]
    agreement: float | None
    orders: tuple[Claim, ...]
    beaten: tuple[Claim, ...]

    @property
    def claims(self) -> tuple[Claim, ...]:
        return (*self.orders, *self.beaten)


def multiverses(
    groups: Sequence[Sample], table: Sequence[SummaryRow], manifest: Manifest
) -> list[Multiverse]:
    """One per model; empty for an experiment without ``multiverse:``."""
    if not manifest.universes:
        return []
    worlds = _worlds(groups, table, manifest)
    models = dict.fromkeys(world.model for world in worlds)
    return [_multiverse(m, [world for world in worlds if world.model == m]) for m in models]


def sentences(made: Multiverse) -> list[str]:
    """What to take home."""
    worlds = count(len(made.worlds), "world")
    surviving = [claim for claim in made.claims if claim.survives and claim.worlds]
    fragile = sorted((a for a in made.axes if a.agreement is not None), key=_agreement)
    firm = sum(claim.opposite == 0 for claim in made.claims)
    said = [
        f"Of {count(len(made.claims), 'claim')}, true in each of {worlds}: {len(surviving)}; "
        f"surely false in none: {firm}. A world has {_images(made)}."
    ]
    if made.agreement is not None:
        said.append(
            f"Any two of their rankings agree with τ = {number(made.agreement)} on average "
            f"(1: the same order, 0: as chance would have it)."
        )
    if fragile:
        said.append(
            f"What matters most is the {fragile[0].name}: worlds that differ in it alone agree "
            f"with τ = {number(fragile[0].agreement)}."
        )
    short = next((w.ranking for w in made.worlds if too_few(w.ranking)), None)
    return [*said, power_warning(short)] if short else said


def _images(made: Multiverse) -> str:
    counts = [world.ranking.images for world in made.worlds]
    least = count(min(counts, default=0), "image")
    return least if len(set(counts)) < 2 else f"at least {least}"


def multiverse_headlines(found: Sequence[Multiverse]) -> list[str]:
    """The same for the top of a report, with the model in front if there are several."""
    prefixes = [f"{made.model}: " if len(found) > 1 else "" for made in found]
    return [p + said for p, made in zip(prefixes, found, strict=True) for said in sentences(made)]


def tau(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Kendall's τ_a between two orders, over the names that both have."""
    common = [name for name in first if name in second]
    pairs = list(combinations(common, 2))
    if not pairs:
        return None
    agree = sum(second.index(a) < second.index(b) for a, b in pairs)
    return 2 * agree / len(pairs) - 1


def _worlds(
    groups: Sequence[Sample], table: Sequence[SummaryRow], manifest: Manifest
) -> list[World]:
    verdicts = {_place(row): row.beats_control for row in table if row.role == "attack"}
    found = []
    for arena, values in arenas(groups).items():
        metric = manifest.metrics[arena.metric]
        for universe in manifest.universes if not metric.of_one_map else ():
            there = {
                base: values[label] for base, label in universe.members.items() if label in values
            }
            if len(there) > 1:
                beats = {base: verdicts.get((*arena, universe.members[base]), "") for base in there}
                choices = {**universe.choices, **_own_choices(arena)}
                found.append(World(arena.model, choices, ranking(arena, there, metric), beats))
    return found


def _place(row: SummaryRow) -> tuple[object, ...]:
    arena = (getattr(row, name) for name in Arena._fields)
    return (*arena, row.explainer)


def _own_choices(arena: Arena) -> dict[str, str]:
    made = f"{arena.attack} made on {arena.made_on}" if arena.made_on else arena.attack
    return {"attack": made, "ε": budget(arena.norm, arena.epsilon), "metric": arena.metric}


def _multiverse(model: str, worlds: Sequence[World]) -> Multiverse:
    places: dict[str, list[int]] = {}
    for world in worlds:
        for place, name in enumerate(world.order):
            places.setdefault(name, []).append(place)
    explainers = sorted(places, key=lambda name: sum(places[name]) / len(places[name]))
    names = list(dict.fromkeys(name for world in worlds for name in world.choices))
    axes = [axis for name in names if len((axis := _axis(name, worlds)).values) > 1]
    return Multiverse(
        model=model,
        worlds=tuple(worlds),
        explainers=tuple(explainers),
        axes=tuple(axes),
        agreement=_mean(tau(a.order, b.order) for a, b in combinations(worlds, 2)),
        orders=(_best(explainers[0], worlds), *_pairs(explainers, worlds)),
        beaten=tuple(_beaten(name, worlds) for name in explainers),
    )


def _axis(name: str, worlds: Sequence[World]) -> Axis:
    alike: dict[tuple[tuple[str, str], ...], list[World]] = {}
    for world in worlds:
        rest = tuple((k, v) for k, v in world.choices.items() if k != name)
        alike.setdefault(rest, []).append(world)
    pairs = [pair for group in alike.values() for pair in combinations(group, 2)]
    return Axis(
        name=name,
        values=tuple(dict.fromkeys(world.choices[name] for world in worlds)),
        pairs=len(pairs),
        agreement=_mean(tau(a.order, b.order) for a, b in pairs),
        same_first=sum(a.order[0] == b.order[0] for a, b in pairs),
    )


def _best(name: str, worlds: Sequence[World]) -> Claim:
    here = [world for world in worlds if name in world.order]
    others = [[other for other in world.order if other != name] for world in here]
    return Claim(
        text=f"{name} holds best",
        worlds=len(here),
        holds=sum(world.order[0] == name for world in here),
        surely=sum(
            all(w.surely(name, other) for other in rest)
            for w, rest in zip(here, others, strict=True)
        ),
        opposite=sum(
            any(w.surely(other, name) for other in rest)
            for w, rest in zip(here, others, strict=True)
        ),
    )


def _pairs(explainers: Sequence[str], worlds: Sequence[World]) -> list[Claim]:
    claims = []
    for first, second in combinations(explainers, 2):
        here = [world for world in worlds if {first, second} <= set(world.order)]
        claims.append(
            Claim(
                text=f"{first} holds better than {second}",
                worlds=len(here),
                holds=sum(w.order.index(first) < w.order.index(second) for w in here),
                surely=sum(w.surely(first, second) for w in here),
                opposite=sum(w.surely(second, first) for w in here),
            )
        )
    return claims


def _beaten(name: str, worlds: Sequence[World]) -> Claim:
    said = [world.beats[name] for world in worlds if world.beats.get(name)]
    sure = sum(verdict == "yes" for verdict in said)
    return Claim(
        text=f"the attack goes further than random sign on {name}",
        worlds=len(said),
        holds=sure,
        surely=sure,
        opposite=sum(verdict == "no" for verdict in said),
    )


def _agreement(axis: Axis) -> float:
    return 1.0 if axis.agreement is None else axis.agreement


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
