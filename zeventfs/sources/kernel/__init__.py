"""The kernel's ZFS events: OpenZFS's /dev/zfs, read with its ioctls."""
