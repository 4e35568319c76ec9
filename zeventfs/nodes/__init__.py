"""The tree: what each file means, without FUSE."""
