"""The image, built by buildah on a Debian of our own and run as a container would: process 1, no root, a read-only root."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from machines import debian, needs, run, wheelhouse
from make import body
from processes import ROOT

pytestmark = [needs("buildah", "mmdebstrap", "systemd-nspawn", "nsenter"), pytest.mark.timeout(900)]

VERSION = "3.11"
"""Debian 12's Python."""


class Builder:
    """buildah, with its storage in a folder."""

    def __init__(self, folder):
        self.options = ("--storage-driver", "vfs", "--root", folder / "storage", "--runroot", folder / "run")

    def __call__(self, *arguments):
        return run("buildah", *self.options, *arguments).strip()

    def base(self, name, tree):
        container = self("from", "scratch")
        self("add", "--quiet", container, tree, "/")
        self("commit", "--quiet", container, f"localhost/{name}")
        self("rm", container)
        return f"localhost/{name}"


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return Builder(tmp_path_factory.mktemp("buildah"))


@pytest.fixture(scope="module")
def image(builder, tmp_path_factory):
    """The image as the Dockerfile says, without a network: its packages come from a folder."""
    return built(builder, tmp_path_factory.mktemp("image"), "requirements.txt")


@pytest.fixture(scope="module")
def tracing_image(builder, tmp_path_factory):
    """The one that can send traces."""
    return built(builder, tmp_path_factory.mktemp("tracing"), "requirements-otel.txt")


def built(builder, folder, requirements):
    wheels = wheelhouse(folder / "wheels", VERSION, requirements)
    base = builder.base("base", debian(folder / "base.tar", "bookworm", "python3", "ca-certificates"))
    tools = ("python3", "python3-pip", "python3-venv", "ca-certificates")
    build_base = builder.base("build-base", debian(folder / "build-base.tar", "bookworm", *tools))
    given = {"BASE": base, "BUILD_BASE": build_base, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels", "VERSION": "9.9"}
    given["REQUIREMENTS"], name = requirements, f"localhost/{folder.name}"
    arguments = [part for key, value in given.items() for part in ("--build-arg", f"{key}={value}")]
    builder(
        "bud", "--isolation", "chroot", "--format", "docker", "--pull-never", "-t", name,
        *arguments, "-v", f"{wheels}:/wheels:ro", ROOT,
    )  # fmt: skip
    return name


@pytest.fixture(scope="module")
def tree(builder, image):
    """The files of the image."""
    return Path(builder("mount", builder("from", "--pull-never", image)))


def test_what_the_image_says_of_itself(builder, image):
    config = json.loads(builder("inspect", "--type", "image", image))["Docker"]["config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["env", "--block-signal=TERM", "--block-signal=INT", "triage"]
    assert (config["Cmd"], config["StopSignal"]) == (["run"], "SIGTERM")
    assert config["Healthcheck"]["Test"] == ["CMD", "triage", "health"]
    assert list(config["Volumes"]) == ["/var/lib/triage"]
    assert config["Labels"]["org.opencontainers.image.version"] == "9.9"
    assert not [each for each in config["Env"] if each.startswith("PIP_")], "where it was built is nobody's business"


def test_there_is_nothing_in_it_to_build_or_install_with(tree):
    packages = {each.name for each in next(tree.glob("opt/triage/lib/python3*/site-packages")).iterdir()}
    assert {"triage", "aiohttp"} <= packages
    assert not {"pip", "setuptools", "wheel", "hatchling"} & packages
    assert not [each for each in ("pip", "pip3", "gcc", "cc", "make", "git") if list(tree.glob(f"usr/*bin/{each}"))]
    assert list(tree.glob("wheels/*")) == []
    assert not (tree / "src").exists()
    assert (tree / "var/lib/triage").stat().st_uid == 10001


def test_its_size(builder, image, tree):
    sizes = {"/opt/triage": _size(tree / "opt/triage"), "all": _size(tree)}
    parts = sorted(next(tree.glob("opt/triage/lib/python3*/site-packages")).iterdir(), key=_size, reverse=True)
    print({name: f"{size} MB" for name, size in sizes.items()}, [(each.name, _size(each)) for each in parts[:5]])
    assert sizes["/opt/triage"] < 130, "it has grown: docs/how-to/run-in-a-container.md states its size"


def test_the_image_that_can_send_traces(builder, tracing_image):
    tree = Path(builder("mount", builder("from", "--pull-never", tracing_image)))
    size = _size(tree / "opt/triage")
    print(f"/opt/triage: {size} MB")
    assert size < 140, "it has grown: docs/how-to/run-in-a-container.md states its size"
    loads = "import triage.traces, opentelemetry.sdk.trace, opentelemetry.exporter.otlp.proto.http.trace_exporter"
    run("chroot", "--userspec=10001:10001", tree, "/opt/triage/bin/python", "-c", loads)


def _size(path):
    return int(run("du", "-sm", "--apparent-size", path).split()[0])


class Container:
    """The image at work, as process 1 of its own namespaces."""

    def __init__(self, tree, volume):
        volume.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.listen = f"TRIAGE_WEB__LISTEN=127.0.0.1:{free.getsockname()[1]}"
        os.chown(volume, 10001, 10001)
        self.log = volume.parent / "log"
        command = [
            "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "-D", tree, "--read-only", "--user=triage",
            f"--bind={volume}:/var/lib/triage", "--setenv=TRIAGE_STATE_DIR=/var/lib/triage", "--kill-signal=SIGTERM",
            f"--setenv={self.listen}", "/opt/triage/bin/triage", "run",
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(each) for each in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.first = self.until(self._first)

    def _first(self):
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            if "triage" in Path(f"/proc/{child}/cmdline").read_text():
                return int(child)
        return None

    def until(self, condition, within=60):
        deadline = time.monotonic() + within
        while not (value := condition()):
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        return value

    def triage(self, *arguments):
        """Run a command in it, as `docker exec` does."""
        command = ["nsenter", "-t", str(self.first), "-m", "-p", "-S", "10001", "-G", "10001", "env", "-i"]
        environ = ["HOME=/tmp", "TRIAGE_STATE_DIR=/var/lib/triage", self.listen]
        return run(*command, *environ, "/opt/triage/bin/triage", *arguments)


def test_it_works_as_process_1_without_root_and_stops_on_sigterm(tree, tmp_path):
    container = Container(tree, tmp_path / "volume")
    try:
        container.until(lambda: "running: sources local" in container.log.read_text())
        status = Path(f"/proc/{container.first}/status").read_text()
        assert "NSpid:\t" in status
        assert status.partition("NSpid:")[2].split("\n")[0].split()[-1] == "1"
        assert status.partition("Uid:")[2].split()[0] == "10001"
        assert container.triage("health") == "ok\n"
        (tmp_path / "volume" / "one.json").write_bytes(body("r-1"))
        container.triage("queue", "send", "/var/lib/triage/one.json")
        container.until(lambda: json.loads(container.triage("status", "--json"))["decided"] == 1)
        os.kill(container.first, signal.SIGTERM)
        assert container.process.wait(30) == 0
        assert "stopped" in container.log.read_text()
    finally:
        container.process.kill()
        container.process.wait()
    assert sorted(each.name for each in (tmp_path / "volume").iterdir()) == [
        "one.json",
        "queue.db",
        "queue.db.lock",
        "triage.db",
    ]
