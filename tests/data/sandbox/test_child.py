"""What a decoding child process may not do: files, sockets, secrets, descriptors."""

import os
from pathlib import Path

import pytest

from data.imaging.preprocess import BadImageError
from data.sandbox.decoder import Decoder


@pytest.mark.parametrize("file", [b"open", b"connect", b"write"])
def test_the_child_can_open_no_file_and_no_socket(hostile: Decoder, file: bytes) -> None:
    with pytest.raises(BadImageError, match="OSError") as caught:
        hostile.decode(file)
    assert caught.value.reason == "crash"


@pytest.mark.skipif(os.geteuid() != 0, reason="only a child of root changes its user")
@pytest.mark.parametrize("file", [b"fork", b"parent"])
def test_the_child_of_root_is_nobody(hostile: Decoder, file: bytes) -> None:
    with pytest.raises(BadImageError, match=r"BlockingIOError|PermissionError"):
        hostile.decode(file)


def test_the_child_has_no_secret_no_descriptor_and_no_core_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret-of-the-platform")
    with (tmp_path / "open").open("wb") as inherited, Decoder() as decoder:
        os.set_inheritable(inherited.fileno(), True)
        (pid,) = decoder.pids()
        process = Path("/proc", str(pid))
        environment = (process / "environ").read_bytes()
        assert b"s3cret" not in environment + (process / "cmdline").read_bytes()
        assert "PATH" not in {entry.partition(b"=")[0].decode() for entry in environment.split(b"\0")}
        assert len(list((process / "fd").iterdir())) == 5
        limits = (process / "limits").read_text()
    for line in ("Max core file size        0", "Max file size             0", "Max open files            5"):
        assert line in limits
