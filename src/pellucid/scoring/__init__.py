"""The question: a model, a batch and targets; the score of masked inputs, and of sets of tokens."""
