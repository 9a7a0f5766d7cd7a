"""What is put into every image beside its packages. An image is rebuilt when this file changes."""

KERNEL_ARGUMENTS = "root=/dev/vda rw console=ttyS0 mitigations=off net.ifnames=0 quiet systemd.show_status=0"
"""Speculation's mitigations are off: they cost an emulated processor time and protect nothing here."""

MIRROR = "http://10.0.2.2:{port}"
"""The machine as QEMU's user network shows it to a guest."""

FILES = {
    "etc/hostname": "host\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 host\n::1 localhost\n",
    "etc/fstab": "/dev/vda / ext4 rw,errors=remount-ro 0 0\n",
    "etc/systemd/network/10-eth0.network": (
        "[Match]\nName=eth0\n\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nDNS=10.0.2.3\nIPv6AcceptRA=no\n"
        "LinkLocalAddressing=ipv6\n"
    ),
    # The bench's own way in, which stays when a scenario pulls the cable of eth0; nothing else is reached through it.
    "etc/systemd/network/20-eth1.network": "[Match]\nName=eth1\n\n[Network]\nAddress=10.0.9.15/24\nIPv6AcceptRA=no\n",
    "etc/ssh/sshd_config.d/bench.conf": "PermitRootLogin prohibit-password\nUseDNS no\nGSSAPIAuthentication no\n",
    "etc/systemd/journald.conf.d/bench.conf": "[Journal]\nStorage=persistent\nSystemMaxUse=200M\n",
    "etc/modules-load.d/bench.conf": "overlay\nbr_netfilter\n",
}
"""Path in the guest → text."""

UNITS_OFF = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "logrotate.timer",
    "man-db.timer",
    "systemd-networkd-wait-online.service",
    "systemd-timesyncd.service",
)
"""What would only take an emulated processor's time, and the clock's keeper: a scenario steps the clock by itself."""
