"""What the events tell about each pool; the public names are in the modules."""
