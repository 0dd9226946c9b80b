"""One boot: QEMU with a console and a results port, a time limit, and everything it printed kept."""

import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Boot:
    """How a boot ended."""

    results: list
    console: str
    hung: bool
    seconds: float


def boot(row, disk, carried, accel, work, limit, ending, processors=2, memory=3072):
    """Runs a row's machine until it powers off, `limit` seconds are over or the event `ending` is set. Prints its results
    as they come."""
    console, results = work / f"{row.name}.console", work / f"{row.name}.results"
    for path in (console, results):
        path.write_bytes(b"")
    append = f"console=ttyS0 root=/dev/vda rw panic=-1 quiet systemd.show_status=false mitigations=off {row.append}"
    append += f" cellblock.row={row.name} cellblock.promise={','.join(row.promises)}"
    append += f" cellblock.parts={row.listed_parts()}"
    command = [
        # Not even a killed run leaves a machine behind.
        "setpriv", "--pdeathsig", "KILL",
        # Emulated processors take turns: where each has a thread, one now and then runs a breakpoint that the kernel has
        # set for a moment to change its own code, and has taken back (an oops, "int3").
        "qemu-system-x86_64", "-accel", "kvm" if accel == "kvm" else "tcg,thread=single",
        "-cpu", "host" if accel == "kvm" else "max,la57=off", "-smp", str(processors), "-m", str(memory),
        "-display", "none", "-nodefaults", "-no-reboot", "-nic", "none",
        "-kernel", str(disk / "vmlinuz"), "-initrd", str(disk / "initrd"), "-append", append,
        "-serial", f"file:{console}",
        "-device", "virtio-serial-pci", "-chardev", f"file,id=results,path={results}",
        "-device", "virtserialport,chardev=results,name=results",
        # Writes go to temporary files: both disks stay as they were built.
        "-drive", f"file={disk / 'root.img'},format=raw,if=virtio,snapshot=on",
        "-drive", f"file={carried},format=raw,if=virtio,snapshot=on",
    ]  # fmt: skip
    start = time.monotonic()
    environment = dict(os.environ, TMPDIR=str(work))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
    done = threading.Event()
    follower = threading.Thread(target=follow, args=(results, done, lambda line: print(f"{row.name}| {line}", flush=True)))
    follower.start()
    hung = False
    try:
        # In short waits, for the case that the whole run is to end.
        while process.poll() is None and not ending.wait(0.2):
            if time.monotonic() - start > limit:
                hung = True
                break
    finally:
        process.kill()
        process.wait()
        done.set()
        follower.join()
    lines = results.read_text(errors="replace").splitlines()
    return Boot(lines, console.read_text(errors="replace"), hung, time.monotonic() - start)


def follow(path: Path, done, show):
    """Shows each line that is appended to a file until told to stop."""
    with path.open(errors="replace") as file:
        last, rest = False, ""
        while True:
            *lines, rest = (rest + file.read()).split("\n")
            for line in lines:
                show(line)
            if last:
                return
            last = done.wait(0.5)
