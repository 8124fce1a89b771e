"""PostgreSQL's command, and what its start finds in the data directory."""

import os
from pathlib import Path

from cluster.embedded.postgresql import Postgresql
from cluster.embedded.site import Site


def test_it_listens_on_loopback_alone_without_a_socket(site: Site) -> None:
    command = Postgresql().command(site)
    assert {"listen_addresses=127.0.0.1", "unix_socket_directories=", "port=5432"} <= set(command)


def data(site: Site, pid: str) -> Path:
    folder = site.home.path / "postgresql"
    folder.mkdir()
    (folder / "PG_VERSION").write_text("18")
    (folder / "postmaster.pid").write_text(pid)
    return folder


def test_a_pid_file_of_another_program_is_removed(site: Site) -> None:
    folder = data(site, f"{os.getpid()}\n{site.home.path}\n")
    Postgresql().prepare(site)
    assert sorted(file.name for file in folder.iterdir()) == ["PG_VERSION"]
