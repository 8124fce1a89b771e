"""The embedded platform's command: `python -m cluster.embedded.platform up | down | status`.

One S3 server, one PostgreSQL, one MLflow server and one Ray head on this machine's loopback, for a laptop or
a demo. A remote cluster needs none of this: it sets the same environment variables (cluster/settings.py).
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence

from cluster.embedded.home import Home, PlatformError
from cluster.embedded.site import Site, read_env
from cluster.embedded.status import beyond_loopback, status
from cluster.embedded.supervisor import down, up

TITLE_WIDTH = 16


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code: 0, or 1 with a line on standard error that says what to do."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster.embedded.platform", description=__doc__, allow_abbrev=False
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="up | down | status")
    up_parser = verbs.add_parser("up", help="start what does not run; safe to repeat")
    policy = up_parser.add_mutually_exclusive_group()
    policy.add_argument(
        "--free-ports",
        dest="policy",
        action="store_const",
        const="free",
        help="replace taken ports by free ones",
    )
    policy.add_argument(
        "--random-ports",
        dest="policy",
        action="store_const",
        const="random",
        help="use no default port at all",
    )
    verbs.add_parser("down", help="end every process; what is stored stays")
    verbs.add_parser("status", help="what runs, where, and the last words of what died")
    parsed = parser.parse_args(arguments)
    os.umask(0o077)
    try:
        home = Home.from_env(os.environ)
        if parsed.verb == "up":
            return _up(home, parsed.policy or "default")
        return _down(home) if parsed.verb == "down" else _status(home)
    except PlatformError as error:
        sys.stderr.write(f"{parsed.verb}: {error}\n")
        return 1
    except BrokenPipeError:  # the reader has closed, as `| head` does; the work is done or can be repeated
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{parsed.verb}: interrupted; `make status` says what runs, `make down` ends it\n")
        return 1


def _up(home: Home, policy: str) -> int:
    started_at = time.monotonic()
    say(f"Starting the platform of {home.path}")
    site = up(home, os.environ, policy=policy, say=say)
    say(f"Ready in {time.monotonic() - started_at:.0f} s. {_where(site)}")
    return 0


def _where(site: Site) -> str:
    return (
        f"Environment: {site.home.env_file}; logs: {site.home.path / 'logs'}; "
        f"Ray's dashboard asks for the token in {site.home.path / 'ray_token'}"
    )


def _down(home: Home) -> int:
    started_at = time.monotonic()
    say(f"Stopping the platform of {home.path}")
    remains = down(home, say)
    if remains.processes:
        raise PlatformError(f"these processes could not be ended: {'; '.join(remains.processes)}")
    if remains.ports:
        say(
            f"No process of the platform is left; still taken by others: port {'; port '.join(remains.ports)}"
        )
    else:
        say(
            f"No process and no port of the platform is left ({time.monotonic() - started_at:.0f} s); data stays"
        )
    return 0


def _status(home: Home) -> int:
    rows = status(home)
    if not rows:
        raise PlatformError(f"there is no platform in {home.path} yet: `make up` starts one")
    say(f"Platform of {home.path}")
    for row in rows:
        pid = f"process {row.pid}" if row.pid is not None else ""
        say(f"  {row.title:<{TITLE_WIDTH}} {row.state:<16} {row.address:<30} {pid}".rstrip())
        for line in row.last_words:
            say(f"      | {line}")
    say(f"  {'Serve API':<{TITLE_WIDTH}} {'':<16} {read_env(home)['RAYDIOLOGY_API_URL']}")
    if open_ports := beyond_loopback(home):
        say(f"  Open beyond loopback (close them in the firewall): {', '.join(map(str, open_ports))}")
    if all(row.state == "up" for row in rows):
        return 0
    say(f"  Logs: {home.path / 'logs'}. `make up` starts what does not run.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
