"""Device-mapper devices: what the kernel tells of them as facts, and what happened to them."""
