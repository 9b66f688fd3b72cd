"""The processes of a run: what they share, and what each holds of the model.

Accelerate finds the device and the other processes, whoever started them (`accelerate launch`,
`torchrun`, nobody). What is spread over them is the recipe's matter, one class a layout: nothing
(`DataParallel`), weights, gradients and optimizer by torch (`Fsdp2`) or by DeepSpeed
(`alignvlm.training.zero3`). All of them give and take whole tensors, so that a run can go on under
another one.

Collective operations must meet in the same order in all processes, or all of them wait for ever:
every method here that says "all processes" is to be called by all, and alike.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from alignvlm.errors import AlignVLMError, ConfigurationError
from alignvlm.training import checkpoint as checkpoints
from alignvlm.training.schedule import TrainConfig
from alignvlm.training.task import Share

__all__ = ["DataParallel", "Fsdp2", "Processes", "layers_of", "leave", "open_processes"]

T = TypeVar("T")

# What says, in a process, that a launcher's configuration is of a layout.
_LAUNCHED = {"ACCELERATE_USE_FSDP": "fsdp2", "ACCELERATE_USE_DEEPSPEED": "zero3"}


def open_processes(config: TrainConfig) -> Processes:
    """This process among those of a run, in the layout that `config.sharding` names.

    Raises:
        ConfigurationError: the layout is not possible here, or another one than the launcher's; a
            process has no GPU of its own; the processes were started with different settings.
        MissingDependencyError: "zero3" without DeepSpeed.
    """
    _check_launch(config)
    if config.sharding == "zero3":
        from alignvlm.training.zero3 import Zero3

        processes: Processes = Zero3(config)
    else:
        processes = Fsdp2(config) if config.sharding == "fsdp2" else DataParallel(config)
    _check_same_settings(processes, config)
    return processes


def leave() -> None:
    """Closes this process's connections to the others, once nothing is to be exchanged any more.

    Not for a process that fails while others still compute: closing may wait for them.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Processes(ABC):
    """This process among those of a run, and its part of the model under training.

    Attributes:
        device: where this process computes.
        share: its number and how many there are.
    """

    def __init__(self, config: TrainConfig) -> None:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        ddp = DistributedDataParallelKwargs(
            # Some encoders have parameters behind the layer that F is taken from.
            find_unused_parameters=True,
            gradient_as_bucket_view=True,  # what is exchanged is the gradient, not a copy
        )
        # The loop computes under autocast itself, whatever the launcher's configuration says.
        self._accelerator = Accelerator(
            cpu=config.device == "cpu", mixed_precision="no", kwargs_handlers=[ddp]
        )
        self._config = config
        self.share = Share(
            rank=self._accelerator.process_index, num_processes=self._accelerator.num_processes
        )
        several = self.share.num_processes > 1
        self.device = self._accelerator.device if several else torch.device(config.device)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.share.rank == 0

    @abstractmethod
    def prepare(self, root: nn.Module, make_optimizer: Callable[[], torch.optim.AdamW]) -> None:
        """Takes over the module, laid out for training, and an optimizer over its parameters.

        Args:
            root: everything that a step does with the model is called through it.
            make_optimizer: called once the parameters are the ones to train.
        """

    @property
    @abstractmethod
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups; what is set there holds from the next step on."""

    @abstractmethod
    def call(self, function: Callable[[], T]) -> T:
        """What a function makes of the model; all processes, and alike."""

    def look(self, function: Callable[[], T]) -> T:
        """`call` without a gradient."""
        with torch.no_grad():
            return self.call(function)

    @abstractmethod
    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Adds to the gradient, the mean over processes once `is_last`; all processes."""

    @abstractmethod
    def step(self) -> float:
        """Clips the gradient, steps unless it is no number, and drops it; all processes.

        Returns:
            The norm of the gradient over all parameters and processes, before clipping.
        """

    @abstractmethod
    def whole(self, tensor: Tensor) -> Tensor:
        """The tensor's values, gathered if it is spread over processes; all processes."""

    @abstractmethod
    def optimizer_tensors(self, names: Mapping[nn.Parameter, str]) -> Iterator[tuple[str, Tensor]]:
        """AdamW's state as whole tensors `<parameter>/<state>`, one by one; all processes."""

    @abstractmethod
    def restore_optimizer(
        self, tensors: dict[str, Tensor], names: Mapping[nn.Parameter, str]
    ) -> None:
        """Inverse of `optimizer_tensors`."""

    def gather(self, value: T) -> list[T]:
        """What every process passes, in their order; all processes."""
        if self.share.num_processes == 1:
            return [value]
        gathered: list[Any] = [None] * self.share.num_processes
        torch.distributed.all_gather_object(gathered, value)
        return gathered

    def largest(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of what the processes pass, that with the most numbers; all processes."""
        sizes = self.gather(sum(tensor.numel() for tensor in tensors.values()))
        box = [tensors]
        if len(sizes) > 1:
            torch.distributed.broadcast_object_list(box, src=sizes.index(max(sizes)))
        return box[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """What ends one process in this block ends all of them, so that none waits for it."""
        failure: AlignVLMError | None = None
        try:
            yield
        except AlignVLMError as error:
            failure = error
        found = [text for text in self.gather(failure and str(failure)) if text]
        if failure is not None:
            raise failure
        if found:
            raise ConfigurationError(found[0])

    def _need_others(self) -> None:
        if not torch.distributed.is_initialized():
            raise ConfigurationError(
                f"sharding is {self._config.sharding!r} and there is one process alone: start the "
                "run with accelerate launch or torchrun, or set sharding=none"
            )


class _Torch(Processes):
    """Layouts in which torch's own optimizer holds the state."""

    _root: nn.Module
    _optimizer: torch.optim.AdamW
    _drops_gradients = True

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """See `Processes.param_groups`."""
        return self._optimizer.param_groups

    def call(self, function: Callable[[], T]) -> T:
        """See `Processes.call`."""
        return self._root(function)

    def step(self) -> float:
        """See `Processes.step`."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self._config.clip_norm)
        value = self.whole(norm)
        if value.isfinite():
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=self._drops_gradients)
        return value.item()

    def whole(self, tensor: Tensor) -> Tensor:
        """See `Processes.whole`."""
        tensor = tensor.detach()
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def optimizer_tensors(self, names: Mapping[nn.Parameter, str]) -> Iterator[tuple[str, Tensor]]:
        """See `Processes.optimizer_tensors`."""
        for name, tensor in checkpoints.optimizer_tensors(self._optimizer, names).items():
            yield name, self.whole(tensor)

    def restore_optimizer(
        self, tensors: dict[str, Tensor], names: Mapping[nn.Parameter, str]
    ) -> None:
        """See `Processes.restore_optimizer`."""
        checkpoints.restore_optimizer(self._optimizer, tensors, names, self._spread)

    def _spread(self, tensor: Tensor, like: Tensor) -> Tensor:
        """A whole tensor in the layout of another one; the inverse of `whole`."""
        if isinstance(like, DTensor):
            return distribute_tensor(tensor.to(self.device), like.device_mesh, like.placements)
        return tensor.to(like.device)


class DataParallel(_Torch):
    """One process alone, or several with the whole model each."""

    def prepare(self, root: nn.Module, make_optimizer: Callable[[], torch.optim.AdamW]) -> None:
        """See `Processes.prepare`."""
        self._root = root.to(self.device)
        if self.share.num_processes > 1:
            self._root = self._accelerator.prepare_model(root)
            # Gradients are views of what is exchanged: new ones would lie beside that.
            self._drops_gradients = False
        self._optimizer = make_optimizer()

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """See `Processes.backward`."""
        if is_last:
            loss.backward()
            return
        with self._accelerator.no_sync(self._root):
            loss.backward()


class Fsdp2(_Torch):
    """Weights, gradients and optimizer spread over the processes by torch's `fully_shard`.

    Accelerate's way of applying it puts the embedding table into a unit of its own, which is
    gathered while tokens are looked up and at no other time; ALIGN mixes the rows of the same
    table inside the connector. Here every layer is a unit, and the root is one of all the rest:
    see `layers_of`.
    """

    def prepare(self, root: nn.Module, make_optimizer: Callable[[], torch.optim.AdamW]) -> None:
        """See `Processes.prepare`."""
        self._need_others()
        self._root = root.to(self.device)
        _shard(root, self.device, self.share.num_processes)
        self._optimizer = make_optimizer()

    def look(self, function: Callable[[], T]) -> T:
        """See `Processes.look`."""
        try:
            return super().look(function)
        finally:
            # The root unit waits for a backward pass, and would keep the present weights till then.
            self._root.reshard()  # type: ignore[operator]

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """See `Processes.backward`.

        Gradients are shared out after every row, as under ZeRO-3: to wait for the last one would
        need all of them whole on every GPU, 4 bytes a parameter.
        """
        loss.backward()


def _shard(root: nn.Module, device: torch.device, num_processes: int) -> None:
    """Applies FSDP2: a unit for each layer, one for all that is left."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (num_processes,))
    for layer in layers_of(root):
        fully_shard(layer, mesh=mesh)
    fully_shard(root, mesh=mesh)


def layers_of(root: nn.Module) -> list[nn.Module]:
    """The layers of encoder and language model: what is gathered one after the other.

    Everything else, the embedding table, the LM head and the connector in it, is read from
    several places and stays whole from the first operation of a forward pass to the last of the
    backward pass.
    """
    lists = [part for part in root.modules() if isinstance(part, nn.ModuleList)]
    return [
        layer
        for layers in lists
        for layer in layers
        if any(True for _ in layer.parameters()) and not _inside(root, layers)
    ]


def _inside(root: nn.Module, layers: nn.ModuleList) -> bool:
    """Whether the list belongs to the connector, which stays whole, or to another list."""
    name = next(name for name, part in root.named_modules() if part is layers)
    lists = {n for n, part in root.named_modules() if isinstance(part, nn.ModuleList)}
    parents = [name.rsplit(".", cut)[0] for cut in range(1, name.count(".") + 1)]
    return "connector" in name.split(".") or any(parent in lists for parent in parents)


def _check_launch(config: TrainConfig) -> None:
    """Raises a ConfigurationError if the launcher and the recipe contradict each other."""
    for variable, layout in _LAUNCHED.items():
        if os.environ.get(variable, "").lower() == "true" and layout != config.sharding:
            raise ConfigurationError(
                f"The launcher's configuration is one for {layout} and the recipe says "
                f"sharding={config.sharding}: set sharding={layout}, or start with the "
                "configuration of the other"
            )
    if config.device.startswith("cuda"):
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        here = max(here, int(os.environ.get("LOCAL_RANK", "0")) + 1)
        gpus = torch.cuda.device_count()
        if here > gpus:
            raise ConfigurationError(
                f"{here} processes were started on a machine with {gpus} GPUs and each needs one: "
                f"start {max(1, gpus)}, or make more visible by CUDA_VISIBLE_DEVICES"
            )


def _check_same_settings(processes: Processes, config: TrainConfig) -> None:
    """Raises a ConfigurationError in all processes if they would wait for each other for ever."""
    settings = json.loads(json.dumps(asdict(config)))
    del settings["device"]  # numbered
    for rank, theirs in enumerate(every := processes.gather(settings)):
        if differing := sorted(name for name in theirs if theirs[name] != every[0].get(name)):
            raise ConfigurationError(
                f"Process {rank} of this run was started with another {', '.join(differing)} than "
                "process 0: give the same recipe and the same --set to all of them"
            )
