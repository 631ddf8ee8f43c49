"""One training run over several processes, its ranks.

Who am I, what is my share, how do gradients meet, what do we agree on, and who writes: the loop in ``trainer.py``
asks these of a ``Ranks``. The class itself is the answer of a process that trains alone. ``Replicas`` has the whole
model on every rank (DDP), ``Shards`` a part of every tensor (FSDP2).

Every method but ``share`` and ``part`` is a meeting: all ranks come, in the same order, or the run hangs until
``TIMEOUT``. So whatever decides on the way of the loop has to be the same on all of them: it follows from config and
step, or it went through ``any`` or ``first``.
"""

import atexit
import dataclasses
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map_only

from frailt.data.corpus import Corpus
from frailt.errors import InputError
from frailt.evaluation.loss import token_losses
from frailt.launch import RankInfo, rank_info
from frailt.model.frailt import FraiLT
from frailt.training.config import TrainConfig
from frailt.training.run_folder import RunFolder

TIMEOUT = timedelta(minutes=10)
"""How long a rank waits for another before it gives up, and torchrun ends the rest."""

Sharding = Literal["ddp", "fsdp"]
"""How processes share a model: ddp, each has all of it; fsdp, each has a part, where it does not fit on a device."""

P = ParamSpec("P")
T = TypeVar("T")


class Ranks:
    """A process that trains alone: nothing to split, to wrap or to agree on."""

    signals: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
    """What ends a run between two steps: Ctrl-C, and what schedulers send. torchrun, too, ends the other ranks with
    SIGTERM when one has ended."""

    def __init__(self, device: torch.device, where: RankInfo | None = None) -> None:
        self.device = device
        where = where or RankInfo()
        self.rank, self.count = where.rank, where.world_size

    @property
    def share(self) -> tuple[int, int]:
        """Which part of a batch is this rank's: (rank, count)."""
        return self.rank, self.count

    def folder(self, path: Path) -> RunFolder:
        """The run folder at ``path``, written by rank 0 and known to all."""
        return RunFolder(path)

    def wrap(self, model: FraiLT) -> nn.Module:
        """Bring a fresh model to the device; what is returned has its forward pass, and its gradients are everybody's.

        Comes before the optimizer, since shards have parameters of their own.
        """
        return model.to(self.device)

    def part(self, wrapped: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        """Around the forward pass of a part of a batch; after the ``last`` the gradients must be everybody's."""
        return nullcontext()

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true on any rank."""
        return flag

    def mean(self, value: float) -> float:
        """The mean over all ranks."""
        return value

    def first(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """Let rank 0 do something; all learn what it returned, or that it failed."""
        return call(*args, **options)

    def token_losses(self, model: FraiLT, tokens: np.ndarray) -> np.ndarray:
        """As ``evaluation.loss.token_losses``, computed together; every rank gets all of them."""
        return token_losses(model, tokens)

    def gather(self, tree: T) -> T:
        """State for a file: every sharded tensor in ``tree`` as a whole one. Only rank 0 has something in it then."""
        return tree

    def spread(self, tree: T) -> T:
        """State from a file, as this rank holds it: the reverse of ``gather``."""
        return tree


class Replicas(Ranks):
    """Several ranks with the whole model on each; their gradients are averaged (DDP).

    What the hosts tell each other goes over gloo in the CPU's memory, and only gradients and shards go from GPU to
    GPU. So to agree costs a round trip between processes, but never makes a host wait for its GPU.
    """

    def folder(self, path: Path) -> RunFolder:
        return _SharedFolder(path, self)

    def wrap(self, model: FraiLT) -> nn.Module:
        # A block's parameters get one gradient from all its passes before DDP's hook runs, so passes need no care.
        return DistributedDataParallel(model.to(self.device), gradient_as_bucket_view=True)

    def part(self, wrapped: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        assert isinstance(wrapped, DistributedDataParallel)
        return nullcontext() if last else wrapped.no_sync()

    def any(self, flag: bool) -> bool:
        raised = torch.tensor(int(flag))
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return bool(raised)

    def mean(self, value: float) -> float:
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return total.item() / self.count

    def first(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        outcome: list[Any] = [None, None]
        failed: BaseException | None = None
        if self.rank == 0:
            try:
                outcome[0] = call(*args, **options)
            except BaseException as error:
                failed, outcome[1] = error, str(error) or type(error).__name__
        dist.broadcast_object_list(outcome)
        if failed is not None:
            raise failed
        if outcome[1] is not None:
            raise InputError(f"rank 0 has ended the run: {outcome[1]}")
        return outcome[0]

    def token_losses(self, model: FraiLT, tokens: np.ndarray) -> np.ndarray:
        # Each rank takes as many windows as the others, and all compute what is left over, so that all call the model
        # equally often, as shards must.
        context = model.config.context
        each = (len(tokens) - 1) // context // self.count * context
        pieces = []
        if each:
            share = torch.from_numpy(token_losses(model, tokens[self.rank * each : (self.rank + 1) * each + 1]))
            shares = [torch.empty_like(share) for _ in range(self.count)]
            dist.all_gather(shares, share)
            pieces += [s.numpy() for s in shares]
        rest = tokens[self.count * each :]
        if len(rest) > 1:
            pieces.append(token_losses(model, rest))
        return np.concatenate(pieces)


class Shards(Replicas):
    """Several ranks, each with its rows of every tensor, of its gradient and of the optimizer's state (FSDP2).

    A unit is what is gathered from all ranks when it is used, and dropped again. A looped group is one unit: its
    weights are gathered once and serve all M passes. With a block as the unit they would be gathered M times. Where
    M = 1 the two cost the same traffic, and a block needs less memory.
    """

    def wrap(self, model: FraiLT) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.mesh = init_device_mesh(self.device.type, (self.count,))
        # The model comes from the CPU's memory a unit at a time: it need not fit on one device.
        for group, shape in zip(model.groups, model.config.groups, strict=True):
            for unit in [group] if shape.iterations > 1 else group.get_submodule("blocks").children():
                fully_shard(unit, mesh=self.mesh)
        fully_shard(model, mesh=self.mesh)
        return model

    def part(self, wrapped: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        # Gradients are averaged after every part: to wait for the last would mean to keep whole ones.
        return nullcontext()

    def token_losses(self, model: FraiLT, tokens: np.ndarray) -> np.ndarray:
        from torch.distributed.fsdp import FSDPModule

        losses = super().token_losses(model, tokens)
        assert isinstance(model, FSDPModule)
        model.reshard()  # The outermost unit stays whole after a forward pass, since a backward pass usually follows.
        return losses

    def gather(self, tree: T) -> T:
        from torch.distributed.tensor import DTensor

        def whole(shard: DTensor) -> Tensor:
            # One at a time, and into the CPU's memory: all together may not fit on a device.
            tensor = shard.full_tensor()
            return tensor.cpu() if self.rank == 0 else torch.empty(0)

        return tree_map_only(DTensor, whole, tree)

    def spread(self, tree: T) -> T:
        from torch.distributed.tensor import Shard, distribute_tensor

        def mine(tensor: Tensor) -> Tensor:
            # A scalar is the optimizer's count of steps, which every rank has.
            if not tensor.ndim:
                return tensor
            return distribute_tensor(tensor, self.mesh, [Shard(0)], src_data_rank=None)

        return tree_map_only(Tensor, mine, tree)


def join(config: TrainConfig, corpus: Corpus, device: torch.device, sharding: Sharding) -> Ranks:
    """Meet the other ranks of this run, if torchrun has started any.

    The process group stays until the process ends, so that several runs may follow each other.

    Raises:
        InputError: the batch cannot be split, there is no GPU for each rank, or the ranks were not started alike.
    """
    where = rank_info()
    if where.world_size == 1:
        if sharding == "fsdp":
            raise InputError("sharding fsdp needs several processes; start them with torchrun, or leave it out")
        return Ranks(device)
    if config.batch % (count := where.world_size * config.accumulate):
        raise InputError(
            f"batch {config.batch} cannot be split over {where.world_size} processes in {config.accumulate} parts "
            f"each; make it a multiple of {count}"
        )
    if device.type == "cuda":
        if where.local_world_size > torch.cuda.device_count():
            raise InputError(
                f"{where.local_world_size} processes on this machine need a GPU each and there are "
                f"{torch.cuda.device_count()}; lower --nproc-per-node"
            )
        device = torch.device("cuda", where.local_rank)
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise InputError(f"several processes cannot train on {device.type} together; use --device cpu, or one process")
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
        atexit.register(dist.destroy_process_group)
    ranks = (Shards if sharding == "fsdp" else Replicas)(device, where)
    same = {"config": dataclasses.asdict(config), "data": corpus.digest, "sharding": sharding}
    if ranks.any(ranks.first(lambda: same) != same):
        raise InputError("the processes have different options or data; start all of them with the same command")
    return ranks


class _SharedFolder(RunFolder):
    """A run folder as all ranks see it: rank 0 reads, writes and holds the lock, and all learn the outcome."""

    def __init__(self, path: Path, ranks: Ranks) -> None:
        super().__init__(path)
        self.ranks, self.own = ranks, RunFolder(path)

    def start(self, config: TrainConfig, corpus: Corpus, device: torch.device, *, resume: bool) -> None:
        self.ranks.first(self.own.start, config, corpus, device, resume=resume)

    def release(self) -> None:
        if self.ranks.rank == 0:  # No meeting: this is also the way out of a failure.
            self.own.release()

    def log(self, **values: Any) -> None:
        self.ranks.first(self.own.log, **values)

    def metrics(self) -> list[dict[str, Any]]:
        return self.ranks.first(self.own.metrics)

    def save_state(self, state: dict[str, Any]) -> None:
        self.ranks.first(self.own.save_state, state)

    def load_state(self) -> dict[str, Any] | None:
        return self.ranks.first(self.own.load_state)

    def finish(self) -> None:
        self.ranks.first(self.own.finish)

    def save_story_nats(self, nats: np.ndarray) -> None:
        self.ranks.first(self.own.save_story_nats, nats)

    def story_nats(self) -> np.ndarray:
        return self.ranks.first(self.own.story_nats)

    @property
    def is_complete(self) -> bool:
        return self.ranks.first(lambda: self.own.is_complete)

    @property
    def result(self) -> dict[str, Any] | None:
        return self.ranks.first(lambda: self.own.result)
