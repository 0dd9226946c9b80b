"""Everything that one release of runta-sdk offers, once, against the server that the environment names.

Runs in that release's virtual environment; `run` starts it. Prints one line of JSON per operation: its name, `ok`, `failed`
or `not offered`, and what went wrong. Operations build on each other in the order in which they stand here.
"""

import asyncio
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

import runta

RELEASE = tuple(int(part) for part in sys.argv[1].split("."))
OPERATIONS = []

# Small, since several exist at the same time, and in the words of each release.
if RELEASE < (0, 1):
    SIZE = {"vcpus": 1, "cur_memory_mib": 128}
else:
    SIZE = {"vcpus": 1, "memory_mib": 128}


def operation(name, since=(0,), until=(9,)):
    """An operation that the releases from `since` to before `until` offer."""

    def add(function):
        OPERATIONS.append((name, since <= RELEASE < until, function))
        return function

    return add


def same(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"


def refused(status, code, call, *args, **named):
    """Checks that a call fails with the client's own exception, which has the server's status and code."""
    try:
        result = call(*args, **named)
    except runta.ApiError as error:
        same((error.status_code, error.code), (status, code))
        return error
    raise AssertionError(f"{result!r} instead of {status}")


class World:
    """What the operations share."""

    def __init__(self, client, directory):
        self.client, self.directory = client, directory
        self.name = f"client-{'-'.join(map(str, RELEASE))}"
        self.runtime = None
        self.checkpoint = None
        self.made = []

    def create(self, suffix="", **options):
        runtime = self.client.runtimes.create(f"{self.name}{suffix}", **{**SIZE, **options})
        self.made.append(runtime)
        return runtime

    def status(self):
        return self.runtime.status().value


def stop(runtime):
    (runtime.shutdown if RELEASE >= (0, 1, 21) else runtime.stop)()


def start(runtime):
    (runtime.boot if RELEASE >= (0, 1, 21) else runtime.start)()


@operation("health")
def health(world):
    assert world.client.health()


@operation("create")
def create(world):
    world.runtime = world.create()
    same(world.runtime.name, world.name)
    same(world.runtime.exec(["true"]).exit_code, 0)
    same(world.status(), "running")


@operation("create without waiting", since=(0, 1, 4))
def create_without_waiting(world):
    runtime = world.create("-nowait", wait=False)
    same(runtime.wait_until_ready().status.value, "running")
    runtime.delete()


@operation("create with a structure of resources", since=(0, 1))
def create_with_resources(world):
    resources = runta.CreateRuntimeResources(
        requests=runta.CreateRuntimeResourceRequests(memory_mib=64, vcpus=1),
        limits=runta.RuntimeResourceLimits(memory_mib=96),
    )
    runtime = world.create("-sized", resources=resources, memory_mib=1024)
    info = world.client.runtimes.get(runtime.id)
    info = info.info if RELEASE < (0, 1, 4) else info.cached_info
    same(info.resources.requests.memory_mib, 64)
    same(info.resources.limits.memory_mib, 96)
    runtime.delete()


@operation("create with policies")
def create_with_policies(world):
    policy = runta.EgressPolicy(allowed_hosts=["example.org"])
    ingress = [runta.IngressSpec(protocol="http", runtime_port=8000)]
    runtime = world.create("-policies", egress_policy=policy, ingress_specs=ingress, idle_suspend_after_secs=600)
    same(runtime.status().value, "running")
    runtime.delete()


@operation("list")
def list_all(world):
    assert world.runtime.id in [runtime.id for runtime in world.client.runtimes.list()]


@operation("list by status")
def list_by_status(world):
    ids = lambda status: [runtime.id for runtime in world.client.runtimes.list(status=status)]  # noqa: E731
    assert world.runtime.id in ids("running")
    assert world.runtime.id in ids(["running", "paused"])
    assert world.runtime.id not in ids("shutdown")


@operation("get by id and by name")
def get(world):
    same(world.client.runtimes.get(world.runtime.id).name, world.name)
    same(world.client.runtimes.get(world.name).id, world.runtime.id)


@operation("exec: string")
def exec_string(world):
    result = world.runtime.exec("echo hello | tr a-z A-Z; echo oops >&2")
    same((result.exit_code, result.stdout_text, result.stderr_text), (0, "HELLO\n", "oops\n"))
    assert result.duration > 0


@operation("exec: argv")
def exec_argv(world):
    result = world.runtime.exec(["printf", "%s|", "a b", "$HOME", ""])
    same((result.exit_code, result.stdout), (0, b"a b|$HOME||"))


@operation("exec: env")
def exec_env(world):
    result = world.runtime.exec("echo $GREETING", env={"GREETING": "good day"})
    same(result.stdout_text, "good day\n")


@operation("exec: cwd")
def exec_cwd(world):
    same(world.runtime.exec("pwd", cwd="/tmp").stdout_text, "/tmp\n")
    same(world.runtime.exec(["pwd"], cwd="/usr/bin").stdout_text, "/usr/bin\n")


@operation("exec: stdin")
def exec_stdin(world):
    same(world.runtime.exec(["cat"], stdin="zwölf\n").stdout_text, "zwölf\n")
    same(world.runtime.exec(["wc", "-c"], stdin=b"12345").stdout_text.strip(), "5")


@operation("exec: stdin with NUL")
def exec_stdin_nul(world):
    same(world.runtime.exec(["wc", "-c"], stdin=b"\0a\0").stdout_text.strip(), "3")


@operation("exec: timeout")
def exec_timeout(world):
    result = world.runtime.exec("echo before; sleep 60", timeout=1.9)
    same(result.exit_code, 124)
    same(result.stdout_text, "before\n")


@operation("exec: exit code")
def exec_exit_code(world):
    same(world.runtime.exec("exit 7").exit_code, 7)
    same(world.runtime.exec(["no-such-command"]).exit_code, 127)
    same(world.runtime.exec("kill -9 $$").exit_code, 137)


@operation("exec: cap on output")
def exec_cap(world):
    result = world.runtime.exec("head -c 100000 /dev/zero | tr '\\0' x; echo -n ok >&2", max_output_bytes=1000)
    same((len(result.stdout), result.stdout_truncated), (1000, True))
    same((result.stderr, result.stderr_truncated), (b"ok", False))


@operation("exec: longer than the client waits")
def exec_long(world):
    # The client gives up after 30 seconds of silence.
    same(world.runtime.exec("sleep 32; echo done").stdout_text, "done\n")


@operation("exec: in the background")
def exec_detached(world):
    future = world.runtime.exec_detached("sleep 0.3; echo done")
    same(world.runtime.exec(["echo", "meanwhile"]).stdout_text, "meanwhile\n")
    same(future.result(timeout=60).stdout_text, "done\n")


@operation("exec: in a session", until=(0, 1, 21))
def exec_session(world):
    session = world.runtime.sessions.create()
    same(session.exec("echo hello").stdout_text, "hello\n")
    session.kill()


@operation("files: write and read")
def files_write_read(world):
    files, content = world.runtime.files, bytes(range(256)) * 1000
    files.write("/root/new folder/data", content)
    same(files.read("/root/new folder/data"), content)
    same(files.read("/root/new folder/data", max_bytes=3), content[:3])
    files.write("relative.txt", "text\n")
    same(world.runtime.exec(["cat", "/root/relative.txt"]).stdout_text, "text\n")
    files.write("/root/empty", b"")
    same(files.read("/root/empty"), b"")


@operation("files: write an executable")
def files_executable(world):
    world.runtime.files.write("/root/run.sh", "#!/bin/sh\necho ran\n", executable=True)
    same(world.runtime.exec(["/root/run.sh"]).stdout_text, "ran\n")


@operation("files: upload a file")
def files_upload(world):
    source = world.directory / "up.bin"
    content = os.urandom(700_000)
    source.write_bytes(content)
    world.runtime.files.upload(str(source), "/root/in/")
    same(world.runtime.files.read("/root/in/up.bin"), content)
    world.runtime.files.upload(str(source), "/root/in/other")
    same(world.runtime.files.read("/root/in/other"), content)


@operation("files: upload a folder")
def files_upload_folder(world):
    folder = world.directory / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "a.txt").write_text("a\n")
    (folder / "below" / "b.txt").write_text("b\n" * 1000)
    world.runtime.files.upload(str(folder), "/root/folder")
    found = world.runtime.exec("cd /root/folder && find . -type f | sort && cat a.txt").stdout_text
    same(found, "./a.txt\n./below/b.txt\na\n")


@operation("files: download a file")
def files_download(world):
    content = os.urandom(300_000)
    world.runtime.files.write("/root/down.bin", content)
    world.runtime.files.download("/root/down.bin", str(world.directory / "copy"))
    same((world.directory / "copy").read_bytes(), content)
    world.runtime.files.download("/root/down.bin", f"{world.directory}/into/")
    same((world.directory / "into" / "down.bin").read_bytes(), content)


@operation("files: download a folder", since=(0, 1, 21))
def files_download_folder(world):
    made = world.runtime.exec("mkdir -p /root/tree/below && echo a >/root/tree/a && echo b >/root/tree/below/b")
    same(made.exit_code, 0)
    world.runtime.files.download("/root/tree", f"{world.directory}/trees/")
    same((world.directory / "trees" / "tree" / "below" / "b").read_text(), "b\n")


@operation("pause")
def pause(world):
    world.runtime.pause()
    same(world.status(), "paused")


@operation("exec while paused: 409")
def exec_paused(world):
    error = refused(409, "failed_precondition", world.runtime.exec, ["true"])
    assert "not running" in str(error) and "paused" in str(error), error


@operation("resume")
def resume(world):
    world.runtime.resume()
    same(world.status(), "running")
    same(world.runtime.exec(["true"]).exit_code, 0)


@operation("stop and start")
def stop_and_start(world):
    world.runtime.exec("echo kept > /root/kept")
    stop(world.runtime)
    same(world.status(), "shutdown")
    refused(409, "failed_precondition", world.runtime.exec, ["true"])
    assert world.runtime.id in [runtime.id for runtime in world.client.runtimes.list(status="shutdown")]
    start(world.runtime)
    same(world.runtime.exec(["cat", "/root/kept"]).stdout_text, "kept\n")


@operation("checkpoint")
def checkpoint(world):
    world.runtime.exec("echo before > /root/state")
    world.checkpoint = world.runtime.checkpoints.create(name=f"{world.name}-saved")
    same(world.checkpoint.state.value, "ready")
    world.runtime.exec("echo after > /root/state")


@operation("list and get checkpoints")
def checkpoints(world):
    assert world.checkpoint.id in [item.id for item in world.client.checkpoints.list()]
    assert world.checkpoint.id in [item.id for item in world.runtime.checkpoints.list()]
    same(world.client.checkpoints.get(world.checkpoint.id).display_name, f"{world.name}-saved")


@operation("restore")
def restore(world):
    runtime = world.runtime.restore(world.checkpoint.id, name=f"{world.name}-restored", **SIZE)
    world.made.append(runtime)
    same(runtime.exec(["cat", "/root/state"]).stdout_text, "before\n")
    same(world.runtime.exec(["cat", "/root/state"]).stdout_text, "after\n")
    runtime.delete()


@operation("delete a checkpoint")
def delete_checkpoint(world):
    world.runtime.checkpoints.delete(world.checkpoint.id)
    assert world.checkpoint.id not in [item.id for item in world.client.checkpoints.list()]


@operation("patch: memory")
def patch_memory(world):
    world.runtime.resize_memory(192)
    runtime = world.client.runtimes.get(world.runtime.id)
    if RELEASE < (0, 1):
        same((runtime.info.cur_memory_mib, runtime.info.max_memory_mib), (192, 192))
    else:
        info = runtime.info if RELEASE < (0, 1, 4) else runtime.cached_info
        same((info.resources.requests.memory_mib, info.resources.limits.memory_mib), (192, 192))


@operation("patch: structure of resources", since=(0, 1))
def patch_resources(world):
    limits = runta.RuntimeResourceLimits(memory_mib=256)
    info = world.runtime.update_resources(runta.PatchRuntimeResources(limits=limits))
    same((info.resources.requests.memory_mib, info.resources.limits.memory_mib), (192, 256))


@operation("patch: egress policy")
def patch_egress(world):
    policy = runta.EgressPolicy(allowed_hosts=["a.example", "b.example"])
    egress = world.runtime.egress
    changed = egress.set_policy(policy)
    info = changed.info if RELEASE < (0, 1) else changed
    same(sorted(info.egress_policy.allowed_hosts), ["a.example", "b.example"])


@operation("error: unauthenticated, 401")
def error_unauthenticated(world):
    with runta.Runta(token="0" * 32) as stranger:
        refused(401, "unauthenticated", stranger.runtimes.list)


@operation("error: not found, 404")
def error_not_found(world):
    refused(404, "not_found", world.client.runtimes.get, "no-such-runtime")
    refused(404, "not_found", world.runtime.files.read, "/root/no-such-file")
    refused(404, "not_found", world.client.checkpoints.get, "00000000-0000-7000-8000-000000000000")


@operation("error: already exists, 409")
def error_exists(world):
    refused(409, "already_exists", world.client.runtimes.create, world.name, **SIZE)


@operation("error: invalid argument, 422")
def error_invalid(world):
    error = refused(422, "invalid_argument", world.runtime.exec, ["true"], env={"1A": "x"})
    assert "env" in str(error), error
    refused(422, "invalid_argument", world.client.runtimes.create, "-", **SIZE)
    refused(422, "invalid_argument", world.runtime.files.read, "/root")


@operation("error: command failed")
def error_command(world):
    world.runtime.exec("echo > /root/occupied")
    source = world.directory / "occupied"
    source.mkdir()
    (source / "x").write_text("x")
    try:
        world.runtime.files.upload(str(source), "/root/occupied")
    except runta.CommandError as error:
        assert error.exit_code, error
    else:
        raise AssertionError("a folder took the place of a file")


@operation("secrets: not supported, 501")
def secrets(world):
    # 0.1.21 and the others differ in what they call the operation.
    refused(501, "unimplemented", world.client.secrets.list)


@operation("async: create, exec, files, delete")
def asynchronous(world):
    async def all_of_it():
        client = runta.AsyncRunta()
        runtime = await client.runtimes.create(f"{world.name}-async", **SIZE)
        try:
            result = await runtime.exec("cat; exit 3", stdin="hello", env={"A": "b"})
            same((result.exit_code, result.stdout), (3, b"hello"))
            result = await runtime.exec(["sh", "-c", "echo $A"], env={"A": "b c"})
            same(result.stdout_text, "b c\n")
            await runtime.files.write("/root/x", b"\0\xff")
            same(await runtime.files.read("/root/x"), b"\0\xff")
            several = await asyncio.gather(*(runtime.exec(["echo", str(n)]) for n in range(4)))
            same([one.stdout_text for one in several], ["0\n", "1\n", "2\n", "3\n"])
        finally:
            await runtime.delete()
            await client.close()

    asyncio.run(all_of_it())


@operation("async: upload and download", since=(0, 1, 21))
def asynchronous_files(world):
    async def all_of_it():
        async with runta.AsyncRunta() as client:
            runtime = await client.runtimes.get(world.runtime.id)
            source = world.directory / "async.bin"
            source.write_bytes(os.urandom(600_000))
            await runtime.files.upload(str(source), "/root/async/")
            await runtime.files.download("/root/async/async.bin", str(world.directory / "async.copy"))
            same((world.directory / "async.copy").read_bytes(), source.read_bytes())

    asyncio.run(all_of_it())


@operation("delete")
def delete(world):
    world.runtime.delete()
    refused(404, "not_found", world.client.runtimes.get, world.runtime.id)
    assert world.runtime.id not in [runtime.id for runtime in world.client.runtimes.list()]


def attempt(function, world):
    """The result and what went wrong."""
    try:
        function(world)
    except Exception as error:  # whatever the client raises is what its user would see
        frame = traceback.extract_tb(error.__traceback__)[1]
        return "failed", f"{type(error).__name__}: {error} (exercise.py:{frame.lineno})"
    return "ok", None


def main():
    with runta.Runta() as client, tempfile.TemporaryDirectory() as directory:
        world = World(client, Path(directory))
        for name, offered, function in OPERATIONS:
            result = attempt(function, world) if offered else ("not offered", None)
            print(json.dumps([name, *result]), flush=True)
        for runtime in world.made:
            try:
                runtime.delete()
            except runta.ApiError as error:
                # Most were deleted by the operation that made them.
                if error.status_code != 404:
                    raise


main()
