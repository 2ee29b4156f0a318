"""KeyboardInterrupt at any moment where Python may raise it: at the start of a function, and behind a call into C."""

import sys

LOCKS = ("queue.py", "threading.py")  # an interrupt in there leaves the standard library's own lock taken, for ever


def interrupted(do, at, files=("",), functions=(), kept=None):
    """Run `do()` and raise KeyboardInterrupt at the `at`-th such moment in these files and functions (0: never).

    Returns how many there were. The error goes into the list `kept`, with its traceback, or is forgotten."""
    count = 0

    def watch(frame, event, _arg):
        nonlocal count
        code = frame.f_code
        if (
            event not in ("call", "c_return")
            or not code.co_filename.endswith(files)
            or code.co_filename.endswith(LOCKS)
        ):
            return
        if not functions or code.co_name in functions:
            count += 1
            if count == at:
                raise KeyboardInterrupt

    sys.setprofile(watch)
    try:
        do()
    except KeyboardInterrupt as came:
        sys.setprofile(None)
        if kept is not None:
            kept.append(came)
    finally:
        sys.setprofile(None)
    return count
