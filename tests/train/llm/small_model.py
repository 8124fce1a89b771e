"""The settings of a tiny fine-tuning."""

from train.llm.config import LlmConfig

CONFIG = LlmConfig(
    epochs=3, batch_size=1, checkpoint_every_steps=2, learning_rate=5e-3, max_seq_length=256, seed=5
)
