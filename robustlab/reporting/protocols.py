"""Which cells of a run count on the leaderboard.

Attacks are known by what they are, not by their labels: ``pgd`` gives adversarial accuracy;
``top_k`` that selects by Kendall is the attack of Chen et al. 2019; ``worst_case`` is the
stricter one of this lab. Of each the first label and the first budget of the plan count.
"""

from collections.abc import Callable, Sequence

from robustlab.records import AttackInfo, Manifest, PlannedCell, RunRecord


def is_pgd(info: AttackInfo) -> bool:
    """Does it give adversarial accuracy?"""
    return info.role == "attack" and info.name == "pgd"


def is_published(info: AttackInfo) -> bool:
    """Is it the attack of Chen et al. 2019?"""
    kendall = info.options.get("select_by") == "kendall"
    return info.role == "attack" and info.name == "top_k" and kendall


def is_strict(info: AttackInfo) -> bool:
    """Is it the stricter attack of this lab?"""
    return info.role == "attack" and info.name == "worst_case"


def is_scored(manifest: Manifest) -> bool:
    """Has the experiment anything that the leaderboard could show beside natural accuracy?"""
    kinds = (is_pgd, is_published, is_strict)
    return any(kind(info) for info in manifest.attacks.values() for kind in kinds)


def first_planned(
    manifest: Manifest,
    model: str,
    kind: Callable[[AttackInfo], bool],
    against: Sequence[str] | None = None,
) -> PlannedCell | None:
    """The first cell of the plan that is of this kind: label, aim and budget are its.

    Args:
        manifest: of the run.
        model: label of the judged model.
        kind: which attacks.
        against: labels of explainers that it may be made against; None: any, or none at all.
    """
    known = manifest.attacks
    for cell in manifest.plan:
        mine = cell.model == model and cell.attack in known and kind(known[cell.attack])
        if mine and (against is None or cell.against in against):
            return cell
    return None


def fits(record: RunRecord, planned: PlannedCell) -> bool:
    """Is it a chunk or a seed of the planned attack?"""
    cell = record.cell
    here = (cell.attack, cell.against, cell.budget.norm, cell.budget.epsilon)
    return here == (planned.attack, planned.against, planned.norm, planned.epsilon)
