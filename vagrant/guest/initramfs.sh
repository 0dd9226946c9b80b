#!/bin/sh
# Before the kernel is installed: its initial file system gets the disk's driver and nothing else, which halves the time
# an emulated machine takes to start.
set -eu
root=$1
mkdir -p "$root/etc/initramfs-tools/conf.d"
printf 'MODULES=list\nCOMPRESS=gzip\nRESUME=none\n' > "$root/etc/initramfs-tools/conf.d/cellblock"
printf 'virtio_pci\nvirtio_blk\next4\n' > "$root/etc/initramfs-tools/modules"
