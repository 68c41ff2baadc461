"""The asyncio pool's leases and life: with fakes, and in `test_real_*` against real servers."""
