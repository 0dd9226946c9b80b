"""What the checks in Python share: the built program, a server of their own, and virtual environments.

Nothing here needs more than Python's own modules; everything that is made lies in the build directory, or in a temporary
one that is removed at the end.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Seconds that a start and a stop may take, on a slow machine with other work.
START = 120
STOP = 120


def fail(message):
    """Ends the check with a message."""
    sys.exit(f"{Path(sys.argv[0]).parent.name}: {message}")


def build():
    """Builds the program as the tests use it; the path of the binary and of the build directory."""
    command = ["cargo", "build", "--locked", "--message-format", "json-render-diagnostics", "--bin", "cellblock"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if built.returncode != 0:
        fail("the program could not be built")
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    binary = next(Path(m["executable"]) for m in messages if m.get("executable"))
    return binary, binary.parents[1]


def pins(requirements):
    """The packages that a requirements file names."""
    lines = (line.partition("#")[0].strip() for line in requirements.read_text().splitlines())
    return [line for line in lines if line]


def venv(target, name, packages):
    """A virtual environment below the build directory with these packages and no others; its `bin` directory. It is made
    anew when the packages, or the interpreter, are other ones."""
    place = target / "venvs" / name
    stamp = place / "stamp"
    wanted = hashlib.sha256(repr((packages, sys.version, sys.executable)).encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(place, ignore_errors=True)
        run = lambda *command: subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: E731
        try:
            run(sys.executable, "-m", "venv", place)
            run(place / "bin" / "pip", "install", "--quiet", "--no-deps", *packages)
            run(place / "bin" / "pip", "check")
        except subprocess.CalledProcessError as error:
            fail(f"the virtual environment {name} could not be made: {error} (Debian: apt-get install python3-venv)")
        stamp.write_text(wanted)
    return place / "bin"


class Server:
    """A server on a free port with a data directory of its own."""

    def __init__(self, binary, options=()):
        self.binary, self.options = binary, options
        self.token = secrets.token_hex(16)
        self.url = None

    def __enter__(self):
        if os.geteuid() != 0:
            fail("run this as root: the server makes cgroups, namespaces and mounts")
        # A signal must not leave the server behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.dir = Path(tempfile.mkdtemp(prefix="cellblock-test-")).resolve()
        self.log = self.dir / "log"
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{address}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CELLBLOCK_")}
        environment["CELLBLOCK_ADMIN_TOKEN"] = self.token
        command = [self.binary, "serve", "--listen", address, "--data-dir", self.dir / "data", *self.options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._await_ready()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def _await_ready(self):
        end = time.monotonic() + START
        while time.monotonic() < end:
            if self.process.poll() is not None:
                fail(f"the server ended:\n{self.log.read_text(errors='replace')}")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/readyz", timeout=5).close()
                return
            time.sleep(0.05)
        fail(f"the server does not answer:\n{self.log.read_text(errors='replace')}")

    def call(self, method, path, body=None):
        """Sends JSON and returns the status and the JSON of the answer."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def __exit__(self, kind, *_):
        self.process.terminate()
        try:
            self.process.wait(STOP)
        except subprocess.TimeoutExpired:
            print("the server ignored SIGTERM; killing it", file=sys.stderr)
            self.process.kill()
            self.process.wait()
        if kind is not None and self.log.exists():
            print(f"--- the end of what the server printed:\n{self.log.read_text(errors='replace')[-4000:]}---", file=sys.stderr)
        # A recursive delete must never walk into a mount.
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        if any(line.split()[4].startswith(f"{self.dir}/") for line in mounts):
            print(f"left {self.dir} behind: something is still mounted in it", file=sys.stderr)
        else:
            shutil.rmtree(self.dir)
