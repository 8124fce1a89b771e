"""The peers of the serving benchmarks, each started as `python -m jobs.bench.serve_peers --peer NAME --port N`.

Each takes the same multipart upload as our front door does. None authenticates, routes, records or decodes in a child.
"""

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import ray
import ray.serve
import uvicorn
from fastapi import FastAPI, Request, UploadFile

from jobs.bench.serve_stage import HOST, Peer
from jobs.runtime import entry

BATCH_SIZE, BATCH_WAIT_S = 16, 0.004
"""As our front door's."""
ANSWER = {"label": "normal", "probabilities": [0.82, *[0.02] * 9]}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    peer: Peer
    port: int
    bundle: Path | None = None
    """Folder of the bundle that the peers with a model serve."""
    batch_size: int = BATCH_SIZE
    threads: int = 2


class NoModel(litserve.LitAPI):
    """LitServe over a model that does nothing."""

    def setup(self, device: str) -> None:
        return None

    def decode_request(self, request: Request) -> bytes:
        blob: bytes = request["file"].file.read()  # LitServe gives the form
        return blob

    def predict(self, inputs: Any) -> Any:
        return [ANSWER] * len(inputs) if isinstance(inputs, list) else ANSWER

    def encode_response(self, output: Any) -> Any:
        return output


class Vit(NoModel):
    """LitServe over the classifier that our bundles serve."""

    def __init__(self, bundle: Path, threads: int, **options: Any) -> None:
        super().__init__(**options)
        self._bundle, self._threads = bundle, threads

    def setup(self, device: str) -> None:
        from serve.classifier.classifier import Classifier

        self.classifier = Classifier(self._bundle, threads=self._threads)

    def predict(self, inputs: Any) -> Any:
        blobs = inputs if isinstance(inputs, list) else [inputs]
        answers = classified(self.classifier, blobs)
        return answers if isinstance(inputs, list) else answers[0]


def classified(classifier: Any, blobs: list[bytes]) -> list[dict[str, Any]]:
    """Decode, scale and classify by the functions that our own graph calls."""
    from data.imaging.preprocess import to_pixels

    pixels_NHW = np.stack([to_pixels(blob, classifier.card.pixels) for blob in blobs])
    return [
        {
            "label": classifier.card.classes[int(np.argmax(probabilities_C))],
            "probabilities": probabilities_C.tolist(),
        }
        for probabilities_C in classifier.probabilities(pixels_NHW)
    ]


def serve_lit(api: litserve.LitAPI, port: int) -> None:
    server = litserve.LitServer(api, accelerator="cpu", fast_queue=False)
    server.run(host=HOST, port=port, log_level="warning", generate_client_file=False)


def serve_stock(port: int) -> None:
    """Serve two deployments, every setting Ray's default."""
    app = FastAPI()

    class Model:
        async def classify(self, blob: bytes) -> dict[str, Any]:
            return ANSWER

    class Ingress:
        def __init__(self, model: Any) -> None:
            self.model = model

        @app.post("/predict")
        async def predict(self, file: UploadFile) -> dict[str, Any]:
            answer: dict[str, Any] = await self.model.classify.remote(await file.read())
            return answer

    ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=300 * 2**20)
    ray.serve.start(http_options={"host": HOST, "port": port})
    model = ray.serve.deployment(name="model")(Model).bind()
    ray.serve.run(ray.serve.deployment(name="ingress")(ray.serve.ingress(app)(Ingress)).bind(model))
    threading.Event().wait()


def fastapi_vit(bundle: Path, threads: int, batch_size: int) -> FastAPI:
    """Make a FastAPI app with the classifier in its own process, in batches by hand."""
    from serve.classifier.classifier import Classifier

    classifier = Classifier(bundle, threads=threads)
    waiting: asyncio.Queue[tuple[bytes, asyncio.Future[dict[str, Any]]]] = asyncio.Queue()
    app = FastAPI()

    async def batches() -> None:
        while True:
            group = [await waiting.get()]
            if waiting.qsize() < batch_size - 1:
                await asyncio.sleep(BATCH_WAIT_S)
            while len(group) < batch_size and not waiting.empty():
                group.append(waiting.get_nowait())
            answers = await asyncio.to_thread(classified, classifier, [blob for blob, _ in group])
            for (_, future), answer in zip(group, answers, strict=True):
                future.set_result(answer)

    started: list[asyncio.Task[None]] = []

    @app.post("/predict")
    async def predict(file: UploadFile) -> dict[str, Any]:
        if not started:
            started.append(asyncio.create_task(batches()))
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        await waiting.put((await file.read(), future))
        return await future

    return app


def main(arguments: Arguments) -> None:
    size = arguments.batch_size
    batch = {} if size == 1 else {"max_batch_size": size, "batch_timeout": BATCH_WAIT_S}
    if arguments.peer == "litserve":
        serve_lit(NoModel(**batch), arguments.port)
    elif arguments.peer == "stock":
        serve_stock(arguments.port)
    else:
        assert arguments.bundle is not None, "a peer with a model needs its bundle"
        if arguments.peer == "litserve_vit":
            serve_lit(Vit(arguments.bundle, arguments.threads, **batch), arguments.port)
        else:
            app = fastapi_vit(arguments.bundle, arguments.threads, size)
            uvicorn.run(app, host=HOST, port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main(entry.parse(Arguments, "bench_serve_peers"))
