"""Making batches in a thread of their own, ahead of their use."""

import threading
from collections.abc import Iterator
from typing import TypeVar

from utils.channel import Channel

Item = TypeVar("Item")
DEPTH = 2  # items that wait


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items in their order, made in a thread while the last ones are used; an error there is raised here."""
    channel: Channel[Item] = Channel(DEPTH)

    def produce() -> None:
        try:
            for item in items:
                if not channel.put(item):
                    return
            channel.close()
        except BaseException as error:  # whatever it is, it belongs to the consumer
            channel.close(error)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        yield from channel
    finally:
        channel.close()
        thread.join()
