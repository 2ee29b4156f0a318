"""RuleTable for the backward pass: one small value each, with the formula it stands for."""
