"""Waiting for one socket, also when its number is above what select() can take."""

import select


def wait_for(fd: int, write: bool, timeout: float) -> tuple[bool, bool]:
    """Whether `fd` can be read and written, after at most `timeout` seconds; nothing where there is no socket."""
    if fd < 0:
        return False, False
    poll = select.poll()
    poll.register(fd, select.POLLIN | (select.POLLOUT if write else 0))
    events = 0
    for _fd, happened in poll.poll(max(0, int(timeout * 1000 + 0.999))):
        events |= happened
    broken = select.POLLHUP | select.POLLERR | select.POLLNVAL
    return bool(events & (select.POLLIN | broken)), write and bool(events & (select.POLLOUT | broken))
