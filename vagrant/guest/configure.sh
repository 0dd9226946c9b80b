#!/bin/sh
# Turns a freshly installed Debian root into one that boots, runs the suite and powers off. Run on the host by
# mmdebstrap's hook, with the root directory as its argument. Part of the recipe: a change here builds new disks.
set -eu
root=$1

# Nothing here needs a login, a clock from the network or nightly jobs; each of them costs seconds under emulation.
for unit in getty@tty1.service getty-static.service serial-getty@ttyS0.service systemd-timesyncd.service \
    systemd-networkd.service systemd-resolved.service systemd-homed.service systemd-userdbd.socket \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    systemd-journal-flush.service systemd-random-seed.service systemd-hwdb-update.service ldconfig.service \
    systemd-pcrmachine.service systemd-firstboot.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

echo cellblock-vm > "$root/etc/hostname"
printf '127.0.0.1 localhost cellblock-vm\n' > "$root/etc/hosts"
printf '/dev/vda / ext4 defaults,noatime 0 0\nLABEL=carried /carried ext4 defaults,noatime 0 0\n' > "$root/etc/fstab"
mkdir -p "$root/carried"
# A settled machine id: otherwise systemd treats every boot as the first one and presets all units.
echo 5ce1b10c0000000000000000000000ce > "$root/etc/machine-id"

# The suite is a delegated service, as the packaged one is: its processes may make groups below their own.
cat > "$root/etc/systemd/system/cellblock-suite.service" << 'UNIT'
[Unit]
Description=The suite, carried in on the second disk
RequiresMountsFor=/carried
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
Delegate=yes
OOMPolicy=continue
TasksMax=infinity
TimeoutStartSec=infinity
Environment=HOME=/root TMPDIR=/var/tmp
ExecStart=/bin/bash /carried/run
# A port of its own: the console has the kernel's and systemd's lines in between.
StandardOutput=file:/dev/vport0p1
StandardError=inherit

[Install]
WantedBy=graphical.target
UNIT
mkdir -p "$root/etc/systemd/system/graphical.target.wants"
ln -sf ../cellblock-suite.service "$root/etc/systemd/system/graphical.target.wants/cellblock-suite.service"
ln -sf /lib/systemd/system/graphical.target "$root/etc/systemd/system/default.target"

# Written by us for the build only; it may hold a proxy's name.
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/apt/sources.list"
