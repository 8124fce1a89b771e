"""What the platform makes of the configuration that Ray Serve writes for HAProxy."""

import subprocess
from pathlib import Path

from cluster.embedded.ray_head import HAPROXY_ON_LOOPBACK, PLAIN_ID, UNWATCHED

WRITTEN = """\
    timeout client 3600s
frontend http_frontend
    bind 0.0.0.0:8000
frontend stats
    bind *:8404
"""


def test_the_caller_s_own_word_on_watching_is_replaced_by_ours(tmp_path: Path) -> None:
    assert UNWATCHED == "x-request-disconnect-disabled"
    lines = _edited(tmp_path)
    begins = lines.index("frontend http_frontend")
    assert lines[begins + 2 : begins + 4] == [
        f"http-request del-header {UNWATCHED}",
        f"http-request set-header {UNWATCHED} ?1 if {{ path /v1/predictions }}",
    ]


def test_statistics_stay_on_loopback_and_a_silent_caller_is_waited_for_a_minute(tmp_path: Path) -> None:
    lines = _edited(tmp_path)
    assert "bind 127.0.0.1:8404" in lines
    assert "timeout client 60s" in lines


def _edited(folder: Path) -> list[str]:
    wrapper, configuration = folder / "haproxy", folder / "haproxy.cfg"
    wrapper.write_text(HAPROXY_ON_LOOPBACK.format(haproxy="/bin/true", id=PLAIN_ID, unwatched=UNWATCHED))
    wrapper.chmod(0o700)
    configuration.write_text(WRITTEN)
    subprocess.run([str(wrapper), "-f", str(configuration)], check=True)
    return [line.strip() for line in configuration.read_text().splitlines()]
