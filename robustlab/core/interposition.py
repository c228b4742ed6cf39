"""The first engine: changing how a model computes without touching the model.

Guided backprop, deconvnet, RectGrad, every LRP rule and the softplus surrogate need another
forward or backward rule for some operations. An `Interposition` is a
`torch.overrides.TorchFunctionMode` that is active only while the model's forward runs. It
sees every call of torch's API, whether a module or a function made it, recognises those of
the table below, and hands them to a handler. No hook, no edited module, nothing to restore.

A handler that only wants another *backward* returns ``route(phase, output, pullback, ...)``.
During the explaining backward pass (``with phase:``) gradients follow the pullback; in any
later backward pass they follow the true operation. That is what makes a manipulated backward
pass differentiable: an attack on an LRP map needs ∂R/∂x, in which the activations depend on
x by the *true* derivative, not by the relevance rule.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, TracebackType
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function_unary


@dataclass(frozen=True)
class Call:
    """One recognised operation: its name, its arguments by name, and how to run it."""

    op: str
    arguments: Mapping[str, Any]
    run: Callable[..., Tensor]  # the true operation on another input (and other arguments)

    @property
    def input(self) -> Tensor:
        """The tensor that the operation acts on; of an attention, its values."""
        return self.arguments[_input_of(self.op)]

    def native(self) -> Tensor:
        """What the model would have computed."""
        return self.run(self.input)

    def get(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)


Handler = Callable[[Call], Tensor]


def smooth_activation(input: Tensor, beta: float, ceiling: float | None = None) -> Tensor:
    """Softplus stand-in for ReLU (``ceiling=None``) or for ReLU clipped at ``ceiling``.

    softplus_β(x) = log(1 + e^{βx}) / β, within ln2/β of ReLU everywhere; the clipped form is
    softplus_β(x) − softplus_β(x − ceiling). It is one overridable operation, so that an
    explainer's backward rule sees the whole activation and not its parts.
    """
    if has_torch_function_unary(input):
        return handle_torch_function(smooth_activation, (input,), input, beta, ceiling)
    return _SmoothActivation.apply(input, beta, ceiling)


class _SmoothActivation(torch.autograd.Function):
    """Through sigmoids: on a CPU, torch's softplus and its derivatives are several times slower."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: float, ceiling: float | None) -> Tensor:
        ctx.save_for_backward(x)
        ctx.beta, ctx.ceiling = beta, ceiling
        smooth = F.logsigmoid(x * -beta)
        if ceiling is not None:
            smooth = smooth - F.logsigmoid((x - ceiling) * -beta)
        return smooth.div_(-beta)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        slope = torch.sigmoid(x * ctx.beta)
        if ctx.ceiling is not None:
            slope = slope - torch.sigmoid((x - ctx.ceiling) * ctx.beta)
        return gradient * slope, None, None


_UNARY = ("input", "inplace")
_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_BATCH_NORM = (
    "input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps",
)  # fmt: skip
_TORCH_BATCH_NORM = (
    "input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps",
    "cudnn_enabled",
)  # fmt: skip
_BINARY = ("input", "other", "alpha")
_CONV_TRANSPOSE = (
    "input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation",
)  # fmt: skip
_POOL = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
_ATTENTION = (
    "query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa",
)  # fmt: skip

# Every spelling of an operation that torch sees, with the names of its arguments in order.
OPERATIONS: Final[dict[Callable[..., Any], tuple[str, tuple[str, ...]]]] = {
    **dict.fromkeys((F.relu, torch.relu, torch.Tensor.relu), ("relu", _UNARY)),
    **dict.fromkeys((F.relu6,), ("relu6", _UNARY)),
    smooth_activation: ("smooth_activation", ("input", "beta", "ceiling")),
    F.hardtanh: ("hardtanh", ("input", "min_val", "max_val", "inplace")),
    **dict.fromkeys(
        (F.threshold, torch.threshold), ("threshold", ("input", "threshold", "value", "inplace"))
    ),
    **dict.fromkeys(
        (torch.clamp, torch.Tensor.clamp, torch.clip, torch.Tensor.clip),
        ("clamp", ("input", "min", "max")),
    ),
    **dict.fromkeys((torch.clamp_min, torch.Tensor.clamp_min), ("clamp", ("input", "min"))),
    **dict.fromkeys(
        (
            F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.softplus, F.hardswish, F.selu, F.celu,
            F.prelu, torch.Tensor.prelu, F.rrelu, F.logsigmoid, F.softsign, F.softshrink,
            F.hardshrink, F.tanhshrink, torch.abs, torch.Tensor.abs, torch.square,
            torch.Tensor.square, torch.pow, torch.Tensor.pow, torch.Tensor.__pow__,
            torch.sqrt, torch.Tensor.sqrt, torch.rsqrt, torch.Tensor.rsqrt, torch.exp,
            torch.Tensor.exp, torch.log, torch.Tensor.log, torch.reciprocal,
            torch.Tensor.reciprocal, torch.Tensor.__rdiv__,
        ),
        ("activation", ("input",)),
    ),
    **dict.fromkeys((torch.sigmoid, torch.Tensor.sigmoid, F.sigmoid), ("sigmoid", ("input",))),
    **dict.fromkeys((torch.tanh, torch.Tensor.tanh, F.tanh), ("tanh", ("input",))),
    **dict.fromkeys((torch.erf, torch.Tensor.erf), ("erf", ("input",))),
    F.hardsigmoid: ("hardsigmoid", _UNARY),
    **dict.fromkeys(
        (torch.softmax, torch.Tensor.softmax, F.softmax), ("softmax", ("input", "dim"))
    ),
    **dict.fromkeys(
        (F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d), ("conv", _CONV)
    ),
    **dict.fromkeys(
        (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
        ("conv_transpose", _CONV_TRANSPOSE),
    ),
    F.linear: ("linear", ("input", "weight", "bias")),
    **dict.fromkeys(
        (
            torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.Tensor.mm,
            torch.bmm, torch.Tensor.bmm,
        ),
        ("matmul", ("input", "other")),
    ),
    torch.Tensor.__rmatmul__: ("product", ("input", "other")),
    torch.einsum: ("product", ("equation", "input", "other", "third")),
    torch.addmm: ("addmm", ("bias", "input", "other")),
    F.scaled_dot_product_attention: ("attention", _ATTENTION),
    F.batch_norm: ("batch_norm", _BATCH_NORM),
    torch.batch_norm: ("batch_norm", _TORCH_BATCH_NORM),
    **dict.fromkeys(
        (F.layer_norm, torch.layer_norm),
        ("layer_norm", ("input", "normalized_shape", "weight", "bias", "eps")),
    ),
    **dict.fromkeys(
        (F.group_norm, torch.group_norm),
        ("group_norm", ("input", "num_groups", "weight", "bias", "eps")),
    ),
    F.instance_norm: ("instance_norm", (*_BATCH_NORM[:5], "use_input_stats", "momentum", "eps")),
    **dict.fromkeys((F.rms_norm, F.normalize, F.local_response_norm), ("rescale", ("input",))),
    **dict.fromkeys((torch.add, torch.Tensor.add, torch.Tensor.__radd__), ("add", _BINARY)),
    **dict.fromkeys((torch.sub, torch.Tensor.sub), ("sub", _BINARY)),
    torch.Tensor.__rsub__: ("rsub", _BINARY),
    **dict.fromkeys((torch.mul, torch.Tensor.mul, torch.Tensor.__rmul__), ("mul", _BINARY)),
    **dict.fromkeys((torch.div, torch.Tensor.div), ("div", _BINARY)),
    **dict.fromkeys((torch.neg, torch.Tensor.neg), ("neg", ("input",))),
    **dict.fromkeys(
        (
            F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool1d,
            F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, torch.adaptive_avg_pool1d,
            torch.mean, torch.Tensor.mean, torch.sum, torch.Tensor.sum,
        ),
        ("avg_pool", ("input", "size")),
    ),
    **dict.fromkeys((F.max_pool1d, F.max_pool2d, F.max_pool3d), ("max_pool", _POOL)),
    **dict.fromkeys((torch.max_pool1d, torch.max_pool2d, torch.max_pool3d), ("max_pool", _POOL)),
    **dict.fromkeys(
        (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
        ("adaptive_max_pool", ("input", "output_size")),
    ),
    F.interpolate: ("interpolate", ("input", "size", "scale_factor", "mode")),
    **dict.fromkeys(
        (
            torch.flatten, torch.Tensor.flatten, torch.reshape, torch.Tensor.reshape,
            torch.Tensor.view, torch.Tensor.contiguous, torch.clone, torch.Tensor.clone,
            torch.Tensor.view_as, torch.Tensor.reshape_as, torch.Tensor.unflatten,
            torch.squeeze, torch.Tensor.squeeze, torch.unsqueeze, torch.Tensor.unsqueeze,
            torch.permute, torch.Tensor.permute, torch.transpose, torch.Tensor.transpose,
            torch.Tensor.expand, torch.Tensor.expand_as, torch.Tensor.repeat,
            torch.Tensor.__getitem__,
        ),
        ("layout", ("input",)),
    ),
    F.pad: ("pad", ("input", "pad", "mode", "value")),
}  # fmt: skip


# Operations with a name of their own that also count as the more general one.
KIND_OF: Final = dict.fromkeys(("sigmoid", "tanh", "erf", "hardsigmoid"), "activation")


class Interposition(TorchFunctionMode):
    """While active, sends recognised operations to ``handlers`` (operation name → handler).

    Operations without a handler run as they are. In-place operations are run out of place
    and the changed tensor is replaced by the result in every later call: the same meaning
    for the model, while values that a backward rule has kept stay intact.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        super().__init__()
        self.handlers = handlers
        self._changed: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if self._changed:
            args = tuple(self.current(a) for a in args)
            kwargs = {k: self.current(v) for k, v in kwargs.items()}
        out_of_place = _OUT_OF_PLACE.get(func)
        changed = args[0] if out_of_place is not None else None
        func = out_of_place or func
        if func in _OPENED and "attention" in self.handlers:
            with _Again(self):
                output = _OPENED[func](*args, **kwargs)
        elif func not in OPERATIONS:
            output = func(*args, **kwargs)
        else:
            op, names = OPERATIONS[func]
            arguments = {**dict(zip(names, args, strict=False)), **kwargs}
            kwargs.pop("inplace", None)
            if arguments.pop("inplace", False):
                changed = arguments["input"]  # torch hands "inplace" on by name only
            output = self._handled(op, arguments, func, args, kwargs)
        if changed is not None and isinstance(output, Tensor) and output is not changed:
            self._replace(changed, output)
        return output

    def _replace(self, changed: Tensor, output: Tensor) -> None:
        """From now on ``changed`` means ``output``; what it is a view of changes with it."""
        self._changed[id(changed)] = (changed, output)  # the first keeps its id alive
        base = changed._base
        if base is not None:
            whole = _written_through(changed, base, self.current(base), output)
            self._changed[id(base)] = (base, whole)

    def _handled(
        self,
        op: str,
        arguments: dict[str, Any],
        func: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        op = _clipped_relu(op, arguments)
        handler = self.handlers.get(op, self.handlers.get(KIND_OF.get(op, op)))
        acts_on = _input_of(op)
        if handler is None or not isinstance(arguments.get(acts_on), Tensor):
            return func(*args, **kwargs)

        def run(value: Tensor, **others: Any) -> Any:
            given = {acts_on: value, **others}
            # positional arguments come first in ``arguments``, in their order
            first = [given.pop(name, was) for name, was in zip(arguments, args, strict=False)]
            return func(*first, *args[len(first) :], **{**kwargs, **given})

        return handler(Call(op, arguments, run))

    def current(self, value: Any) -> Any:
        """What the model means by a tensor: itself, or what an in-place change made of it."""
        if isinstance(value, Tensor):
            while id(value) in self._changed:
                value = self._changed[id(value)][1]
        elif isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value):
            return type(value)(self.current(v) for v in value)
        return value

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._changed.clear()
        super().__exit__(kind, error, trace)


class _Again(TorchFunctionMode):
    """A mode once more, for the calls inside an operation that it has been handed."""

    def __init__(self, mode: Interposition) -> None:
        super().__init__()
        self._mode = mode

    def __torch_function__(self, *call: Any) -> Any:
        return self._mode.__torch_function__(*call)


def _opened(composite: Any) -> Callable[..., Any]:
    """The same function without the check that hands it to a mode in one piece.

    Attention layers are one call for a mode, with all their matrices inside. This is
    PyTorch's own body, whatever its version, so there is nothing to keep in step.
    """
    names = {**composite.__globals__, "has_torch_function": lambda _: False}
    opened = FunctionType(composite.__code__, names, composite.__name__, composite.__defaults__)
    opened.__kwdefaults__ = composite.__kwdefaults__
    return opened


_OPENED: Final[dict[Callable[..., Any], Callable[..., Any]]] = {
    F.multi_head_attention_forward: _opened(F.multi_head_attention_forward)
}


def _input_of(op: str) -> str:
    return "value" if op == "attention" else "input"


def _written_through(view: Tensor, base: Tensor, whole: Tensor, output: Tensor) -> Tensor:
    """``whole``, which stands for ``base``, with ``output`` where ``view`` looks into it."""
    places = torch.full((base.untyped_storage().nbytes() // base.element_size(),), -1)
    elements = torch.arange(base.numel()).view(base.shape)
    places.as_strided(base.shape, base.stride(), base.storage_offset()).copy_(elements)
    seen = places.as_strided(view.shape, view.stride(), view.storage_offset()).flatten()
    flat = whole.flatten().scatter(0, seen.to(whole.device), output.expand_as(view).flatten())
    return flat.view(base.shape)


def _clipped_relu(op: str, arguments: Mapping[str, Any]) -> str:
    """ReLU and ReLU6 are also spelt as hardtanh, clamp and threshold; other bounds are not."""
    if op == "threshold":
        return "relu" if arguments.get("threshold") == arguments.get("value") == 0 else op
    if op not in ("hardtanh", "clamp"):
        return op
    low, high = ("min_val", "max_val") if op == "hardtanh" else ("min", "max")
    bounds = arguments.get(low), arguments.get(high)
    if any(isinstance(b, Tensor) for b in bounds):
        return op
    return "relu" if bounds == (0, None) else "relu6" if bounds == (0, 6) else op


def _in_place_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """``relu_`` → ``relu``, ``__iadd__`` → ``add`` and so on, for all that have a twin."""
    table: dict[Callable[..., Any], Callable[..., Any]] = {}
    for name in dir(torch.Tensor):
        if name.endswith("_") and not name.endswith("__"):
            twin = getattr(torch.Tensor, name[:-1], None)
            if twin is not None and name not in ("requires_grad_", "detach_"):
                table[getattr(torch.Tensor, name)] = twin
    for name in ("add", "sub", "mul"):
        table[getattr(torch.Tensor, f"__i{name}__")] = getattr(torch.Tensor, name)
    table[torch.Tensor.__itruediv__] = torch.Tensor.div
    for name in ("relu_", "clamp_", "clamp_min_", "clip_", "sigmoid_", "tanh_", "selu_", "celu_"):
        if hasattr(torch, name):
            table[getattr(torch, name)] = getattr(torch, name[:-1])
    table[F.relu_] = torch.relu
    table[F.hardtanh_] = F.hardtanh
    return table


_OUT_OF_PLACE: Final = _in_place_table()


class Phase:
    """Says whether the explaining backward pass is under way (``with phase: ...``)."""

    def __init__(self) -> None:
        self.active = False

    def __enter__(self) -> "Phase":
        self.active = True
        return self

    def __exit__(self, *_: object) -> None:
        self.active = False


# gradient at the output → gradients at (native output, *inputs); None blocks a path
Pullback = Callable[[Tensor], tuple[Tensor | None, ...]]


class _Route(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, phase: Phase, pullback: Pullback, output: Tensor, *inputs: Tensor
    ) -> Tensor:
        ctx.phase, ctx.pullback, ctx.arity = phase, pullback, len(inputs)
        ctx.set_materialize_grads(False)
        # The same memory under the same strides, but no view: what the model writes through
        # its own views must find this tensor as their base. (And view_as would give a batch
        # of one other strides, for which torch 2.13's batch_norm backward is wrong.)
        storage, offset = output.untyped_storage(), output.storage_offset()
        return output.new_empty(0).set_(storage, offset, output.shape, output.stride())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * (3 + ctx.arity)
        if not ctx.phase.active:
            return (None, None, gradient, *(None,) * ctx.arity)
        return (None, None, *ctx.pullback(gradient))


def route(phase: Phase, output: Tensor, pullback: Pullback, *inputs: Tensor) -> Tensor:
    """``output`` again, with two backward paths: the pullback while ``phase``, else the true one.

    ``pullback(g)`` returns a gradient for the native ``output`` (which then flows on through
    the true operation) and one for each of ``inputs`` (which bypass it); None blocks.
    """
    return _Route.apply(phase, pullback, output, *inputs)


def is_route(node: object) -> bool:
    """Is this node of an autograd graph one that `route` has put there?"""
    return isinstance(node, _Route._backward_cls)
