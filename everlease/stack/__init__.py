"""The local stack: what `everlease up` starts on one machine, and how every bit of it is stopped again."""
