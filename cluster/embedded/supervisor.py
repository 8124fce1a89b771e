"""Bring the platform's components up and take them down.

`up` leaves a healthy component alone and starts a dead one; `down` ends every process of the home by its id
and looks again. Which process is which component is kept in the home's state.json.
"""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import psycopg

from cluster.embedded.component import Component
from cluster.embedded.home import Home, PlatformError
from cluster.embedded.mlflow_server import MlflowServer
from cluster.embedded.ports import (
    INTERNAL,
    NAMED,
    PortError,
    Ports,
    SlotClaims,
    choose,
    explicit_ports,
    holder,
    is_free,
    taken_error,
)
from cluster.embedded.postgresql import Postgresql
from cluster.embedded.process import (
    Identity,
    end,
    identify,
    is_alive,
    last_lines,
    marked,
    start_detached,
    sweep,
)
from cluster.embedded.ray_head import RayHead
from cluster.embedded.seaweedfs import SeaweedFs
from cluster.embedded.site import Site
from cluster.embedded.state import State
from cluster.objects import ObjectStoreError

COMPONENTS: tuple[Component, ...] = (SeaweedFs(), Postgresql(), RayHead(), MlflowServer())
STOP_ORDER = (("ray", "mlflow"), ("postgresql", "s3"))
"""Users of others go first; the two of a pair at once."""
PATIENCE_S = 90.0
"""How long a running component that does not answer is waited for before it is started anew."""

Say = Callable[[str], None]


def up(home: Home, env: Mapping[str, str], *, policy: str, say: Say) -> Site:
    """Start what does not run, wait until all of it answers, and write the environment for jobs.

    Raises:
        PlatformError: something is missing, taken or broken; what runs by then keeps running, and a second
            call goes on from there.
    """
    for component in COMPONENTS:
        component.check_installed()
    explicit = explicit_ports(env)
    home.prepare()
    with home.locked(), SlotClaims() as slots:
        state = State.read(home)
        state.ports = _ports(state, explicit, policy, slots)
        if not state.running():
            state.environment = env.get("RAYDIOLOGY_ENVIRONMENT") or state.environment
            state.bucket_prefix = env.get("RAYDIOLOGY_BUCKET_PREFIX", state.bucket_prefix)
        site = state.site()
        site.write_env()
        state.write()
        _start_all(site, state, say)
    return site


def _ports(state: State, explicit: Mapping[str, int], policy: str, slots: SlotClaims) -> Ports:
    if not state.running():
        sweep(state.home.id)  # what an earlier platform left behind may hold the very ports we want
        return choose(explicit=explicit, remembered=state.ports, policy=policy, claim=slots.claim)
    assert state.ports is not None
    for name, number in explicit.items():
        if state.ports[name] != number:
            raise PortError(
                f"{NAMED[name].setting} asks for port {number}, but the platform already runs with "
                f"{state.ports[name]}: `make down` first"
            )
    return state.ports


def _start_all(site: Site, state: State, say: Say) -> None:
    """Start all components at once, each after what it needs."""
    cancelled = threading.Event()
    futures: dict[str, Future[None]] = {}

    def start(component: Component) -> None:
        for needed in component.needs:
            if futures[needed].exception() is not None:
                raise PlatformError(f"{component.title} waits for {needed}")
        _start(component, site, state, say, cancelled)

    with ThreadPoolExecutor(len(COMPONENTS)) as pool:
        try:
            for component in COMPONENTS:
                futures[component.name] = pool.submit(start, component)
            errors = [error for future in futures.values() if (error := future.exception()) is not None]
        except BaseException:
            cancelled.set()  # an interrupt: let the threads end, then it goes on upwards
            raise
    if errors:
        expected = [error for error in errors if isinstance(error, PlatformError)]
        if len(expected) < len(errors):
            raise next(error for error in errors if not isinstance(error, PlatformError))
        raise PlatformError("\n".join(str(error) for error in expected))


def _start(component: Component, site: Site, state: State, say: Say, cancelled: threading.Event) -> None:
    started_at = time.monotonic()
    identity = state.components.get(component.name)
    if identity is not None and is_alive(identity):
        if _becomes_healthy(component, site, identity, PATIENCE_S, cancelled):
            _finish(component, site)
            say(f"  {component.title:<16} already up    {component.address(site)}")
            return
        end(identity, component.stop_signal, component.stop_timeout_s)
    sweep(site.home.id, component.name)
    for name in component.ports:
        if not is_free(site.ports[name]):
            raise taken_error(name, site.ports[name])
    for attempt in range(component.start_attempts):
        if _launch(component, site, state, cancelled):
            break
        ended = not is_alive(state.components[component.name])
        sweep(site.home.id, component.name)
        if cancelled.is_set() or not ended or attempt + 1 == component.start_attempts:
            how = "ended as it started" if ended else f"did not answer in {component.start_timeout_s:.0f} s"
            raise PlatformError(f"{component.title} {how}; {_last_words(site.home, component)}")
    _finish(component, site)
    say(
        f"  {component.title:<16} up            {component.address(site)}  {time.monotonic() - started_at:.0f} s"
    )


def _launch(component: Component, site: Site, state: State, cancelled: threading.Event) -> bool:
    component.prepare(site)
    process = start_detached(
        component.command(site),
        env=site.component_env(component.name, component.own_env(site)),
        directory=site.home.path,
        log=site.home.log(component.name),
    )
    # One that has already ended gets an identity that no process has.
    identity = identify(process.pid) or Identity(pid=process.pid, started_ticks=0, boot="")
    state.record(component.name, identity)
    return _becomes_healthy(component, site, identity, component.start_timeout_s, cancelled)


def _becomes_healthy(
    component: Component, site: Site, identity: Identity, timeout_s: float, cancelled: threading.Event
) -> bool:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until and is_alive(identity) and not cancelled.is_set():
        if component.is_healthy(site):
            return True
        time.sleep(0.2)
    return False


def _finish(component: Component, site: Site) -> None:
    try:
        component.finish(site)
    except (OSError, ObjectStoreError, psycopg.Error) as error:
        raise PlatformError(f"{component.title} answers, but refuses its set-up: {error}") from error


def _last_words(home: Home, component: Component) -> str:
    log = home.log(component.name)
    return f"the end of {log}:\n" + "\n".join(f"    {line}" for line in last_lines(log))


@dataclass(frozen=True, kw_only=True)
class Remains:
    """What `down` could not end; nothing, as a rule."""

    processes: tuple[str, ...]
    ports: tuple[str, ...]


def down(home: Home, say: Say) -> Remains:
    """End every process of the home and look again; what it stored stays."""
    if not home.path.is_dir():
        sweep(home.id)
        return _remains(home, None)
    with home.locked():
        state = State.read(home)
        components = {component.name: component for component in COMPONENTS}
        for names in STOP_ORDER:
            with ThreadPoolExecutor(len(names)) as pool:
                for future in [pool.submit(_stop, components[name], state, say) for name in names]:
                    future.result()
        sweep(home.id)
        return _remains(home, state.ports)


def _stop(component: Component, state: State, say: Say) -> None:
    identity = state.components.get(component.name)
    was_up = identity is not None and is_alive(identity)
    if identity is not None:
        end(identity, component.stop_signal, component.stop_timeout_s)
    swept = sweep(state.home.id, component.name)
    if identity is not None and state.ports is not None:
        component.clean(state.ports)
        state.record(component.name, None)
    say(f"  {component.title:<16} {'stopped' if was_up or swept else 'was not running'}")


def _remains(home: Home, ports: Ports | None) -> Remains:
    names = [] if ports is None else [*NAMED, *INTERNAL]
    taken = [ports[name] for name in names if ports is not None and not is_free(ports[name])]
    return Remains(
        processes=tuple(f"{process.pid} {process.name()}" for process in marked(home.id)),
        ports=tuple(f"{number}, held by {holder(number)}" for number in taken),
    )
