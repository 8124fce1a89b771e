"""The model and the pixels of a bundle that MLflow loads."""

from data.imaging.preprocess import PixelConfig
from train.config import ModelConfig

MLFLOW_PIXELS = PixelConfig(side=32)


MODEL = ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 1})
