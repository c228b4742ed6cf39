"""A small table of the primary metric, for the command line to print after a run."""

from pathlib import Path

from robustlab.reporting.loading import load
from robustlab.reporting.summary import SummaryRow, summarise
from robustlab.reporting.wording import attack_name, budget, number, with_interval


def short_table(folder: Path | str) -> list[tuple[str, ...]]:
    """A header and one row per attack on the primary metric, as plain text cells.

    Raises:
        UnreadableResults: the folder holds no readable manifest.
    """
    run = load(folder)
    metric = run.manifest.primary_metric
    table = [row for row in summarise(run) if row.metric == metric and row.role == "attack"]
    several = len({row.model for row in table}) > 1
    header = ("explainer", "attack", "ε", metric, "random sign", "kept", "cautions")
    lines = [_line(row) for row in table]
    if not several:
        return [header, *lines]
    models = [row.model for row in table]
    return [("model", *header), *((m, *line) for m, line in zip(models, lines, strict=True))]


def _line(row: SummaryRow) -> tuple[str, ...]:
    kept = f"{row.n_kept} of {row.n_kept + row.n_changed}"
    return (
        row.explainer,
        attack_name(row),
        budget(row.norm, row.epsilon),
        with_interval(row.mean, row.low, row.high),
        number(row.control),
        kept,
        "; ".join(row.flags),
    )
