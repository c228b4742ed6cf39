"""Records can be read anywhere: the room needs nothing but Python."""

import subprocess
import sys

LIST = """
import sys
before = set(sys.modules)
import robustlab.records
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(new - set(sys.stdlib_module_names)))
"""


def test_only_the_standard_library_is_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", LIST], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["robustlab"]
