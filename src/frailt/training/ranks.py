"""One training run over several processes, its ranks.

``Ranks`` is a process that trains alone; ``Replicas`` has the whole model on every rank (DDP), ``Shards`` a shard of
every tensor (FSDP2). They wrap the model, split the batch, move the state between files and ranks, and let the ranks
agree.

Every method but ``share`` and ``no_sync`` is a collective: all ranks must call it, in the same order, or the run hangs
until ``TIMEOUT``. So everything that steers the loop must be the same on all of them: it follows from config and step,
or it went through ``any`` or ``on_rank_0``.
"""

import atexit
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from frailt.data.corpus import Corpus
from frailt.errors import InputError
from frailt.evaluation.loss import token_losses
from frailt.launch import RankInfo, rank_info
from frailt.model.checkpoint import put_weights, stored_weights
from frailt.model.frailt import FraiLT
from frailt.training.checkpoint import parameter_order
from frailt.training.config import TrainConfig

TIMEOUT = timedelta(minutes=10)
"""How long a rank waits for another before it gives up, and torchrun ends the rest."""

Sharding = Literal["ddp", "fsdp"]
"""How processes share a model: ddp, each has all of it; fsdp, each has a part, where it does not fit on a device."""

P = ParamSpec("P")
T = TypeVar("T")
Weights = dict[str, Tensor]
"""Parameters by name, each once."""
OptimizerState = dict[str, dict[str, Tensor]]
"""What the optimizer keeps of each parameter, by the parameter's name."""


class Ranks:
    """A process that trains alone: nothing to split, to wrap or to agree on."""

    def __init__(self, device: torch.device, info: RankInfo | None = None) -> None:
        self.device = device
        info = info or RankInfo()
        self.rank, self.world_size = info.rank, info.world_size

    @property
    def share(self) -> tuple[int, int]:
        """Which share of a batch is this rank's: (rank, world size)."""
        return self.rank, self.world_size

    def wrap(self, model: FraiLT) -> nn.Module:
        """Bring a fresh model to the device; call what is returned, and its gradients are averaged over the ranks.

        Comes before the optimizer, since shards have parameters of their own.
        """
        return model.to(self.device)

    def no_sync(self, wrapped: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        """Around a micro-batch: gradients need to be averaged over the ranks only after the ``last`` of a step."""
        return nullcontext()

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true on any rank."""
        return flag

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all ranks, on the CPU."""
        return value.cpu()

    def whole(self, tensor: Tensor) -> Tensor:
        """A tensor that was computed from the model's, such as their norm, as that of the whole model."""
        return tensor

    def on_rank_0(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """Call on rank 0, and broadcast what it returned, or that it failed."""
        return call(*args, **options)

    def token_losses(self, model: FraiLT, tokens: np.ndarray) -> np.ndarray:
        """As ``evaluation.loss.token_losses``, computed together; every rank gets all of them."""
        return token_losses(model, tokens)

    def prepare(self, optimizers: list[torch.optim.Optimizer]) -> None:
        """Let new optimizers see what they need of the parameters that ``wrap`` has split."""

    def weights(self, model: FraiLT) -> Weights:
        """The whole parameters, for a file. Only rank 0 gets them, others an empty dictionary."""
        return stored_weights(model)

    def optimizer_state(self, model: FraiLT, optimizers: list[torch.optim.Optimizer]) -> OptimizerState:
        """The optimizers' whole state, for a file; on rank 0."""
        return {
            name: dict(optimizer.state[model.get_parameter(name)])
            for optimizer in optimizers
            for name in parameter_order(model, optimizer)
        }

    def load_weights(self, model: FraiLT, weights: Weights) -> None:
        """Broadcast parameters from rank 0, and put them into the model. Other ranks give an empty dictionary."""
        put_weights(model, weights, "the saved model")

    def load_optimizer_state(
        self, model: FraiLT, optimizers: list[torch.optim.Optimizer], state: OptimizerState
    ) -> None:
        """Broadcast the optimizers' state from rank 0, and put it in. Other ranks give an empty dictionary."""
        for optimizer in optimizers:
            numbered = {n: state[name] for n, name in enumerate(parameter_order(model, optimizer))}
            optimizer.load_state_dict({"state": numbered, "param_groups": optimizer.state_dict()["param_groups"]})


class Replicas(Ranks):
    """Several ranks with the whole model on each; their gradients are averaged (DDP).

    What the hosts tell each other goes over gloo in the CPU's memory, and only gradients and shards go from GPU to
    GPU. So to agree costs a round trip between processes, but never makes a host wait for its GPU.
    """

    def wrap(self, model: FraiLT) -> nn.Module:
        # A block's parameters get one gradient from all its passes before DDP's hook runs, so passes need no care.
        return DistributedDataParallel(model.to(self.device), gradient_as_bucket_view=True)

    def no_sync(self, wrapped: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        assert isinstance(wrapped, DistributedDataParallel)
        return nullcontext() if last else wrapped.no_sync()

    def any(self, flag: bool) -> bool:
        raised = torch.tensor(int(flag))
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return bool(raised)

    def mean(self, value: Tensor) -> Tensor:
        total = value.to("cpu", torch.float64)
        dist.all_reduce(total)
        return total / self.world_size

    def on_rank_0(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
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
        each = (len(tokens) - 1) // context // self.world_size * context
        pieces = []
        if each:
            share = torch.from_numpy(token_losses(model, tokens[self.rank * each : (self.rank + 1) * each + 1]))
            shares = [torch.empty_like(share) for _ in range(self.world_size)]
            dist.all_gather(shares, share)
            pieces += [share.numpy() for share in shares]
        rest = tokens[self.world_size * each :]
        if len(rest) > 1:
            pieces.append(token_losses(model, rest))
        return np.concatenate(pieces)

    def weights(self, model: FraiLT) -> Weights:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        whole: dict[str, Any] = get_model_state_dict(
            model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
        )
        return {name: whole[name] for name, _ in model.named_parameters() if name in whole}

    def optimizer_state(self, model: FraiLT, optimizers: list[torch.optim.Optimizer]) -> OptimizerState:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        whole: dict[str, Any] = get_optimizer_state_dict(model, optimizers, options=options)
        return whole.get("state", {})

    def load_weights(self, model: FraiLT, weights: Weights) -> None:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        # Tensor by tensor, so that no other rank needs memory for the whole model.
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        every = model.named_parameters(remove_duplicate=False)  # A tied head has two names.
        whole = {name: weights[names[id(parameter)]] for name, parameter in every} if self.rank == 0 else {}
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(model, dict[str, Any](whole), options=options)

    def load_optimizer_state(
        self, model: FraiLT, optimizers: list[torch.optim.Optimizer], state: OptimizerState
    ) -> None:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

        names = {id(parameter): name for name, parameter in model.named_parameters()}
        groups = [
            group | {"params": [names[id(p)] for p in group["params"]]}
            for optimizer in optimizers
            for group in optimizer.param_groups
        ]
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        whole: dict[str, Any] = {"state": state, "param_groups": groups} if self.rank == 0 else {}
        set_optimizer_state_dict(model, optimizers, whole, options=options)


class Shards(Replicas):
    """Several ranks, each with its rows of every tensor, of its gradient and of the optimizer's state (FSDP2).

    A unit is what is gathered from all ranks when it is used, and dropped again. A looped group is one unit: its
    weights are gathered once and serve all M passes. With a block as the unit they would be gathered M times. Where
    M = 1 the two cost the same traffic, and a block needs less memory.

    Units are gathered in float32 and autocast rounds them at each use. A ``MixedPrecisionPolicy`` would halve the
    traffic, but it holds for validation too, which is in float32, and would put the residual stream into bfloat16.
    """

    def wrap(self, model: FraiLT) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.world_size,))
        # The model comes from the CPU's memory a unit at a time: it need not fit on one device.
        for group, shape in zip(model.groups, model.config.groups, strict=True):
            for unit in [group] if shape.iterations > 1 else group.get_submodule("blocks").children():
                fully_shard(unit, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model

    def no_sync(self, wrapped: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        # Gradients are averaged after every micro-batch: to wait for the last would mean to keep whole ones.
        return nullcontext()

    def whole(self, tensor: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor

        assert isinstance(tensor, DTensor)
        return tensor.full_tensor()

    def prepare(self, optimizers: list[torch.optim.Optimizer]) -> None:
        from torch.distributed.tensor import DTensor, Replicate

        def gather(tensor: Tensor) -> Tensor:
            assert isinstance(tensor, DTensor)
            return tensor.redistribute(placements=[Replicate()])

        # Muon's update of a matrix is no sum of updates of its rows. Sharded, its products would be right too, but
        # added up in another order, in bfloat16, and with far more traffic.
        def gather_matrices(optimizer: torch.optim.Optimizer, *_: object) -> None:
            for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                parameter.grad = gather(parameter.grad)
                if state := optimizer.state[parameter]:
                    state["momentum_buffer"] = gather(state["momentum_buffer"])

        def shard_momentum(optimizer: Any, *_: object) -> None:
            for parameter, state in optimizer.state.items():
                state["momentum_buffer"] = state["momentum_buffer"].redistribute(placements=parameter.placements)

        for optimizer in optimizers:
            if isinstance(optimizer, torch.optim.Muon):
                optimizer.register_step_pre_hook(gather_matrices)
                optimizer.register_step_post_hook(shard_momentum)

    def token_losses(self, model: FraiLT, tokens: np.ndarray) -> np.ndarray:
        from torch.distributed.fsdp import FSDPModule

        losses = super().token_losses(model, tokens)
        assert isinstance(model, FSDPModule)
        model.reshard()  # The outermost unit stays whole after a forward pass, since a backward pass usually follows.
        return losses


def join(config: TrainConfig, corpus: Corpus, device: torch.device, sharding: Sharding) -> Ranks:
    """Join the other ranks of this run, if torchrun has started any.

    The process group stays until the process ends, so that several runs may follow each other.

    Raises:
        InputError: the batch cannot be split, there is no GPU for each rank, or the ranks were not started alike.
    """
    info = rank_info()
    if info.world_size == 1:
        if sharding == "fsdp":
            raise InputError("sharding fsdp needs several processes; start them with torchrun, or leave it out")
        return Ranks(device)
    if config.batch % (count := info.world_size * config.accumulate):
        raise InputError(
            f"batch {config.batch} cannot be split over {info.world_size} processes in {config.accumulate} parts "
            f"each; make it a multiple of {count}"
        )
    if device.type == "cuda":
        if info.local_world_size > torch.cuda.device_count():
            raise InputError(
                f"{info.local_world_size} processes on this machine need a GPU each and there are "
                f"{torch.cuda.device_count()}; lower --nproc-per-node"
            )
        device = torch.device("cuda", info.local_rank)
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise InputError(f"several processes cannot train on {device.type} together; use --device cpu, or one process")
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
        atexit.register(dist.destroy_process_group)
    ranks = (Shards if sharding == "fsdp" else Replicas)(device, info)
    options = {"config": dataclasses.asdict(config), "data": corpus.digest, "sharding": sharding}
    if ranks.any(ranks.on_rank_0(lambda: options) != options):
        raise InputError("the processes have different options or data; start all of them with the same command")
    return ranks
