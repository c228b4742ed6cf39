"""What can go wrong between a run and the files that it leaves."""

from pathlib import Path


class UnreadableResults(ValueError):
    """A file of a results folder cannot be read for what it should be.

    Args:
        path: the file or folder.
        problem: what is wrong with it, and what to do where something can be done.
    """

    def __init__(self, path: Path | str, problem: str) -> None:
        self.path, self.problem = Path(path), problem
        super().__init__(f"{path}: {problem}")

    def __reduce__(self) -> tuple[type["UnreadableResults"], tuple[Path, str]]:
        return type(self), (self.path, self.problem)


class OtherExperiment(ValueError):
    """The folder already holds the results of another experiment.

    Args:
        path: the folder.
        found: name of the experiment it holds. Two specs of one name differ too, for
            example a full run and its smoke version.
    """

    def __init__(self, path: Path | str, found: str) -> None:
        self.path, self.found = Path(path), found
        super().__init__(
            f"{path}: holds the results of another experiment, {found!r} with other settings; "
            f"choose another folder with --out, or remove this one to start afresh"
        )

    def __reduce__(self) -> tuple[type["OtherExperiment"], tuple[Path, str]]:
        return type(self), (self.path, self.found)
