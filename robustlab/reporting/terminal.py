"""A small table of the primary metric, for the command line to print after a run."""

from collections.abc import Sequence

from robustlab.reporting.cautions import cautions
from robustlab.reporting.loading import Source, load
from robustlab.reporting.multiverse import Multiverse, multiverses
from robustlab.reporting.summary import SummaryRow
from robustlab.reporting.wording import attack_name, budget, number, with_interval


def short_table(source: Source) -> list[tuple[str, ...]]:
    """A header and one row per attack on the primary metric, as plain text cells; without an
    attack, one per metric that describes a map; of a multiverse, one per claim.

    Raises:
        UnreadableResults: the folder holds no readable manifest.
    """
    run = load(source)
    if found := multiverses(run.samples, run.summary, run.manifest):
        return _claims(found)
    metric = run.manifest.primary_metric
    table = [row for row in run.summary if row.metric == metric and row.role == "attack"]
    if any(row.disturbs != "model" for row in table):  # sanity checks have a table of their own
        table = [row for row in table if row.disturbs != "model"]
    header: tuple[str, ...] = ("explainer", "attack", "ε", metric, "random sign", "kept")
    lines = [_line(row) for row in table]
    if not table:
        table = [row for row in run.summary if run.manifest.metrics[row.metric].of_one_map]
        table = [row for row in table if row.role == "none" and row.mean is not None]
        header = ("explainer", "metric", "mean")
        lines = [(r.explainer, r.metric, with_interval(r.mean, r.low, r.high)) for r in table]
    return _of_models([row.model for row in table], header, lines)


def short_cautions(source: Source) -> list[str]:
    """What the table's reader must know beside it: each kind of caution once, with its places.

    Raises:
        UnreadableResults: the folder holds no readable manifest.
    """
    run = load(source)
    metric = run.manifest.primary_metric
    found = cautions([row for row in run.summary if row.metric == metric])
    return [f"{c.text}: {c.places[0]}{_others(len(c.places) - 1 + c.more)}" for c in found]


def _claims(found: Sequence[Multiverse]) -> list[tuple[str, ...]]:
    header = ("claim", "true in", "surely true in", "surely false in")
    told = [(made.model, claim) for made in found for claim in made.claims]
    lines = [
        (c.text, f"{c.holds} of {c.worlds} worlds", str(c.surely), str(c.opposite)) for _, c in told
    ]
    return _of_models([model for model, _ in told], header, lines)


def _of_models(
    models: Sequence[str], header: tuple[str, ...], lines: Sequence[tuple[str, ...]]
) -> list[tuple[str, ...]]:
    """Rows with their model in front, if there are several."""
    if len({*models}) < 2:
        return [header, *lines]
    return [("model", *header), *((m, *line) for m, line in zip(models, lines, strict=True))]


def _others(count: int) -> str:
    return "" if count < 1 else f" and {count} more"


def _line(row: SummaryRow) -> tuple[str, ...]:
    return (
        row.explainer,
        attack_name(row),
        budget(row.norm, row.epsilon),
        with_interval(row.mean, row.low, row.high),
        number(row.control),
        f"{row.n_kept} of {row.n_kept + row.n_changed}",
    )
