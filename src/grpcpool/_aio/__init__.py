"""The pool for asyncio: `pool.py` is its face, `driver.py` the driver of the machine."""
