"""What the host must offer: programs, a Debian mirror, and an accelerator that really runs guests."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path


class Failure(Exception):
    """Ends the run with its text."""


# Program, and the Debian package that has it.
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "apt-get": "apt",
    "strip": "binutils",
    "cargo": "rustup (or see rustup.rs)",
}


def check_programs():
    """Names every package to install, not only the first."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    if missing:
        raise Failure(f"missing programs; install: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        raise Failure("run this as root: the guest's files belong to several users")


def mirror():
    """Where this host's own apt gets Debian from."""
    fields = "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)"
    command = ["apt-get", "indextargets", "--format", fields, "Identifier: Packages"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for line in lines:
        origin, label, component, uri = line.split("|")
        if (origin, label, component) == ("Debian", "Debian", "main"):
            return uri
    raise Failure(
        "apt knows no Debian archive here: run `apt-get update`, or on another distribution give --mirror URL"
    )


def apt_options():
    """How this host's apt reaches its mirrors (proxies, timeouts), for the guest's installation."""
    dump = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True)
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
    return [line.rstrip(";") for line in dump.stdout.splitlines() if line.startswith(wanted) and '""' not in line]


PROBE_SECONDS = 10


def accelerator(kernel):
    """`kvm` if a guest gets as far as panicking for want of a disk within seconds, else `tcg`.

    That /dev/kvm opens says little: inside some virtual machines guests then hang at their first instructions.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "no access to /dev/kvm"
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "console"
        command = [
            "qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", "512", "-display", "none", "-nodefaults",
            "-no-reboot", "-serial", f"file:{log}", "-kernel", str(kernel),
            "-append", "console=ttyS0 panic=-1",
        ]
        try:
            run = subprocess.run(command, timeout=PROBE_SECONDS, capture_output=True, text=True)
        except subprocess.TimeoutExpired:
            return "tcg", f"/dev/kvm opens, but a guest did nothing for {PROBE_SECONDS} s"
        text = log.read_text(errors="replace") if log.exists() else ""
        if "Kernel panic - not syncing: VFS" in text:
            return "kvm", "a probe guest ran"
        said = run.stderr.strip().splitlines() or ["no output"]
        return "tcg", f"/dev/kvm opens, but a probe guest failed: {said[0]}"
