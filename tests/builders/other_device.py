"""A device that is not the CPU, on a machine without one: a stand-in for a GPU.

`NAME` is one of PyTorch's devices for backends that others bring. Its tensors hold CPU tensors
and compute with them, so that results can be compared; but a tensor of the CPU that meets one of
this device is an error, as on a GPU, and autocast narrows and widens the operations that it does on
CUDA. Whatever creates a tensor without naming the device is found by this, and so is what reads one
with NumPy. What a GPU's own kernels do is not.

Importing this changes PyTorch for the rest of the process: only for processes that the tests start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "other"

aten = torch.ops.aten

# Both devices may meet here, as on a GPU.
_COPIES = {aten.copy_.default, aten._to_copy.default}
_INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}

# As autocast's lists for CUDA, as far as a model of ours comes by them.
_NARROWED = (
    "linear", "conv1d", "conv2d", "conv3d", "matmul", "mm", "bmm", "addmm", "baddbmm", "mv",
    "addmv", "scaled_dot_product_attention", "prelu",
)  # fmt: skip
_WIDENED = (
    "layer_norm", "group_norm", "softmax.int", "log_softmax.int", "exp", "expm1", "log", "log1p",
    "log2", "log10", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar", "rsqrt", "reciprocal",
    "sum", "sum.dim_IntList", "cumsum", "cumprod", "prod", "prod.dim_int", "nll_loss",
    "nll_loss_nd", "cross_entropy_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "kl_div",
    "cosine_similarity", "norm.Scalar", "norm.ScalarOpt_dim", "cdist", "logsumexp",
    "upsample_bilinear2d", "binary_cross_entropy_with_logits",
)  # fmt: skip


class _Module(_DummyBackendModule):
    """What `torch.<device>` would be."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class Elsewhere(Tensor):
    """A tensor of the device; `inner` holds its numbers."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        made = Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device=torch.device(NAME, 0), requires_grad=inner.requires_grad,
        )  # fmt: skip
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.inner!r})"

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a tensor of another device is no array of NumPy's: copy it to the CPU")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, dict(kwargs or {}))


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation on the tensors inside; what it makes is of the device again."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if func not in _COPIES | _INDEXING:
        for tensor in given:
            if not isinstance(tensor, Elsewhere) and tensor.ndim:
                raise RuntimeError(
                    f"{func}: a tensor {list(tensor.shape)} of the CPU meets one of another device"
                )
    to = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
    if to == NAME:
        kwargs["device"] = torch.device("cpu")
    with _disable_current_modes():
        out = func(*tree_map(_inside, args), **tree_map(_inside, kwargs))
    if to == "cpu" or func is aten._local_scalar_dense.default:
        return out
    name = func.__name__.partition(".")[0]
    if name.endswith("_") and not name.endswith("__"):
        return args[0]  # in place
    known = {id(tensor.inner): tensor for tensor in given if isinstance(tensor, Elsewhere)}

    def outside(value: Any) -> Any:
        if id(value) in known:
            return known[id(value)]
        return Elsewhere(value) if type(value) is Tensor else value

    return tree_map(outside, out)


def _inside(value: Any) -> Any:
    return value.inner if isinstance(value, Elsewhere) else value


class _Late(TorchFunctionMode):
    """`torch.tensor` and its like write numbers, which this device has no room for: they copy."""

    _MAKERS = (torch.tensor, torch.as_tensor, torch.asarray)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        device = options.get("device")
        if func not in self._MAKERS or device is None or torch.device(device).type != NAME:
            return func(*args, **options)
        del options["device"]
        return func(*args, **options).to(device)


def _autocast(operation: Any, narrows: bool) -> Callable[..., Any]:
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(keys):
            wanted = torch.get_autocast_dtype(NAME) if narrows else torch.float32

            def cast(value: Any) -> Any:
                if not isinstance(value, Elsewhere) or value.dtype not in (
                    torch.float32, torch.bfloat16, torch.float16,
                ):  # fmt: skip
                    return value
                return value.to(wanted)

            return operation(*tree_map(cast, args), **tree_map(cast, kwargs))

    return call


def _operation(name: str) -> Any:
    base, _, overload = name.partition(".")
    return getattr(getattr(aten, base), overload or "default")


def _install() -> list[Any]:
    """Makes the device known; what is returned must live as long as the process."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    # Or `module.to` would untie tied weights, whose data cannot be swapped for another kind's.
    torch.__future__.set_swap_module_params_on_conversion(True)
    every = torch.library.Library("_", "IMPL")
    every.fallback(lambda op, *args, **kwargs: _run(op, args, kwargs), "PrivateUse1")
    every.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    some = torch.library.Library("aten", "IMPL")
    for name in ("empty.memory_format", "empty_strided"):
        some.impl(name, _maker(_operation(name)), "PrivateUse1")
    kinds: Iterable[tuple[tuple[str, ...], bool]] = ((_NARROWED, True), (_WIDENED, False))
    for names, narrows in kinds:
        for name in names:
            some.impl(name, _autocast(_operation(name), narrows), "AutocastPrivateUse1")
    late = _Late()
    late.__enter__()
    return [every, some, late]


def _maker(operation: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: _run(operation, args, kwargs)


_KEPT = _install()
