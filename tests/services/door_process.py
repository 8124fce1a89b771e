"""One front door in a process of its own, for tests that kill it: real stores and journal, a model that says one thing.

`python door_process.py PORT JOURNAL_FOLDER JOURNAL_BYTES`, with the platform's environment.
"""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from cluster.objects import ObjectStore
from cluster.secrets import read_key
from cluster.settings import Settings
from data.sandbox.decoder import Decoder
from serve.access.auth import KeyRing
from serve.api.app import build_app
from serve.classifier.answer import Classified
from serve.dependencies.postgres import PostgresConnection
from serve.front_door.attempts import InfrastructureError
from serve.front_door.explanation_service import ExplanationService
from serve.front_door.prediction_service import PredictionConfig, PredictionService
from serve.front_door.serving_snapshot import ServingSnapshot
from serve.ledger.journal import Journal, JournalConfig
from serve.ledger.writer import Records, RecordsConfig
from serve.routing.routes import Routes, Target
from tests.cards import card


class OneAnswer:
    async def classify(self, target: Target, pixels_HW: np.ndarray, judged: bool) -> Classified:
        probabilities_C = np.full(10, 0.02)
        probabilities_C[1] = 0.82
        return Classified(probabilities_C=probabilities_C)

    def away(self, target: Target, since_s: float) -> str | None:
        return None

    async def explain(self, target: Target, finding: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        raise InfrastructureError("away")
        yield {}


def main(port: int, folder: Path, journal_bytes: int) -> None:
    settings = Settings.from_env()
    key = read_key(settings.encryption_key_path)
    store = ObjectStore(settings, deadline_s=2.0)
    journal = Journal(folder, key, JournalConfig(max_bytes=journal_bytes))
    records = Records(settings.database_url, store, journal, RecordsConfig(deadline_s=1.0))
    keys = KeyRing(
        PostgresConnection(settings.database_url, records.database, deadline_s=1.0),
        copy=folder / "api_keys",
        copy_key=key,
    )
    with Decoder() as decoder:
        service = PredictionService(
            models=OneAnswer(),
            decoder=decoder,
            store=store,
            records=records,
            encryption_key=key,
            pseudonym_key=read_key(settings.pseudonym_key_path),
            config=PredictionConfig(),
        )
        target = Target(version="1", role="champion", bundle_key="bundles/1")
        routes = {"xray-vit": Routes(model="xray-vit", targets=(target,))}
        service.snapshot = ServingSnapshot(routes=routes, cards={"1": card()})
        app = build_app(service, ExplanationService(service), keys)
        uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
