"""Runs are found again under the names and fingerprints that they were stored with."""

from train.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig
from train.runs.run_store import default_name


def test_stored_runs_keep_their_fingerprints_and_names() -> None:
    """A run that was begun by earlier code is found by these."""
    config = TrainConfig(
        model=ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 2}, start="champion"),
        optim=OptimConfig(learning_rate=2e-3),
        augment=AugmentConfig(mixup=0.4),
        epochs=4,
        strategy="ddp",
        seed=7,
        num_workers=4,
    )
    assert TrainConfig().fingerprint == "b19841942a655ba4"
    assert config.fingerprint == "472a391190651d48"
    assert default_name(config, "0123456789ab") == "vit-01234567-472a3911"
