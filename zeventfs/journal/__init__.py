"""The queue of events: segments of encoded lines, cursors, gaps, retention and recovery."""
