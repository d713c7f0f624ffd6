"""What methods of two families or more share: importance, paired batches, membership inference, pruning masks."""
