"""The embedded platform for every tier that needs it: one for the whole session, in a home of its own."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import ray

from cluster.embedded.home import Home
from cluster.embedded.site import read_env
from cluster.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
GPU = ROOT / "tests" / "gpu"
hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one is late, and nothing is wrong
hypothesis.settings.load_profile("any machine")
OURS = ("RAYDIOLOGY_", "RAY_", "AWS_ACCESS", "AWS_SECRET", "AWS_ENDPOINT", "MLFLOW_")


def pytest_addoption(parser: pytest.Parser) -> None:
    """For `services/test_exactly_once.py`, `test_train_interrupted.py` and `test_front_door_away.py`."""
    parser.addoption("--away-s", type=float, default=6.0, help="how long a store is away under load")
    parser.addoption("--kills", type=int, default=3, help="how many times something is killed under ETL")
    parser.addoption(
        "--train-kills", type=int, default=2, help="how many training runs are killed, each once"
    )
    parser.addoption("--kills-seed", type=int, default=0, help="of what is killed, and when")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The tier on a GPU runs where it is named (`make test-gpu`), and there it fails without one."""
    named = any(Path(one).resolve().is_relative_to(GPU) for one in config.args)
    return True if collection_path.is_relative_to(GPU) and not named else None


@dataclass(frozen=True, kw_only=True)
class Platform:
    home: Home
    env: dict[str, str]
    """The whole environment for a subprocess: this process's own, with `.raydiology/env` over it."""
    settings: Settings

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return platform_command(self.home, *arguments)


def clean_environment() -> dict[str, str]:
    """Ours, without what would point at a platform that the developer runs."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


def platform_command(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m cluster.embedded.platform ...` over a home, as a user would run it."""
    return subprocess.run(
        [sys.executable, "-m", "cluster.embedded.platform", *arguments],
        cwd=ROOT,
        env={**clean_environment(), "RAYDIOLOGY_HOME": str(home.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A running platform on random ports; it leaves nothing behind."""
    home = Home(tmp_path_factory.mktemp("platform") / "home")
    try:
        started = platform_command(home, "up", "--random-ports")
        assert started.returncode == 0, started.stdout + started.stderr
        env = read_env(home)
        yield Platform(home=home, env={**clean_environment(), **env}, settings=Settings.from_env(env))
    finally:
        stopped = platform_command(home, "down")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A Ray of the tests' own, in this process: two CPUs, no dashboard, no token.

    The one that another tier has started in the same session serves as well.
    """
    if ray.is_initialized():
        yield
        return
    with pytest.MonkeyPatch.context() as environment:
        if "RAY_AUTH_MODE" not in os.environ:  # another value than the one at import hangs every answer
            environment.setenv("RAY_AUTH_MODE", "disabled")
        environment.delenv("RAY_ADDRESS", raising=False)
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=200 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="warning",
        )
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def miniature() -> Callable[[str, Path], Path]:
    """`write` of tests/data/miniatures.py: a small copy of a published dataset, by the source's name."""
    spec = importlib.util.spec_from_file_location("miniatures", ROOT / "tests/data/miniatures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    write: Callable[[str, Path], Path] = module.write
    return write


class Listener:
    """A webhook that answers with the given codes in turn, the last one for ever."""

    def __init__(self, *codes: int) -> None:
        self.bodies: list[dict[str, Any]] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                listener.bodies.append(json.loads(body))
                self.send_response(codes[min(len(listener.bodies), len(codes)) - 1])
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=geheim"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    """Start webhooks on loopback: `listen(503, 200)`."""
    opened: list[Listener] = []

    def start(*codes: int) -> Listener:
        opened.append(Listener(*codes))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LitGPT checkpoint laid out like the real one: two layers, random weights, a tokenizer of our sentences."""
    import safetensors.torch
    import torch
    import yaml
    from litgpt.config import Config
    from litgpt.model import GPT
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from serve.explanation import training_pairs

    folder = tmp_path_factory.mktemp("tiny-llm")
    ends = ["<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=ends,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [text for pair in training_pairs.pairs(training_pairs.taught(60, seed=0)) for text in pair]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "GPT2Tokenizer", "bos_token": ends[0], "eos_token": ends[1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 1}))
    small = {
        "n_layer": 2,
        "n_embd": 32,
        "n_head": 4,
        "n_query_groups": 2,
        "head_size": 8,
        "intermediate_size": 64,
    }
    config = Config.from_name("SmolLM2-135M-Instruct", **small, vocab_size=512, padded_vocab_size=512)
    (folder / "model_config.yaml").write_text(yaml.safe_dump(asdict(config)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT(config)
        model.apply(model._init_weights)
    weights = {
        name: one.half() for name, one in model.state_dict().items() if not name.startswith("lm_head.")
    }
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    card = {"format": 1, "model": "xray-llm", "base": "tiny", "license": "Apache-2.0", "files": {}}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


class FolderStore:
    """The object store as far as a sweep's ledger needs it, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, bucket: str, key: str, blob: bytes) -> None:
        path = self.folder / bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blob)

    def put_json(self, bucket: str, key: str, value: Any) -> None:
        self.put(bucket, key, json.dumps(value).encode())

    def get(self, bucket: str, key: str) -> bytes:
        return (self.folder / bucket / key).read_bytes()

    def get_json(self, bucket: str, key: str) -> Any:
        return json.loads(self.get(bucket, key))

    def delete(self, bucket: str, keys: list[str]) -> None:
        for key in keys:
            (self.folder / bucket / key).unlink(missing_ok=True)

    def keys(self, bucket: str, prefix: str) -> list[str]:
        root = self.folder / bucket
        found = (str(one.relative_to(root)) for one in root.rglob("*") if one.is_file())
        return sorted(one for one in found if one.startswith(prefix))


@pytest.fixture
def folder_store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")
