"""The suite as a second disk: what cargo built on the host, at the paths it was built at.

Test programs know absolute paths (the server's binary, the checkout), so the guest binds those paths to the copies.
"""

import json
import shutil
import subprocess
from pathlib import Path

from .host import Failure
from .rootdisk import make_disk

CHECKOUT = Path(__file__).resolve().parent.parent.parent


def build(bench):
    """Builds everything that the tests run, or the benchmark. Gives the target directory and the programs by name, tests
    first."""
    what = ["bench", "--bench", "speed"] if bench else ["test"]
    command = ["cargo", *what, "--no-run", "--locked", "--message-format=json"]
    run = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        raise Failure("cargo could not build them")
    tests, others = [], []
    for line in run.stdout.splitlines():
        message = json.loads(line)
        if message.get("reason") != "compiler-artifact" or not message.get("executable"):
            continue
        path, target = Path(message["executable"]), message["target"]
        if message["profile"]["test"]:
            kind = "" if target["kind"] in (["test"], ["bench"]) else f"-{target['kind'][0]}"
            tests.append((target["name"] + kind, path))
        else:
            others.append(path)
    if not tests or not any(path.name == "cellblock" for path in others):
        raise Failure("cargo named no test programs")
    binary = next(path for path in others if path.name == "cellblock")
    return binary.parent.parent, sorted(tests), others


def make_image(work, built, selected, bench, rows_environment):
    """Writes `carried.img` into `work` and gives its path. `bench`: which rows of the benchmark are run instead of tests."""
    target, tests, others = built
    server = next(path for path in others if path.name == "cellblock")
    tree = work / "carried"
    tree.mkdir()
    sources, programs = tree / "checkout", tree / "target"
    copy_checkout(sources)
    for path in [path for _, path in tests] + others:
        copy = programs / path.relative_to(target)
        copy.parent.mkdir(parents=True, exist_ok=True)
        # Debug information is nine tenths of a test program.
        subprocess.run(["strip", "--strip-debug", "-o", str(copy), str(path)], check=True)
    (programs / "tmp").mkdir()
    names = [f"{name} {path}" for name, path in tests if not selected or name in selected]
    if not names:
        raise Failure(f"no such test program; there are: {' '.join(name for name, _ in tests)}")
    (tree / "tests").write_text("\n".join(names) + "\n")
    suite = f"vagrant/test.sh --name \"$row\" --promise \"$promise\" --tests /carried/tests --server '{server}' --parts \"$parts\""
    if bench is not None:
        suite = f"vagrant/bench.sh --name \"$row\" '{tests[0][1]}' --only '{bench}'"
    (tree / "run").write_text(run_script(target, rows_environment, suite))
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    image = work / "carried.img"
    make_disk(tree, image, f"{size // 2**20 + 256}M", label="carried")
    shutil.rmtree(tree)
    return image


def copy_checkout(to):
    """The files git knows, changed or not, and those it would take: some tests read the sources."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    if listed.returncode != 0:
        raise Failure(f"git ls-files: {listed.stderr.strip()}")
    for name in filter(None, listed.stdout.split("\0")):
        source = CHECKOUT / name
        if source.is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, to / name)


def run_script(target, environment, suite):
    """What the guest's service runs: the paths as they are on the host, then the suite."""
    binds = "\n".join(
        f"mkdir -p '{path}' && mount --bind /carried/{name} '{path}'"
        for name, path in (("checkout", CHECKOUT), ("target", target))
    )
    passed = "\n".join(f"export {name}='{value}'" for name, value in environment.items())
    return f"""set -eu
{binds}
{passed}
# This machine lives for this run: tests may set its clock. What cleans up by age must not take files for old meanwhile.
export CELLBLOCK_TEST_MAY_SET_CLOCK=$(cat /proc/sys/kernel/random/boot_id)
systemctl stop systemd-tmpfiles-clean.timer || true
row=$(sed -n 's/.*cellblock\\.row=\\([^ ]*\\).*/\\1/p' /proc/cmdline)
promise=$(sed -n 's/.*cellblock\\.promise=\\([^ ]*\\).*/\\1/p' /proc/cmdline)
parts=$(sed -n 's/.*cellblock\\.parts=\\([^ ]*\\).*/\\1/p' /proc/cmdline)
cd '{CHECKOUT}'
exec {suite}
"""
