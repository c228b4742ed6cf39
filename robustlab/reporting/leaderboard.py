"""The leaderboard: from runs to one reviewable file per model, and from these files to pages.

The pages are made from the files alone, so a model that somebody sends in as a file stands
beside those that were measured here.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from robustlab.records import MANIFEST, UnreadableResults, atomic_write
from robustlab.records.plain import dumps
from robustlab.records.scorecard import Scene, Scorecard
from robustlab.records.scores import Robustness
from robustlab.reporting.comparison import leading
from robustlab.reporting.leaderboard_markdown import leaderboard_markdown
from robustlab.reporting.leaderboard_page import leaderboard_html
from robustlab.reporting.loading import Run, load
from robustlab.reporting.model_cards import model_card
from robustlab.reporting.protocols import is_scored
from robustlab.reporting.scenes import Shots, scene, shared, shots
from robustlab.reporting.scoring import Scoring

FOLDER: Final = "leaderboard"
REMEDY: Final = "run `robustlab run attributional_robustness` first"


@dataclass(frozen=True)
class Written:
    """What was written, and which results had nothing to show and were passed over."""

    files: tuple[Path, ...]
    passed_over: tuple[Path, ...] = ()


def write_leaderboard(folder: Path | str, out: Path | str | None = None) -> Written:
    """Write ``leaderboard/<data>--<model>.json``, ``leaderboard.html`` and ``leaderboard.md``.

    Args:
        folder: results of a run, or a folder that holds several at any depth; or one that has
            the JSON files alone, and then the pages are made from these.
        out: where to write; ``folder`` by default. Files that are there already stay on the
            page, unless a model of the same name was measured anew.

    Raises:
        UnreadableResults: nothing to show, two runs of one model on the same data, or a file
            that is no scorecard; the message names it.
    """
    folder = Path(folder)
    home = folder if out is None else Path(out)
    runs, passed_over = find_runs(folder)
    given = read_cards(folder) if not runs else []
    if not runs and not given:
        raise UnreadableResults(folder, f"holds no results and no {FOLDER}/*.json; {REMEDY}")
    written = _write_cards([*collect(runs), *given], home)
    cards = read_cards(home)
    pages = {
        "leaderboard.html": leaderboard_html(cards),
        "leaderboard.md": leaderboard_markdown(cards),
    }
    for name, text in pages.items():
        atomic_write(home / name, text)
    return Written((*written, *(home / name for name in pages)), tuple(passed_over))


def find_runs(folder: Path) -> tuple[list[Run], list[Path]]:
    """Every results folder in ``folder`` that a leaderboard can be made of, and the others.

    Raises:
        UnreadableResults: there are results, but none with an attack that is shown here.
    """
    if not folder.is_dir():
        raise UnreadableResults(folder, "is not a folder")
    found = [load(path.parent) for path in sorted(folder.rglob(MANIFEST))]
    runs = [run for run in found if is_scored(run.manifest)]
    if found and not runs:
        names = ", ".join(run.manifest.name for run in found[:3])
        wanted = "pgd, top_k with select_by: kendall, or worst_case"
        raise UnreadableResults(folder, f"{names}: no attack is {wanted}; {REMEDY}")
    return runs, [run.folder for run in found if not is_scored(run.manifest)]


def collect(runs: Iterable[Run]) -> list[Scorecard]:
    """One card per model of each run, in plan order, with pictures of an image that all share.

    Raises:
        UnreadableResults: two cards of one name.
    """
    entries = [entry for run in runs for entry in _entries(run)]
    _check_names(entries)
    cards = []
    for entry in entries:
        beside = [other for other in entries if other.card.data == entry.card.data]
        cards.append(replace(entry.card, scenes=_scenes(entry, beside)))
    return cards


def read_cards(folder: Path) -> list[Scorecard]:
    """Every card in ``folder``'s ``leaderboard``, by file name.

    Raises:
        UnreadableResults: a file that is no card, or that has another one's name.
    """
    cards = []
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            card = Scorecard.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            raise UnreadableResults(path, f"not a scorecard: {error}") from None
        if path.name != card.file_name:
            problem = f"holds {card.model.label!r} on {card.data!r}; name it {card.file_name}"
            raise UnreadableResults(path, problem)
        cards.append(card)
    return cards


@dataclass(frozen=True)
class _Entry:
    """A card in the making: its numbers, and the pictures to choose from by protocol."""

    card: Scorecard
    folder: Path
    shots: dict[str, tuple[Robustness, Shots]]


def _entries(run: Run) -> list[_Entry]:
    models = dict.fromkeys(cell.model for cell in run.manifest.plan)
    return [_entry(Scoring(run, model)) for model in models]


def _entry(scoring: Scoring) -> _Entry:
    run = scoring.run
    data, dataset = _data(run)
    card = Scorecard(
        model=model_card(run, scoring.model),
        data=data,
        dataset=dataset,
        clean=scoring.clean(),
        adversarial=scoring.adversarial(),
        published=scoring.published(),
        strict=scoring.strict(),
        notes=scoring.notes(),
        experiment=run.manifest.name,
        fingerprint=run.manifest.fingerprint,
        commit=_commit(run),
    )
    shown = {"published": card.published, "strict": leading(card.strict)}
    found = {name: (one, shots(scoring, one)) for name, one in shown.items() if one is not None}
    return _Entry(card, run.folder, found)


def _scenes(entry: _Entry, beside: Sequence[_Entry]) -> tuple[Scene, ...]:
    """By protocol: of the first image that all models have, else of this one's own first."""
    made = []
    for protocol, (measured, own) in entry.shots.items():
        others = [other.shots[protocol][1] for other in beside if protocol in other.shots]
        name = shared([one for one in others if one]) or next(iter(own), None)
        if name is not None and name in own:
            made.append(scene(protocol, measured, own[name]))
    return tuple(made)


def _data(run: Run) -> tuple[str, str]:
    """Label of the images and their name in the lab."""
    choice = run.manifest.spec.get("data")
    options = choice if isinstance(choice, dict) else {"name": choice or "images"}
    name = str(options.get("name"))
    labels = [record.cell.data for record in run.records]
    return (labels[0] if labels else str(options.get("label") or name)), name


def _commit(run: Run) -> str:
    said = [str(record.provenance.get("commit") or "") for record in run.records]
    return ", ".join(name for name in dict.fromkeys(said) if name)


def _check_names(entries: Sequence[_Entry]) -> None:
    seen: dict[str, _Entry] = {}
    for entry in entries:
        other = seen.setdefault(entry.card.file_name, entry)
        if other is not entry:
            label, data = entry.card.model.label, entry.card.data
            problem = f"{label!r} on {data!r} is also in {other.folder}; give one of the two"
            raise UnreadableResults(entry.folder, problem)


def _write_cards(cards: Sequence[Scorecard], home: Path) -> list[Path]:
    (home / FOLDER).mkdir(parents=True, exist_ok=True)
    written = [home / FOLDER / card.file_name for card in cards]
    for path, card in zip(written, cards, strict=True):
        atomic_write(path, dumps(card.to_dict()))
    return written
