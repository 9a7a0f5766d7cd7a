"""The demonstration: a training job over hosts that are killed, cut off and drained, and a report of what it cost."""
