"""Fine-tuning of the language model."""
