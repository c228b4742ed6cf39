"""What every room shares: types, budgets, the judge, randomness and the two engines."""
