"""A device-mapper without a kernel: devices, what is told of them, and stories of what happens."""
