"""Threads of OpenCV; apart from `enhance`, so that who only decodes images waits for no torch."""

import cv2


def single_threaded() -> None:
    """Keep OpenCV from splitting one image over threads: the work is parallel over images.

    Call it before loader workers are forked. They inherit the setting; a worker that changed it
    itself would wait for ever for threads that did not survive the fork.
    """
    cv2.setNumThreads(1)
