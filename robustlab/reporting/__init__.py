"""From records to tables, figures and pages that a reader can check.

Every function takes the folder that a run left, reads it through the store and writes
one file beside the manifest; it takes what `load` has read of it as well, so that several
files need one reading. Nothing here needs torch.
"""

from pathlib import Path

from robustlab.records import atomic_write
from robustlab.reporting.gallery import write_gallery
from robustlab.reporting.leaderboard import write_leaderboard
from robustlab.reporting.loading import Run, Source, load
from robustlab.reporting.report import write_report
from robustlab.reporting.results import results_csv, rows, to_csv
from robustlab.reporting.saved_table import saved_rows
from robustlab.reporting.summary import SummaryRow, summarise, to_frame
from robustlab.reporting.terminal import short_cautions, short_table
from robustlab.reporting.versus import compare_runs

__all__ = [
    "Run",
    "SummaryRow",
    "compare_runs",
    "load",
    "rows",
    "saved_rows",
    "short_cautions",
    "short_table",
    "summarise",
    "write_all",
    "write_gallery",
    "write_leaderboard",
    "write_report",
    "write_results",
    "write_summary",
]


def write_results(source: Source) -> Path:
    """Write ``results.csv``: every measurement, byte-identical whatever order cells ran in.

    Beside it goes ``saved.csv``, where images were also measured after being saved as files.

    Raises:
        UnreadableResults: the folder holds no readable manifest.
    """
    run = load(source)
    path = run.folder / "results.csv"
    atomic_write(path, results_csv(run.measurements))
    saved = saved_rows(run.records)
    if len(saved):
        atomic_write(path.with_name("saved.csv"), to_csv(saved))
    return path


def write_summary(source: Source) -> Path:
    """Write ``summary.csv``: means, intervals, floors and controls.

    Raises:
        UnreadableResults: the folder holds no readable manifest.
    """
    run = load(source)
    path = run.folder / "summary.csv"
    atomic_write(path, to_csv(to_frame(run.summary)))
    return path


def write_all(source: Source) -> tuple[Path, ...]:
    """Write both tables and both pages; returns the files.

    Raises:
        UnreadableResults: the folder holds no readable manifest.
    """
    run = load(source)
    writers = (write_results, write_summary, write_report, write_gallery)
    return tuple(write(run) for write in writers)
