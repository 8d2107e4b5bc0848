"""Our figures beside their targets. `make bench` prints them; nothing here is a test, since timings depend on the machine."""
