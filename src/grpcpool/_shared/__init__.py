"""What the two worlds, threads and asyncio, have in common."""
