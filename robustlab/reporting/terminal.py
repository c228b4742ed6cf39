"""A small table of the primary metric, for the command line to print after a run."""

from robustlab.reporting.cautions import cautions
from robustlab.reporting.loading import Source, load
from robustlab.reporting.summary import SummaryRow
from robustlab.reporting.wording import attack_name, budget, number, with_interval


def short_table(source: Source) -> list[tuple[str, ...]]:
    """A header and one row per attack on the primary metric, as plain text cells; without an
    attack, one per metric that describes a map.

    Raises:
        UnreadableResults: the folder holds no readable manifest.
    """
    run = load(source)
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
    models = [row.model for row in table]
    if len({*models}) < 2:
        return [header, *lines]
    return [("model", *header), *((m, *line) for m, line in zip(models, lines, strict=True))]


def short_cautions(source: Source) -> list[str]:
    """What the table's reader must know beside it: each kind of caution once, with its places.

    Raises:
        UnreadableResults: the folder holds no readable manifest.
    """
    run = load(source)
    metric = run.manifest.primary_metric
    found = cautions([row for row in run.summary if row.metric == metric])
    return [f"{c.text}: {c.places[0]}{_others(len(c.places) - 1 + c.more)}" for c in found]


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
