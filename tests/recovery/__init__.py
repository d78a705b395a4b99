"""What survives: crashes as data on a bus in memory, and faults of disk, clock and store."""
