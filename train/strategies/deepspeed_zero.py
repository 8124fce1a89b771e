"""Strategy `deepspeed`: ZeRO shards the optimizer's state (stage 1), gradients (2) and parameters (3).

DeepSpeed lays the weights of a parameter group end to end and gives each rank an equal run of them, so its state can
be loaded only by the same number of ranks. Imported on use: that takes seconds.
"""

import contextlib
import logging
import os
import sys
import warnings
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from train.config import TrainConfig
from train.config_checks import TrainConfigError
from train.strategies.collectives import kept_buffers, prepare_blocks
from train.strategies.optimizer import KINDS, adamw, begin, copied, set_rates

FLATS = ("fp32_partitioned_groups_flat", "single_partition_of_fp32_groups", "fp32_groups_flat_partition")
"""DeepSpeed's attributes of the master weights: stage 3, stages 1 and 2, stage 1 with bfloat16."""
BUCKET = 50_000_000
"""Elements of a collective; DeepSpeed's own half a billion takes gigabytes of buffers."""


class DeepSpeedZero:
    """ZeRO; the master weights are the flat float32 runs, and the module's own parameters follow them."""

    elastic = False

    def __init__(self, module: torch.nn.Module, config: TrainConfig, device: torch.device) -> None:
        deepspeed = _deepspeed(device)
        half = config.precision == "bfloat16"
        if half and any(buffer.is_floating_point() for buffer in module.buffers()):
            raise TrainConfigError(
                f"{config.model.name} has running statistics, which deepspeed would round to bfloat16: "
                "take precision float32, or strategy ddp or fsdp"
            )
        prepare_blocks(module, config)
        self.module = module
        self.dtype = torch.bfloat16 if half else torch.float32
        self.stage = config.zero_stage
        self.mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        self.adamw = adamw(module, config.optim)
        with contextlib.redirect_stdout(sys.stderr):  # standard output is the job's
            self.engine, *_ = deepspeed.initialize(
                model=module, optimizer=self.adamw, config=_settings(config, module), dist_init_required=False
            )

    def logits(self, x_BCHW: torch.Tensor, *, last: bool = True) -> torch.Tensor:
        logits_BK: torch.Tensor = self.engine(x_BCHW.to(self.dtype))
        return logits_BK.float()

    def backward(self, loss: torch.Tensor) -> None:
        self.engine.backward(loss, scale_wrt_gas=False)

    def update(self, learning_rate: float) -> float:
        set_rates(self.adamw, learning_rate)
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def reshard(self) -> None:
        """Do nothing: stage 3 releases gathered parameters at the end of each forward pass."""

    def master_weights(self) -> dict[str, torch.Tensor]:
        flats = {f"flat.{nth}": self._shared(tensor.detach()) for nth, tensor in enumerate(self._flats())}
        return flats | {
            name: tensor for name, tensor in self.module.named_buffers() if tensor.is_floating_point()
        }

    def load_masters(self) -> None:
        if self.stage < 3:
            self.engine.optimizer.update_lp_params()
            return
        for nth in range(len(self._flats())):
            self.engine.optimizer._reassign_or_swap_out_partitioned_parameters(nth)

    def tensors(self) -> dict[str, torch.Tensor]:
        tensors = {f"model.{name}": value for name, value in kept_buffers(self.module).items()}
        for nth, flat in enumerate(self._flats()):
            state = begin(self.adamw, flat)
            tensors[f"model.flat.{nth}"] = self._shared(flat.detach())
            for kind in KINDS:
                value = state[kind]
                tensors[f"optimizer.{kind}.flat.{nth}"] = self._shared(value) if value.ndim else value
        return tensors

    def full_weights(self) -> dict[str, torch.Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param

        weights = {}
        for name, parameter in self.module.named_parameters():  # one by one: each is gathered whole
            whole = safe_get_full_fp32_param(parameter)
            if dist.get_rank() == 0:
                weights[name] = copied(whole)
        return weights | {name: copied(buffer) for name, buffer in kept_buffers(self.module).items()}

    def _flats(self) -> list[torch.Tensor]:
        """Return this rank's runs of float32 weights, one a parameter group (stage 3: a sub-group)."""
        optimizer = self.engine.optimizer
        return next(getattr(optimizer, name) for name in FLATS if hasattr(optimizer, name))

    def _shared(self, run: torch.Tensor) -> torch.Tensor:
        return DTensor.from_local(run, self.mesh, [Shard(0)], run_check=False)


def _settings(config: TrainConfig, module: torch.nn.Module) -> dict[str, Any]:
    bucket = min(BUCKET, sum(parameter.numel() for parameter in module.parameters()))
    half = config.precision == "bfloat16"
    offload = {"offload_optimizer": {"device": "cpu", "pin_memory": True}} if config.cpu_offload else {}
    return {
        "train_micro_batch_size_per_gpu": 1,  # the loop cuts and scales its microbatches itself
        "managed_gradient_accumulation": False,
        "gradient_clipping": config.optim.clip_norm,
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        "bf16": {"enabled": half},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # our AdamW everywhere
        "zero_optimization": {
            "stage": config.zero_stage,
            "overlap_comm": False,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": BUCKET,
            "stage3_param_persistence_threshold": 0,
            "stage3_max_live_parameters": 0,
            "stage3_max_reuse_distance": 0,
            **offload,
        },
    }


def _deepspeed(device: torch.device) -> ModuleType:
    """Import the library for this kind of device; on a CPU it uses gloo and compiles nothing.

    Raises:
        TrainConfigError: it is not installed.
    """
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    os.environ.setdefault("LOCAL_RANK", str(device.index or 0))
    try:
        import deepspeed
    except ImportError as error:
        raise TrainConfigError(
            f"strategy deepspeed needs the package deepspeed, which does not load here ({error}): install it with "
            "`pip install --no-build-isolation deepspeed`, or take strategy fsdp"
        ) from error
    # DeepSpeed still calls these
    for operation in ("all_gather_into_tensor", "reduce_scatter_tensor"):
        warnings.filterwarnings("ignore", f"`torch.distributed.{operation}` is deprecated", FutureWarning)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # Its operation for shared memory would be compiled at the first start and leaves files when it is killed.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
