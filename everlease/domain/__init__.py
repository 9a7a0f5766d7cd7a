"""Pure decisions: states, auction, receipts, intervals. Standard library only; nothing here reads a clock."""
