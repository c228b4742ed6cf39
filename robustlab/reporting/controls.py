"""Each attack beside its random-sign control: same budget, tries, selection and images."""

from collections.abc import Iterable, Mapping, Sequence

from robustlab.reporting.samples import Sample, mean, per_image
from robustlab.reporting.statistics import Interval, interval, paired_difference

Place = tuple[str, str, str, str, str, float, str, str]
SHARED = ""  # what a control serves that serves every attack
Controls = Mapping[Place, Sequence[Sample]]


def find_controls(groups: Iterable[Sample]) -> Controls:
    """The controls among ``groups``, by the attack that they serve and where."""
    found: dict[Place, list[Sample]] = {}
    for sample in groups:
        if sample.role == "control":
            place = _place(sample, sample.control_of, sample.group.made_on)
            found.setdefault(place, []).append(sample)
    return found


def control_for(sample: Sample, known: Controls) -> Sample | None:
    """The control of an attack's sample, measured on the same explainer and budget.

    The attack's own control is preferred to a shared one, which is the control of no attack
    in particular; and one that aimed at the same explainer to one that aimed at none, which
    serves every explainer. A control looked at the same model as the attack; only a shared
    one may have looked at none. Where several exist, the first of the plan counts.
    """
    if sample.role != "attack":
        return None
    aims = (sample.group.against, "")
    made_on = sample.group.made_on
    candidates = (
        known.get(_place(sample, sample.group.attack, made_on), ())
        or known.get(_place(sample, SHARED, made_on), ())
        or known.get(_place(sample, SHARED, ""), ())
    )
    fitting = [other for other in candidates if other.group.against in aims]
    return min(fitting, key=lambda other: aims.index(other.group.against), default=None)


def floor(sample: Sample, control: Sample | None) -> Interval:
    """The control's own mean drift, over the attack's seeds."""
    if control is None:
        return interval([])
    items = [item for item in control.counted() if item.seed in sample.seeds]
    return interval(list(per_image(items).values()))


def advantage(sample: Sample, control: Sample | None) -> Interval:
    """Attack minus control, paired over the images and seeds that both have."""
    if control is None:
        return interval([])
    baseline = {(item.image_id, item.seed): item.value for item in control.counted()}
    pairs: dict[str, list[tuple[float, float]]] = {}
    for item in sample.counted():
        other = baseline.get((item.image_id, item.seed))
        if item.value is not None and other is not None:
            pairs.setdefault(item.image_id, []).append((item.value, other))
    return paired_difference(
        [mean([ours for ours, _ in values]) for values in pairs.values()],
        [mean([theirs for _, theirs in values]) for values in pairs.values()],
    )


def _place(sample: Sample, attack: str, made_on: str) -> Place:
    group = sample.group
    where = (group.model, group.data, group.explainer, group.norm, group.epsilon, group.metric)
    return (attack, *where, made_on)
