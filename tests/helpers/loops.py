"""Coroutines in tests: a thread of their own, since a browser that is still open keeps a loop in the main one."""

import asyncio
from concurrent.futures import ThreadPoolExecutor


def run(work):
    """What a coroutine returns."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
