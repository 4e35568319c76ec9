"""The source of device-mapper events: uevents, and what /dev/mapper/control says of each device."""
