"""VBDs: the states of virtual block devices and of the tapdisks behind them, and their images."""
