"""Running an explainer of the whole model: one image per class, and what the model says of it."""

import time
from dataclasses import replace
from io import BytesIO

import numpy as np
import torch
from torch import Tensor

from robustlab.core.judge import check_eval_mode
from robustlab.core.streaming import logits_of
from robustlab.core.wrapping import Counted
from robustlab.lab.learnt import with_weights
from robustlab.lab.origins import data_of, load_batch, load_model, model_of
from robustlab.lab.provenance import provenance
from robustlab.lab.reasons import reason
from robustlab.lab.units import Visual
from robustlab.models import Classifier
from robustlab.records import PassCount, Store, VisualRecord, VisualRow


def run_visual(visual: Visual, folder: str) -> VisualRecord:
    """Make the images, ask the model about them and store both; a failure is a record too."""
    started = time.perf_counter()
    store, facts = Store(folder), provenance(visual.device)
    try:
        record, images = _make(with_weights(visual, store))
    except Exception as error:  # a visible failure, never a missing row
        record, images = _record(visual, error=reason(error)), None
    record = replace(record, seconds=time.perf_counter() - started, provenance=facts)
    store.write_visual(record, images)
    return record


def _make(visual: Visual) -> tuple[VisualRecord, bytes]:
    net = load_model(model_of(visual), visual.device)
    check_eval_mode(net)
    like = load_batch(data_of(visual), (visual.shaped_like,), visual.device).images
    classes = torch.tensor(visual.classes, device=like.device)
    shape = torch.zeros(len(classes), *like.shape[1:], device=like.device, dtype=like.dtype)
    ids = [f"class {c}" for c in visual.classes]
    counted = Counted(net)
    made = visual.measured.explainer.explain(counted, shape, classes, ids=ids).clamp(0, 1)
    passes = PassCount(forward=counted.forwards, backward=counted.backwards)
    return replace(_record(visual), images=_rows(net, made, classes), passes=passes), _stored(made)


def _record(visual: Visual, error: str = "") -> VisualRecord:
    return VisualRecord(
        key=visual.key,
        model=visual.model.label,
        explainer=visual.measured.label,
        outcome="crashed" if error else "ok",
        error=error,
    )


def _rows(net: Classifier, made: Tensor, classes: Tensor) -> tuple[VisualRow, ...]:
    logits = logits_of(net, made)
    sure, seen = torch.softmax(logits, 1), logits.argmax(1)
    return tuple(
        VisualRow(
            target=int(c),
            target_name=net.class_names[int(c)],
            prediction=int(seen[i]),
            prediction_name=net.class_names[int(seen[i])],
            score=float(logits[i, c]),
            confidence=float(sure[i, c]),
        )
        for i, c in enumerate(classes)
    )


def _stored(made: Tensor) -> bytes:
    pixels = (made * 255).round().movedim(1, -1).cpu().numpy().astype(np.uint8)
    file = BytesIO()
    np.savez_compressed(file, images=pixels)
    return file.getvalue()
