"""The contents of `state.json` in the platform's home: chosen ports, settings, and the process of each component."""

import dataclasses
import threading
from dataclasses import dataclass, field
from typing import Any

from cluster.embedded.credentials import load_or_generate
from cluster.embedded.home import Home, PlatformError
from cluster.embedded.ports import Ports
from cluster.embedded.process import Identity, is_alive
from cluster.embedded.site import Site


@dataclass
class State:
    """Written whenever it changes, under the home's lock."""

    home: Home
    ports: Ports | None = None
    environment: str = "development"
    bucket_prefix: str = ""
    components: dict[str, Identity] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def read(cls, home: Home) -> "State":
        values: dict[str, Any] = home.read_state()
        if not values:
            return cls(home)
        try:
            return cls(
                home,
                ports=Ports(**values["ports"]),
                environment=values["environment"],
                bucket_prefix=values["bucket_prefix"],
                components={name: Identity(**item) for name, item in values["components"].items()},
            )
        except (KeyError, TypeError) as error:
            raise PlatformError(f"{home.state_file} is damaged; remove it and run `make up`") from error

    def record(self, component: str, identity: Identity | None) -> None:
        with self._guard:
            if identity is None:
                self.components.pop(component, None)
            else:
                self.components[component] = identity
            self.write()

    def write(self) -> None:
        assert self.ports is not None
        self.home.write_state(
            {
                "ports": dataclasses.asdict(self.ports),
                "environment": self.environment,
                "bucket_prefix": self.bucket_prefix,
                "components": {
                    name: dataclasses.asdict(identity) for name, identity in self.components.items()
                },
            }
        )

    def running(self) -> set[str]:
        return {name for name, identity in self.components.items() if is_alive(identity)}

    def site(self) -> Site:
        assert self.ports is not None
        return Site(
            home=self.home,
            ports=self.ports,
            credentials=load_or_generate(self.home),
            environment=self.environment,
            bucket_prefix=self.bucket_prefix,
        )
