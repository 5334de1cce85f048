"""A wheel built from the repository works in another environment, from another folder."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[1]
DEPENDENCIES = Path(pytest.__file__).parents[1]
"""The site-packages folder that the tests run with."""


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONWARNINGS": "", "PYTHONPATH": ""},
    )
    assert done.returncode in (0, 1), done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without network use by the installed build backend."""
    folder = tmp_path_factory.mktemp("wheel")
    program = f"import hatchling.build as b; print(b.build_wheel({str(folder)!r}))"
    run(sys.executable, "-c", program, folder=ROOT)
    [built] = folder.glob("advisor-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with the wheel, and the dependencies of this one."""
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    venv.create(folder, with_pip=False)
    [packages] = (folder / "lib").glob("python3.*/site-packages")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    run(*pip, "--target", packages, wheel, folder=folder)
    # Behind the wheel on the path, and without this checkout's own editable install.
    (packages / "dependencies.pth").write_text(
        f"import sys; sys.path.append({str(DEPENDENCIES)!r})"
    )
    return folder / "bin"


def test_the_wheel_carries_what_it_needs(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    bundle = {name.removeprefix("advisor/bundle/") for name in names if "/bundle/" in name}

    assert {"app.py", ".streamlit/config.toml", "profiles/assumptions.yaml"} <= bundle
    assert "profiles/tasks/intent-classification.yaml" in bundle
    assert any(name.startswith("calibration/fits/") for name in bundle)
    assert any(name.endswith(".dist-info/licenses/NOTICE") for name in names)
    assert not any(name.startswith("tests/") or "__pycache__" in name for name in names)


def test_the_installed_package_is_the_wheels(installed: Path, tmp_path: Path) -> None:
    program = "import advisor.catalog.locations as l; print(l.DATA_ROOT); print(l.APP.is_file())"
    where, app = run(installed / "python", "-c", program, folder=tmp_path).stdout.split()

    assert Path(where) == next(installed.parent.glob("lib/*/site-packages")) / "advisor" / "bundle"
    assert app == "True"


def test_it_recommends_from_another_folder(installed: Path, tmp_path: Path) -> None:
    command = (
        installed / "python",
        "-m",
        "advisor",
        "recommend",
        "intent-classification",
        "--json",
    )
    found = json.loads(run(*command, folder=tmp_path).stdout)

    assert found["task"] == "Intent classification"
    assert found["status"] in ("proven", "conditional")
    assert list(tmp_path.iterdir()) == []


def test_it_simulates_a_users_own_profile(installed: Path, tmp_path: Path) -> None:
    own = (ROOT / "profiles" / "tasks" / "batch-tagging.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(own.replace("name: ", "name: My own "), encoding="utf-8")
    deployment = ("--model", "Qwen3-8B", "--accelerator", "H100-SXM", "--replicas", "8")
    command = (installed / "python", "-m", "advisor", "simulate", "mine.yaml", *deployment)
    found = json.loads(run(*command, "--json", folder=tmp_path).stdout)

    assert found["task"].startswith("My own ")
    assert found["tiers"]["slm"]["calibration"] in ("measured", "calibrated")


@pytest.fixture
def app_port(installed: Path, tmp_path: Path) -> Iterator[int]:
    """The installed app, started from another folder on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [installed / "python", "-m", "advisor", "app", "--port", str(port)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 60
            while status(port, "/_stcore/health") != 200:
                assert server.poll() is None, "the app ended"
                assert time.monotonic() < deadline, "the app did not start"
                time.sleep(0.2)
            yield port
        finally:
            server.terminate()


def status(port: int, path: str, headers: Mapping[str, str] | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        return connection.getresponse().status
    except ConnectionRefusedError:
        return 0
    finally:
        connection.close()


def test_the_app_answers_this_machine_under_its_own_name_only(app_port: int) -> None:
    def socket_to(host: str) -> int:
        handshake = {
            "Host": host,
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        return status(app_port, "/_stcore/stream", handshake)

    assert status(app_port, "/") == 200
    assert socket_to(f"127.0.0.1:{app_port}") == 101
    assert socket_to("rebound.example") == 403
