"""`everlease`: the command line for tenants, providers, the explorer, the block store and a local market."""
