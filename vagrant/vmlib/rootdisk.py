"""The guest's root disk with its kernel, built from packages and kept under the hash of what it is made from."""

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from .host import Failure, apt_options

GUEST = Path(__file__).resolve().parent.parent / "guest"

KERNEL = "linux-image-cloud-amd64"

PACKAGES = [
    "systemd",
    "systemd-sysv",
    "udev",
    "kmod",
    "procps",
    "util-linux",
    "mount",
    "e2fsprogs",
    "iproute2",
    "curl",
    # Commands find the machine's own interpreters, and with a minimal Python few programs of theirs
    # run. libc-bin has ldd, which tests make images with.
    "python3",
    "libc-bin",
]

# Nobody reads manual pages in there.
LEFT_OUT = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"]

DISK_SIZE = "6G"


def recipe(suite, kernel_suite):
    """Everything the disk depends on, as text: another text is another disk."""
    scripts = [path.read_text() for path in sorted(GUEST.glob("*.sh"))]
    return "\n".join([suite, kernel_suite, KERNEL, *PACKAGES, *LEFT_OUT, DISK_SIZE, *scripts, Path(__file__).read_text()])


def get(suite, kernel_suite, cache, mirror):
    """The directory with `root.img`, `vmlinuz`, `initrd` and `release` of this suite with the kernel of another one (or the
    same); built if it is not there.

    `mirror` is a function: a finished disk needs none.
    """
    key = hashlib.sha256(recipe(suite, kernel_suite).encode()).hexdigest()[:16]
    name = suite if kernel_suite == suite else f"{suite}+{kernel_suite}"
    final = cache / f"{name}-{key}"
    if (final / "release").exists():
        print(f"{name}: disk {final.name} is there", flush=True)
        return final
    start = time.monotonic()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="building-") as directory:
        made = Path(directory) / "made"
        made.mkdir()
        root = Path(directory) / "root"
        install(suite, kernel_suite, root, mirror())
        take_kernel(root, made)
        make_disk(root, made / "root.img", DISK_SIZE)
        os.replace(made, final)
    for old in cache.glob(f"{name}-*"):
        if old != final:
            shutil.rmtree(old)
    print(f"{name}: disk {final.name} built in {time.monotonic() - start:.0f} s", flush=True)
    return final


def install(suite, kernel_suite, root, mirror):
    """A minimal Debian in a directory."""
    packages = [f"{KERNEL}/{kernel_suite}", *PACKAGES]
    command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}"]
    command += [f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT]
    command += [f"--aptopt={option}" for option in apt_options()]
    command += [f"--essential-hook={GUEST}/initramfs.sh", f"--customize-hook={GUEST}/configure.sh"]
    command += [suite, str(root)]
    command += [f"deb {mirror} {source} main" for source in dict.fromkeys([suite, kernel_suite])]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if run.returncode != 0:
        raise Failure(f"mmdebstrap {suite} failed:\n{run.stdout[-4000:]}")


def take_kernel(root, made):
    """The kernel and its initial file system, which QEMU loads itself: no boot loader is needed."""
    kernel = sorted((root / "boot").glob("vmlinuz-*"))[-1]
    release = kernel.name.removeprefix("vmlinuz-")
    shutil.copy(kernel, made / "vmlinuz")
    shutil.copy(root / "boot" / f"initrd.img-{release}", made / "initrd")
    (made / "release").write_text(release)


def make_disk(tree, image, size, label="root"):
    """An ext4 image of a directory tree, without a loop mount."""
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-d", str(tree), str(image), size]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        raise Failure(f"mke2fs for {image.name} failed: {run.stderr}")
