"""What attacks train: one network each, whatever the number of cells that look at it."""

from copy import deepcopy
from dataclasses import replace

from torch import nn

from attacks.model.active_fooling import ActiveFooling, is_swapped, swap_scores
from attacks.model.backdoor import Backdoor, attack_success
from robustlab.core.batch import Batch, make_batch
from robustlab.core.errors import InvalidInput, RobustlabError
from robustlab.core.files import sha256
from robustlab.core.progress import Watch
from robustlab.core.streaming import logits_of
from robustlab.core.tables import options_of
from robustlab.core.types import Explainer, Resolvable, Training
from robustlab.lab.held_out import compared, right
from robustlab.lab.learnt import with_weights
from robustlab.lab.origins import load_model, model_of
from robustlab.lab.recording import bare, recorded, shown, weights_and_state
from robustlab.lab.units import Cell, FineTuned
from robustlab.models.weight_files import load_weights, save_weights
from robustlab.records import Store, TrainingRecord


def run_fine_tuning(tuned: FineTuned, folder: str, watch: Watch | None = None) -> TrainingRecord:
    """Train, hold against the true model on held-out images, and store; or a record that says why.

    A killed training goes on from its last whole epoch.
    """
    store = Store(folder)
    base = TrainingRecord(
        key=tuned.key,
        model=tuned.model.label,
        attack=tuned.lesson,
        against=tuned.aim,
        seed=tuned.seed,
        outcome="ok",
        options=shown(options_of(tuned.waged.attack)),
    )

    return recorded(
        base, store, tuned.device, lambda: _train(base, with_weights(tuned, store), store, watch)
    )


def _train(
    base: TrainingRecord, trained: FineTuned, store: Store, watch: Watch | None
) -> TrainingRecord:
    attack = trained.waged.attack
    assert isinstance(attack, Training)  # noqa: S101
    model = load_model(model_of(trained), trained.device)
    seen, unseen = attack.material()
    unseen = unseen.to(trained.device)
    explainer = trained.against.explainer
    if isinstance(explainer, Resolvable):
        explainer = explainer.resolved(model, unseen.images[:1])
    with weights_and_state(store, trained.key) as (path, state):
        tuned, history = attack.tune(model, explainer, seed=trained.seed, state=state, watch=watch)
        save_weights(bare(tuned), path)
    found = compared(model, tuned, unseen)
    return replace(
        base,
        outcome="collapsed" if found.lost > attack.most_lost else "ok",
        data=attack.data,
        train_images=len(seen),
        held_out=len(unseen),
        accuracy_before=found.before,
        accuracy_after=found.after,
        agreement=found.agreement,
        most_lost=attack.most_lost,
        history=tuple(history),
        facts=measured(attack, model, tuned, explainer, unseen),
        sha256=sha256(path),
    )


def measured(
    attack: Training, model: nn.Module, tuned: nn.Module, explainer: Explainer, batch: Batch
) -> dict[str, float]:
    """What some manipulations are judged by beside their maps, on the held-out images."""
    if isinstance(attack, Backdoor):
        found = logits_of(tuned, attack.marked(batch.images)).argmax(1)
        kept = right(found, batch.labels)
        facts = {} if kept is None else {"right with the trigger": kept}
        if attack.turns:
            facts["attack success"] = attack_success(found, batch.labels, attack.toward)
        return facts
    if isinstance(attack, ActiveFooling):
        seen = logits_of(model, batch.images).argmax(1)
        pair = [i for i, c in enumerate(seen.tolist()) if c in (attack.first, attack.second)]
        if not pair:
            return {}
        images = make_batch(batch.images[pair], ids=[batch.ids[i] for i in pair])
        scores = swap_scores(model, tuned, explainer, images, attack.first, attack.second)
        return {
            "swap score": float(scores.mean()),
            "swapped": float(is_swapped(scores).double().mean()),
        }
    return {}


def trained_model(cell: Cell, model: nn.Module, store: Store) -> tuple[nn.Module, TrainingRecord]:
    """A copy of ``model`` with the weights that the cell's training has left.

    Raises:
        RobustlabError: the training failed, or its files are gone.
    """
    record = store.read_training(cell.tuned)
    path = store.weights_path(cell.tuned)
    if record is None or (record.outcome != "crashed" and not path.is_file()):
        raise RobustlabError(f"the training {cell.tuned} has left no weights; run it again")
    if record.outcome == "crashed":
        raise RobustlabError(f"its training failed: {record.error}")
    copy = deepcopy(model)
    try:
        load_weights(bare(copy), path)
    except InvalidInput as error:
        raise RobustlabError(f"{error}; remove the file and run again") from None
    return copy.eval(), record
