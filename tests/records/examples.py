"""Hypothesis strategies for records, and one record to start from."""

from typing import Any

from hypothesis import strategies as st

from robustlab.records import BudgetSpec, CellSpec, ImageRow, PassCount, RunRecord
from robustlab.records.record import IMAGE_OUTCOMES, ROLES

labels = st.text(min_size=1, max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
optional = st.none() | numbers
whole = st.integers(-(2**53), 2**53)


@st.composite
def cells(draw: Any) -> CellSpec:
    names = st.lists(labels, min_size=1, max_size=3, unique=True).map(tuple)
    return CellSpec(
        model=draw(labels),
        data=draw(labels),
        ids=draw(names),
        explainers=draw(names),
        attack=draw(labels),
        role=draw(st.sampled_from(ROLES)),
        control_of=draw(st.none() | labels),
        against=draw(st.none() | labels),
        budget=BudgetSpec(norm="l2", epsilon=draw(numbers), lower=-1.0, upper=2.0),
        target="label",
        seed=draw(whole),
        metrics=draw(names),
    )


@st.composite
def records(draw: Any) -> RunRecord:
    cell = draw(cells())
    return RunRecord(
        key="k1",
        cell=cell,
        outcome="ok",
        images=tuple(draw(images(cell, name)) for name in cell.ids),
        passes=PassCount(forward=draw(whole), backward=draw(whole)),
        path=draw(st.text(max_size=8)),
        seconds=draw(numbers),
        cautions=tuple(draw(st.lists(labels, max_size=2))),
        provenance=draw(st.dictionaries(labels, st.none() | labels | whole | numbers, max_size=2)),
    )


@st.composite
def images(draw: Any, cell: CellSpec, name: str) -> ImageRow:
    inner = st.fixed_dictionaries(dict.fromkeys(cell.metrics, optional))
    table = st.fixed_dictionaries(dict.fromkeys(cell.explainers, inner))
    return ImageRow(
        id=name,
        label=draw(whole),
        label_name=draw(st.text(max_size=8)),
        prediction=draw(whole),
        confidence=draw(optional),
        prediction_after=draw(whole),
        confidence_after=draw(optional),
        target=draw(whole),
        kept=draw(st.booleans()),
        radius=draw(optional),
        outcome=draw(st.sampled_from(IMAGE_OUTCOMES)),
        values=draw(table),
        chance=draw(table),
        facts=draw(st.dictionaries(labels, st.dictionaries(labels, optional, max_size=2))),
    )


def cell(**changes: Any) -> CellSpec:
    fields: dict[str, Any] = {
        "model": "m",
        "data": "d",
        "ids": ("a", "b"),
        "explainers": ("gradient",),
        "attack": "top_k",
        "role": "attack",
        "control_of": None,
        "against": "gradient",
        "budget": BudgetSpec(norm="linf", epsilon=2 / 255),
        "target": "label",
        "seed": 0,
        "metrics": ("spearman",),
    }
    return CellSpec(**{**fields, **changes})


def record(key: str = "k1", **changes: Any) -> RunRecord:
    made = cell()
    rows = tuple(
        ImageRow(
            id=name,
            prediction=3,
            prediction_after=3,
            target=3,
            kept=True,
            radius=1 / 255,
            outcome="ok",
            values={"gradient": {"spearman": 0.1 + 0.2}},
            chance={"gradient": {"spearman": 0.0}},
        )
        for name in made.ids
    )
    fields: dict[str, Any] = {"key": key, "cell": made, "outcome": "ok", "images": rows}
    return RunRecord(**{**fields, **changes})


def manifest(*keys: str, **changes: Any) -> dict[str, Any]:
    plan = [
        {
            "key": key,
            "attack": "top_k",
            "role": "attack",
            "against": "gradient",
            "epsilon": 2 / 255,
            "norm": "linf",
            "model": "m",
            "images": 2,
            "seed": 0,
        }
        for key in keys
    ]
    metric = {"name": "spearman", "higher_is_more_stable": True, "bounds": [-1, 1], "summary": "."}
    whole: dict[str, Any] = {
        "schema": 1,
        "name": "trial",
        "question": "?",
        "fingerprint": "aaaa",
        "spec": {},
        "plan": plan,
        "models": ["m"],
        "metrics": {"spearman": metric},
        "explainers": {"gradient": {"name": "gradient", "post": "abs_sum", "summary": "."}},
        "attacks": {
            "top_k": {
                "name": "top_k",
                "role": "attack",
                "control_of": None,
                "against": None,
                "summary": ".",
            }
        },
        "primary_metric": "spearman",
    }
    return {**whole, **changes}
