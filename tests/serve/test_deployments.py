"""What the processes of the Serve graph load before they are ready."""

import subprocess
import sys

HEAVY = ("torch", "mlflow", "scipy", "alembic")


def test_front_doors_and_controllers_start_without_what_only_models_need() -> None:
    told = f"import sys, serve.deployments; print(*(one for one in {HEAVY} if one in sys.modules))"
    ended = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
