"""What the reconciler asks Ray Serve for."""

from typing import Any

import pytest

from serve.control.reconciler import A_DAY_S, serve_config
from serve.control.resources import sized
from serve.routing.routes import Routes, Target
from tests.bare_settings import bare_settings

SETTINGS = bare_settings()


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")


@pytest.mark.parametrize(
    ("other", "delay_s"),
    [("canary", A_DAY_S), ("previous", sized({})["classifier"]["autoscaling_config"]["downscale_delay_s"])],
)
def test_a_champion_gives_no_replica_up_while_there_is_a_canary(other: Any, delay_s: float) -> None:
    live = Routes(
        model="xray-vit",
        targets=(
            Target(version="1", role="champion", bundle_key="models/xray-vit/b1"),
            Target(version="2", role=other, bundle_key="models/xray-vit/b2"),
        ),
    )
    config = serve_config({"xray-vit": live}, None, sized({}), SETTINGS)
    [champion, second] = [one["deployments"][0] for one in config["applications"]]
    assert champion["autoscaling_config"]["downscale_delay_s"] == delay_s
    assert second["autoscaling_config"]["downscale_delay_s"] == 120
