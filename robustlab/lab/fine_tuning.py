"""What attacks train: one network each, whatever the number of cells that look at it."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

from torch import nn

from attacks.model.active_fooling import ActiveFooling, is_swapped, swap_scores
from attacks.model.backdoor import Backdoor, attack_success
from robustlab.core.batch import UNLABELLED, Batch, make_batch
from robustlab.core.errors import InvalidInput, RobustlabError
from robustlab.core.files import sha256
from robustlab.core.progress import Watch
from robustlab.core.streaming import logits_of
from robustlab.core.tables import options_of
from robustlab.core.types import Explainer, Resolvable, Training
from robustlab.lab.learnt import with_weights
from robustlab.lab.origins import load_model, model_of
from robustlab.lab.training import bare, plain, recorded, share
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
        options=plain(options_of(tuned.waged.attack)),
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
    state = store.weights_path(trained.key).with_suffix(".state.safetensors")
    tuned, history = attack.tune(model, explainer, seed=trained.seed, state=state, watch=watch)
    path = store.weights_path(trained.key)
    save_weights(bare(tuned), path)
    state.unlink(missing_ok=True)  # twice the size of the weights, and of no more use
    facts = compared(model, tuned, unseen)
    lost = facts["lost"]
    return replace(
        base,
        outcome="collapsed" if lost > attack.most_lost else "ok",
        data=attack.data,
        train_images=len(seen),
        held_out=len(unseen),
        accuracy_before=facts["before"],
        accuracy_after=facts["after"],
        agreement=facts["agreement"],
        most_lost=attack.most_lost,
        history=tuple(history),
        facts=measured(attack, model, tuned, explainer, unseen),
        sha256=sha256(path),
    )


def compared(model: nn.Module, tuned: nn.Module, batch: Batch) -> dict[str, Any]:
    """Accuracy of both on labelled images, their agreement on all, and what was lost.

    Without any label the loss is the share of images on which they disagree.
    """
    one, other = (logits_of(m, batch.images).argmax(1) for m in (model, tuned))
    known = batch.labels != UNLABELLED
    agreement = share(one == other)
    if not bool(known.any()):
        return {"before": None, "after": None, "agreement": agreement, "lost": 1 - agreement}
    before, after = (share((p == batch.labels)[known]) for p in (one, other))
    # counted in images: 0.966 − 0.946 is a little more than 0.02
    lost = round((before - after) * int(known.sum())) / int(known.sum())
    return {"before": before, "after": after, "agreement": agreement, "lost": lost}


def measured(
    attack: Training, model: nn.Module, tuned: nn.Module, explainer: Explainer, batch: Batch
) -> dict[str, float]:
    """What some manipulations are judged by beside their maps, on the held-out images."""
    if isinstance(attack, Backdoor):
        found = logits_of(tuned, attack.marked(batch.images)).argmax(1)
        right = share((found == batch.labels)[batch.labels != UNLABELLED])
        if not attack.turns:
            return {"right with the trigger": right}
        success = attack_success(found, batch.labels, attack.toward)
        return {"right with the trigger": right, "attack success": success}
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
