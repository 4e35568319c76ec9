"""The source of tapdisks' events: VBDs that are watched, and those that an agent drives."""
