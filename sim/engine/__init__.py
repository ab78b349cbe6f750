"""Time, network, disks, chain and faults of a simulated world; it knows no protocol."""
