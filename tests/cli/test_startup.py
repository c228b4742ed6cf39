"""What is imported, and when: help and `import robustlab` must be instant."""

import resource

import pytest

from tests.cli.command import python

HEAVY = ("torch", "torchvision", "numpy", "pandas", "matplotlib", "scipy", "foolbox")

AFTER_A_COMMAND = """
import sys
sys.argv = ["robustlab", *sys.argv[1:]]
from robustlab import cli
try:
    cli.main()
finally:
    print(*sys.modules, file=sys.stderr)
"""
AFTER_AN_IMPORT = "import robustlab, sys; print(*sys.modules, file=sys.stderr)"


def measured(code, *arguments):
    """The finished process and the seconds of processor time that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = python(code, *arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]], ids=" ".join)
def test_help_is_instant_and_imports_nothing_heavy(arguments):
    done, seconds = measured(AFTER_A_COMMAND, *arguments)
    assert done.returncode == 0
    assert "Usage" in done.stdout
    assert not set(HEAVY) & set(done.stderr.split())
    assert seconds < 1.5


def test_it_runs_as_a_module():
    done = python("import runpy; runpy.run_module('robustlab', run_name='__main__')", "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_help_names_every_command():
    text = python(AFTER_A_COMMAND, "--help").stdout
    commands = (
        "list show validate plan run report gallery compare leaderboard train evaluate doctor"
    )
    assert [name for name in commands.split() if f" {name} " not in text] == []


def test_importing_the_package_is_instant_and_lazy():
    done, seconds = measured(AFTER_AN_IMPORT)
    loaded = set(done.stderr.split())
    assert not set(HEAVY) & loaded
    assert {name for name in loaded if name.startswith("robustlab.")} == set()
    assert seconds < 0.5


def test_a_report_is_rebuilt_without_torch(ran):
    folder, _ = ran
    done = python(AFTER_A_COMMAND, "report", folder)
    assert done.returncode == 0
    assert "torch" not in done.stderr.split()


def test_rooms_appear_when_they_are_asked_for():
    code = """
import sys, robustlab
for name in robustlab.__all__:
    getattr(robustlab, name)
assert robustlab.models.load and robustlab.Budget and robustlab.explain
assert set(robustlab.__all__) <= set(dir(robustlab))
try:
    robustlab.nothing
except AttributeError as error:
    print(error)
"""
    done = python(code)
    assert done.stderr == ""
    assert done.stdout.strip() == "module 'robustlab' has no attribute 'nothing'"
