"""An executor without threads, so that a test that reads ahead goes the same way each time."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class Immediate(Executor):
    """Runs what is submitted at once, in the caller; ``submitted`` counts."""

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Done when it returns, with its result or its error."""
        self.submitted += 1
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
