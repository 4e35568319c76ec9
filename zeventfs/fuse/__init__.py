"""The tree on the kernel's FUSE."""
