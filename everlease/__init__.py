"""What the four services share: domain, chain, store, db, wire, settings and the command line."""

__version__ = "0.1.0"
