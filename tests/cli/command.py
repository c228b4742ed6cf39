"""The command line from a test: in this process, which is quick, or in one of its own."""

import io
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from robustlab import cli

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "robustlab.cli")


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line on stderr that a misuse ends with."""
        (line,) = self.err.splitlines()
        assert line.startswith("error ")
        return line.removeprefix("error ")


def robustlab(*arguments: Any) -> Said:
    """Run a command here; an exception that it does not expect fails the test."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["robustlab", *map(str, arguments)]),
        mock.patch.object(sys, "excepthook", sys.excepthook),  # typer sets its own
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Said(code, out.getvalue(), err.getvalue())


def environment() -> dict[str, str]:
    """This project first on the path, one thread, and no colours."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
    }


def start(*arguments: Any, output: int = subprocess.PIPE) -> "subprocess.Popen[str]":
    """A command in a process and a process group of its own, which hears Ctrl-C.

    Tests that a shell runs in the background do not, and hand that down.
    """
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env=environment(),
        stdout=output,
        stderr=output,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def python(code: str, *arguments: Any) -> "subprocess.CompletedProcess[str]":
    """A Python program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
