"""Tapdisk's control protocol, and who asks by it."""
