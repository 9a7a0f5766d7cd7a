"""What `everlease provider install` makes of a Debian or Ubuntu machine with systemd, and how it is undone."""
