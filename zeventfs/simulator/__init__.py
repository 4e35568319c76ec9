"""Devices that stand in for the real ones, at the device's own boundary."""
