"""The processes of a run: what they share, and what each holds of the model.

Accelerate finds the device and the other processes, whoever started them (`accelerate launch`,
`torchrun`, nobody), wraps the model for data parallelism, and hands it to DeepSpeed where its
configuration says so.

FSDP2 is torch's own `fully_shard` here. Accelerate's way of applying it puts the embedding table
into a unit of its own, which is gathered while tokens are looked up and at no other time; ALIGN
mixes the rows of the same table inside the connector. So the table, the LM head and the connector
stay together in the root unit, which is whole from the first operation of a forward pass to the
last of the backward pass, and every layer of encoder and language model is a unit of its own.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from alignvlm.errors import ConfigurationError
from alignvlm.training.schedule import TrainConfig
from alignvlm.training.task import Share

__all__ = ["Processes"]

T = TypeVar("T")


class Processes:
    """This process among those of a run.

    Attributes:
        device: where this process computes.
        share: its number and how many there are.

    Raises:
        ConfigurationError: the sharding asked for is not possible here.
    """

    def __init__(self, config: TrainConfig) -> None:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        # Some encoders have parameters behind the layer that F is taken from.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        self._accelerator = Accelerator(cpu=config.device == "cpu", kwargs_handlers=[unused])
        self._sharding = config.sharding
        if config.sharding == "zero3" and self._accelerator.distributed_type != "DEEPSPEED":
            raise ConfigurationError(
                "sharding is 'zero3' and this run was not started by DeepSpeed: start it with "
                "accelerate launch --config_file recipes/accelerate/zero3.yaml, or set "
                "sharding=fsdp2"
            )
        self.share = Share(
            rank=self._accelerator.process_index, num_processes=self._accelerator.num_processes
        )
        several = self.share.num_processes > 1
        self.device = self._accelerator.device if several else torch.device(config.device)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.share.rank == 0

    def prepare(self, root: nn.Module) -> nn.Module:
        """The module on this process's device, shared with the others in the way asked for."""
        root.to(self.device)
        if self._sharding == "fsdp2":
            _shard(root, self.device, self.share.num_processes)
            return root
        return self._accelerator.prepare_model(root) if self.share.num_processes > 1 else root

    def accumulate(self, root: nn.Module, *, is_last: bool) -> AbstractContextManager[Any]:
        """Around a backward pass: gradients are exchanged after the last of a step alone."""
        if self._sharding == "fsdp2":
            root.set_requires_gradient_sync(is_last)  # type: ignore[operator]
            return nullcontext()
        return nullcontext() if is_last else self._accelerator.no_sync(root)

    def gather(self, value: T) -> list[T]:
        """What every process passes, in their order."""
        if self.share.num_processes == 1:
            return [value]
        gathered: list[Any] = [None] * self.share.num_processes
        torch.distributed.all_gather_object(gathered, value)
        return gathered

    def whole(self, tensor: Tensor) -> Tensor:
        """The tensor itself, gathered from all processes if it is spread over them."""
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def spread(self, tensor: Tensor, like: Tensor) -> Tensor:
        """A whole tensor in the layout of another one; the inverse of `whole`."""
        if isinstance(like, DTensor):
            return distribute_tensor(tensor.to(self.device), like.device_mesh, like.placements)
        return tensor.to(like.device)

    def wait(self) -> None:
        """Returns once every process has come here."""
        self._accelerator.wait_for_everyone()


def _shard(root: nn.Module, device: torch.device, num_processes: int) -> None:
    """Applies FSDP2: a unit for each layer, one for all that is left."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if not torch.distributed.is_initialized():
        raise ConfigurationError(
            "sharding is 'fsdp2' and there is one process alone: start the run with accelerate "
            "launch or torchrun, or set sharding=none"
        )
    mesh = init_device_mesh(device.type, (num_processes,))
    for layers in [part for part in root.modules() if isinstance(part, nn.ModuleList)]:
        for layer in layers:
            if any(True for _ in layer.parameters()) and not _inside(root, layers):
                fully_shard(layer, mesh=mesh)
    fully_shard(root, mesh=mesh)


def _inside(root: nn.Module, layers: nn.ModuleList) -> bool:
    """Whether the list belongs to the connector, which stays whole, or to another list."""
    name = next(name for name, part in root.named_modules() if part is layers)
    lists = {n for n, part in root.named_modules() if isinstance(part, nn.ModuleList)}
    parents = [name.rsplit(".", cut)[0] for cut in range(1, name.count(".") + 1)]
    return "connector" in name.split(".") or any(parent in lists for parent in parents)
