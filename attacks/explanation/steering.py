"""One more gradient than an `Ascent` has: attacks that lead the prediction and the map."""

from torch import Tensor

from attacks.explanation.ascent import Ascent
from attacks.explanation.gradients import by_double_backward, by_products
from attacks.explanation.objectives import Objective
from robustlab.core.errors import NotDifferentiable
from robustlab.core.types import Explainer, Problem


def check_path(settings: Ascent, explainer: Explainer) -> None:
    """Refuse an explainer that the settings have no gradient path for.

    Raises:
        NotDifferentiable: naming it.
    """
    if settings.gradient_path(explainer) == "impossible":
        raise NotDifferentiable(f"{type(explainer).__name__} has no gradient path")


def map_gradient(
    problem: Problem,
    images: Tensor,
    objective: Objective,
    settings: Ascent,
    *,
    step: int,
    probe: float,
) -> Tensor:
    """∂ loss(map of ``problem.targets``)/∂x ``[B,C,H,W]`` at ``images``, by the settings' path.

    ``probe`` is the largest pixel change of a probe. Cost: three explanations
    (hessian_vector), or a double backward through the surrogate (double_backward).
    """
    explainer = problem.explainer
    if settings.gradient_path(explainer) == "double_backward":
        return by_double_backward(problem, images, objective, settings.beta_at(step, explainer))
    raw = explainer.explain(problem.model, images, problem.targets, ids=problem.ids)
    return by_products(problem, images, raw, objective, probe)
