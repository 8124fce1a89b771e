"""Bodies of requests and responses, one model a call; OpenAPI is made from them.

The two bodies that are made below this layer are typed there: `serve.front_door.prediction.Prediction` and
`serve.control.rollout_view.RolloutView`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from cluster.releases.registry import NUMBER, ClassifierName, ModelName
from serve.control.rollout_view import RolloutView, Share
from serve.routing.fault_injection import Fault

MOST_STEPS = 50
Version = Annotated[str, Field(pattern=f"^{NUMBER}$")]
"""A version's number in the registry."""


class StepBody(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    share: float = Field(ge=0, le=1)
    minutes: float = Field(default=5.0, ge=0)
    requests: int = Field(default=0, ge=0)
    pairs: int = Field(default=0, ge=0)
    non_inferior: bool = True


class RolloutBody(BaseModel):
    """A version to bring in front of users."""

    model_config = ConfigDict(extra="forbid")
    model: ModelName
    version: Version
    steps: (
        Literal["canary", "blue_green", "at_once"]
        | Annotated[list[float | StepBody], Field(min_length=1, max_length=MOST_STEPS)]
        | None
    ) = None


class TrafficBody(BaseModel):
    """Shares of a model's live versions; the champion has what is left."""

    model_config = ConfigDict(extra="forbid")
    model: ModelName
    weights: dict[Version, float] = Field(min_length=1, max_length=32)


class FaultBody(BaseModel):
    """What is to befall requests to one version of the classifier."""

    model_config = ConfigDict(extra="forbid")
    model: ClassifierName
    version: Version
    error_rate: float = Field(default=0.0, ge=0, le=1)
    delay_ms: float = Field(default=0.0, ge=0, le=60_000)
    crash: bool = False


class Rollouts(TypedDict):
    rollouts: list[RolloutView]


class Traffic(TypedDict):
    model: str
    weights: dict[str, Share]
    """By version; they sum to 1."""


class Faults(TypedDict):
    faults: dict[str, Fault]
    """By version of the classifier."""


class Health(TypedDict):
    status: Literal["alive"]


class Readiness(TypedDict):
    status: Literal["ready", "degraded", "not ready"]
    dependencies: dict[str, str]
    """State by name; starts with `ok` where all is well."""
