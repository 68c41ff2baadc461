"""The pool for asyncio: `pool.py` is its face, `core.py` the driver of the machine."""
