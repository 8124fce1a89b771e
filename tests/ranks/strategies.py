"""One rank of the scenarios that `test_strategy.py` looks at: run as a script by the fixture `strategies`.

python tests/ranks/strategies.py RANK WORLD_SIZE FOLDER
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))  # a script beside another one
from ranks import CONFIG, group, run

from train.checkpoints.state import CheckpointError
from train.config import AugmentConfig, ModelConfig, TrainConfig
from train.config_checks import TrainConfigError

LONG = replace(CONFIG, epochs=12, checkpoint_every_steps=0)
EVERYTHING = replace(
    CONFIG,
    model=replace(CONFIG.model, drop_path_rate=0.2, drop_rate=0.1),
    optim=replace(CONFIG.optim, layer_decay=0.7),
    augment=AugmentConfig(mixup=0.4),
    microbatch_size=2,
    ema_decay=0.9,
    activation_checkpointing=True,
)
WAYS = {
    "ddp": {"strategy": "ddp"},
    "fsdp": {"strategy": "fsdp"},
    "fsdp-whole": {"strategy": "fsdp", "fsdp_unit": "model"},
    "zero1": {"strategy": "deepspeed", "zero_stage": 1},
    "zero2": {"strategy": "deepspeed", "zero_stage": 2},
    "zero3": {"strategy": "deepspeed", "zero_stage": 3},
}


def by(config: TrainConfig, way: str) -> TrainConfig:
    return replace(config, **WAYS[way])


def refusal(config: TrainConfig, folder: Path) -> str:
    try:
        run(config, folder)
    except (TrainConfigError, CheckpointError) as error:
        return str(error)
    return "none"


def alone(folder: Path) -> None:
    """One rank in a process of its own, as DeepSpeed keeps the first process group that it sees."""
    group(0, 1, folder / "alone")
    (folder / "alone.txt").write_text(refusal(by(CONFIG, "zero2"), folder / "ranks"))


def main() -> None:
    rank, world_size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if world_size == 1:
        alone(folder)
        return
    group(rank, world_size, folder / "two")
    results: dict[str, object] = {}
    for way in WAYS:
        results[f"long-{way}"] = run(by(LONG, way), folder / f"long-{way}")
        results[f"all-{way}"] = run(by(EVERYTHING, way), folder / f"all-{way}")
        run(by(EVERYTHING, way), folder / f"killed-{way}", kill_at=5)
        results[f"killed-{way}"] = run(by(EVERYTHING, way), folder / f"killed-{way}")
        results[f"half-{way}"] = run(by(replace(CONFIG, precision="bfloat16"), way), folder / f"half-{way}")
    still = replace(EVERYTHING, model=CONFIG.model)
    results["plain"] = run(by(CONFIG, "ddp"), folder / "plain")
    results["micro"] = run(by(still, "ddp"), folder / "micro")
    results["whole"] = run(by(replace(still, microbatch_size=0), "ddp"), folder / "whole")
    results["uneven"] = run(by(replace(still, microbatch_size=1), "fsdp"), folder / "uneven")
    run(by(CONFIG, "zero2"), folder / "ranks", kill_at=5)
    run(by(still, "fsdp"), folder / "fewer-fsdp", kill_at=5)
    run(by(still, "ddp"), folder / "fewer-ddp", kill_at=5)
    levit = ModelConfig(name="levit_128s", kwargs={"distilled": False})
    norms = replace(CONFIG, model=levit, precision="bfloat16")
    results["norms"] = refusal(by(norms, "zero2"), folder / "norms")
    if rank == 0:
        group(0, 1, folder / "one")
        subprocess.run([sys.executable, __file__, "0", "1", str(folder)], check=True)
        results["ranks"] = (folder / "alone.txt").read_text()
        results["fewer-fsdp"] = run(by(still, "fsdp"), folder / "fewer-fsdp")
        results["fewer-ddp"] = run(by(still, "ddp"), folder / "fewer-ddp")
        (folder / "results.json").write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
