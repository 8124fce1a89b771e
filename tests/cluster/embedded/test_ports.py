import os
import socket
from pathlib import Path

import pytest

from cluster.embedded.ports import (
    NAMED,
    SLOTS,
    PortError,
    Ports,
    SlotClaims,
    choose,
    explicit_ports,
    holder,
    is_free,
    taken_error,
)

DEFAULTS = {name: port.default for name, port in NAMED.items()}


def all_free_but(*taken: int):  # type: ignore[no-untyped-def]
    return lambda port: port not in taken


def test_a_free_machine_gives_the_default_ports() -> None:
    ports = choose(explicit={}, remembered=None, policy="default", free=all_free_but())
    assert ports.named == DEFAULTS
    assert ports.slot == 0


def test_a_taken_default_port_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(PortError, match=r"port 5000 for MLflow is taken by .*RAYDIOLOGY_MLFLOW_PORT"):
        choose(explicit={}, remembered=None, policy="default", free=all_free_but(5000))


def test_a_taken_default_port_is_replaced_where_free_ones_are_asked_for() -> None:
    ports = choose(explicit={}, remembered=None, policy="free", free=all_free_but(5000))
    assert ports["mlflow"] != 5000
    assert {name: port for name, port in ports.named.items() if name != "mlflow"} == {
        name: port for name, port in DEFAULTS.items() if name != "mlflow"
    }


def test_a_port_that_a_setting_asks_for_is_never_replaced() -> None:
    with pytest.raises(PortError, match="RAYDIOLOGY_S3_PORT"):
        choose(explicit={"s3": 9009}, remembered=None, policy="free", free=all_free_but(9009))


def test_chosen_ports_are_kept_while_they_are_free() -> None:
    first = choose(explicit={}, remembered=None, policy="random", free=all_free_but())
    assert choose(explicit={}, remembered=first, policy="default", free=all_free_but()) == first
    moved = choose(explicit={}, remembered=first, policy="free", free=all_free_but(first["s3"]))
    assert moved["s3"] != first["s3"]
    assert moved["mlflow"] == first["mlflow"]


def test_random_ports_avoid_every_default() -> None:
    ports = choose(explicit={}, remembered=None, policy="random", free=all_free_but())
    assert not set(ports.named.values()) & set(DEFAULTS.values())
    assert len(set(ports.named.values())) == len(NAMED)


def test_a_slot_with_a_taken_port_is_passed_over() -> None:
    taken = (Ports(named={}, slot=0).workers[5], Ports(named={}, slot=1)["filer"])
    assert choose(explicit={}, remembered=None, policy="default", free=all_free_but(*taken)).slot == 2


def test_two_platforms_that_start_at_once_get_different_slots(tmp_path: Path) -> None:
    with SlotClaims(tmp_path) as one, SlotClaims(tmp_path) as other:
        slots = [
            choose(explicit={}, remembered=None, policy="free", free=all_free_but(), claim=claims.claim).slot
            for claims in (one, other)
        ]
    assert slots == [0, 1]
    with SlotClaims(tmp_path) as later:
        assert later.claim(0)


def test_no_two_slots_share_a_port_and_none_is_a_default() -> None:
    blocks = [Ports(named={}, slot=slot).all() for slot in range(SLOTS)]
    assert len(set().union(*blocks)) == sum(map(len, blocks))
    assert not set().union(*blocks) & set(DEFAULTS.values())
    assert max(set().union(*blocks)) < 32768


def test_settings_are_read_and_a_wrong_one_is_named() -> None:
    assert explicit_ports({"RAYDIOLOGY_S3_PORT": "9009", "RAYDIOLOGY_SERVE_PORT": ""}) == {"s3": 9009}
    for text in ("http", "80", "70000", "-1"):
        with pytest.raises(PortError, match="RAYDIOLOGY_S3_PORT"):
            explicit_ports({"RAYDIOLOGY_S3_PORT": text})
    with pytest.raises(PortError, match="are both 9009"):
        explicit_ports({"RAYDIOLOGY_S3_PORT": "9009", "RAYDIOLOGY_SERVE_PORT": "9009"})


@pytest.mark.parametrize("interface", ["127.0.0.1", "0.0.0.0"])
def test_a_listening_socket_is_seen_and_its_holder_named(interface: str) -> None:
    with socket.create_server((interface, 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        assert str(os.getpid()) in holder(port)
        assert f"port {port}" in str(taken_error("s3", port))
    assert is_free(port)
