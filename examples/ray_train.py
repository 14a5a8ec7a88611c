"""Ray Train: the trainer of `train.py` on two CPU workers, resumed from its newest checkpoint where there is one.

    python examples/ray_train.py

Ray is in `requirements/ray.txt`. Workers on several machines need `--output` on storage that all of them share.
"""

from __future__ import annotations

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.huggingface.transformers import prepare_trainer
from ray.train.torch import TorchTrainer
from train import build_parser, build_trainer
from transformers.trainer_utils import get_last_checkpoint


def train_in_worker(arguments: dict[str, str]) -> None:
    """What each worker runs, as each process of torchrun would."""
    options = build_parser().parse_args(["--cpu", "--output", arguments["output"]])
    trainer = prepare_trainer(build_trainer(options))
    checkpoint = get_last_checkpoint(arguments["output"]) if options.output.is_dir() else None
    trainer.train(resume_from_checkpoint=checkpoint)


def main() -> None:
    """Start two workers, and wait for them."""
    output = build_parser().parse_args().output.resolve()
    ray.init(num_cpus=2, include_dashboard=False)
    trainer = TorchTrainer(
        train_in_worker,
        train_loop_config={"output": str(output)},
        scaling_config=ScalingConfig(num_workers=2, use_gpu=False),
        run_config=RunConfig(storage_path=str(output.with_name("ray"))),
    )
    trainer.fit()


if __name__ == "__main__":
    main()
