"""DeepSpeed's ZeRO-3: weights, gradients and optimizer spread over the processes.

The engine gets what the recipe says: precision, clipping, where a step ends. What is left to its
own configuration is how it moves tensors: buffers, offloading.

By itself it gathers a parameter while the module that holds it runs, or one that was seen to read
it; in the backward pass only for modules that return plain tensors, which connectors do not. So it
is told what is read from several places: the embedding table, which ALIGN mixes inside the
connector, and all else that is not in a layer, stay whole during a step, as under FSDP2.

Unlike in the other layouts, parameters that no loss depends on have a gradient, of zero: weight
decay, if they are under it, shrinks them.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignvlm.errors import ConfigurationError, MissingDependencyError
from alignvlm.training.processes import Processes, layers_of
from alignvlm.training.schedule import TrainConfig

__all__ = ["Zero3", "engine_config"]

T = TypeVar("T")

_MOMENTS = ("exp_avg", "exp_avg_sq")


class Zero3(Processes):
    """This process of a run under DeepSpeed's ZeRO-3.

    Raises:
        ConfigurationError: the launcher's configuration is one for another ZeRO stage.
        MissingDependencyError: DeepSpeed is not installed.
    """

    def __init__(self, config: TrainConfig) -> None:
        try:
            import deepspeed  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(
                "deepspeed", "train with sharding=zero3", extra="zero3"
            ) from error
        logger = logging.getLogger("DeepSpeed")
        logger.setLevel(logging.WARNING)
        # Of connectors, which is seen to in `prepare`.
        logger.addFilter(lambda record: "unknown inputs or outputs" not in record.getMessage())
        # DeepSpeed calls torch's collectives by older names, and torch says so at every call.
        warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprec", FutureWarning)
        super().__init__(config)

    def prepare(self, root: nn.Module, make_optimizer: Callable[[], torch.optim.AdamW]) -> None:
        """See `Processes.prepare`."""
        import deepspeed

        self._need_others()
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=root.to(self.device),
            optimizer=make_optimizer(),
            config=engine_config(_launched_config(), self._config),
        )
        layers = {id(p) for layer in layers_of(root) for p in layer.parameters()}
        for parameter in root.parameters():
            if id(parameter) not in layers:
                deepspeed.zero.register_external_parameter(root, parameter)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """See `Processes.param_groups`."""
        return self._optimizer.param_groups

    def call(self, function: Callable[[], T]) -> T:
        """See `Processes.call`."""
        return self._engine(function)

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """See `Processes.backward`."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        self._engine.backward(loss)

    def step(self) -> float:
        """See `Processes.step`."""
        self._engine.step()
        # It leaves out a step whose gradient is no number, and does not say what the norm was.
        return (
            float("nan") if self._optimizer.overflow else float(self._optimizer._global_grad_norm)
        )

    def whole(self, tensor: Tensor) -> Tensor:
        """See `Processes.whole`."""
        import deepspeed

        if not hasattr(tensor, "ds_id"):
            return tensor.detach()
        with deepspeed.zero.GatheredParameters([tensor]):
            return tensor.detach().clone()

    def optimizer_tensors(self, names: Mapping[nn.Parameter, str]) -> Iterator[tuple[str, Tensor]]:
        """See `Processes.optimizer_tensors`."""
        from deepspeed.utils import safe_get_full_optimizer_state

        states = self._optimizer.optimizer.state
        steps = [torch.as_tensor(state["step"]) for state in states.values() if "step" in state]
        for parameter, name in names.items() if steps else ():
            yield f"{name}/step", steps[0].clone()
            for key in _MOMENTS:
                yield f"{name}/{key}", safe_get_full_optimizer_state(parameter, key)

    def restore_optimizer(
        self, tensors: dict[str, Tensor], names: Mapping[nn.Parameter, str]
    ) -> None:
        """See `Processes.restore_optimizer`; all parameters have done the same steps."""
        from deepspeed.utils import safe_set_local_optimizer_state

        step = max((t for entry, t in tensors.items() if entry.endswith("/step")), default=None)
        if step is None:
            return
        for flat in self._optimizer.fp32_partitioned_groups_flat:
            state = self._optimizer.optimizer.state[flat]
            fused = self._optimizer.optimizer.defaults["fused"]  # then it counts on the device
            state["step"] = step.clone().to(flat.device if fused else "cpu")
            state |= {key: torch.zeros_like(flat) for key in _MOMENTS}
        for parameter, name in names.items():
            for key in _MOMENTS:
                if (value := tensors.get(f"{name}/{key}")) is not None:
                    part = self._part(value, parameter.ds_tensor.numel())  # type: ignore[attr-defined]
                    safe_set_local_optimizer_state(parameter, part, key)

    def _part(self, tensor: Tensor, size: int) -> Tensor:
        """This process's part of a tensor: parts are equally large, the last is filled up."""
        start = size * self.share.rank
        flat = tensor.flatten()[start : start + size]
        return functional.pad(flat, (0, size - len(flat)))


def engine_config(base: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
    """DeepSpeed's configuration: that of the launcher in all but what the recipe decides.

    Args:
        base: of the launcher.
        config: of the run.

    Raises:
        ConfigurationError: `base` is for another ZeRO stage.
    """
    zero = {name: value for name, value in base["zero_optimization"].items() if value != "auto"}
    if zero.get("stage") != 3:
        raise ConfigurationError(
            f"sharding is 'zero3' and the launcher's DeepSpeed configuration is for ZeRO stage "
            f"{zero.get('stage')}: set its stage to 3, or start with the zero3.yaml that is shipped"
        )
    decided = ("train_batch_size", "optimizer", "scheduler", "bf16", "fp16", "amp")
    kept = {name: value for name, value in base.items() if name not in decided and value != "auto"}
    autocast: dict[str, Any] = {"enabled": config.precision == "bfloat16", "dtype": "bfloat16"}
    # Weights and gradients travel in float32, as in the other layouts.
    autocast["lower_precision_safe_modules"] = []
    return {
        **kept,
        "zero_optimization": zero,
        # A step ends where the loop says, and its loss is already the mean of its tokens.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.clip_norm,
        "torch_autocast": autocast,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW, where its state is offloaded too
    }


def _launched_config() -> dict[str, Any]:
    """What accelerate launch was told of DeepSpeed; the shipped configuration without it."""
    from accelerate.utils import DeepSpeedPlugin

    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        return DeepSpeedPlugin().deepspeed_config
    return json.loads((resources.files("alignvlm.training") / "launch/zero3.json").read_text())
