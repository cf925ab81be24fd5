"""State of methods that remember gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mtl.distributed import Held
from mtl.errors import UnsupportedError


class GradientMemory(nn.Module):
    """Rows of numbers by task, as many as there are columns at the first use; saved with the state.

    With several processes each remembers the columns that it holds. The state is whole all the
    same, and any number of processes goes on from it: `state_dict` gathers the columns, so every
    process has to call it (Lightning does, to save a checkpoint); what is loaded is cut at the next
    use.

    Args:
        num_tasks: Number of rows.

    Attributes:
        rows: `[num_tasks, n]`; `None` before the first use.
        held: The columns that these are; `None`: all.
        steps: Counted by whom it belongs to.
    """

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.rows: Tensor | None = None
        self.held: Held | None = None
        self.steps = 0

    def like(self, jacobian: Tensor, held: Held | None = None) -> Tensor:
        """The rows, `[num_tasks, n]`, on the Jacobian's device; zeros at the first use.

        Args:
            jacobian: `[m, n]`.
            held: Which columns its n columns are; `None`: all.

        Raises:
            UnsupportedError: There were other columns in an earlier step.
        """
        columns = jacobian.shape[1] if held is None else held.total
        if self.rows is None:
            self.rows, self.held = jacobian.new_zeros(self.num_tasks, jacobian.shape[1]), held
        known = self.rows.shape[1] if self.held is None else self.held.total
        if known != columns:
            raise UnsupportedError(
                f"A memory of gradients should have {known} columns in every step. Got {columns}. "
                'Use level="parameters".'
            )
        if self.held is None and held is not None:
            self.rows, self.held = held.of(self.rows).clone(), held
        self._check(held)
        self.rows = self.rows.to(jacobian)
        return self.rows

    def get_extra_state(self) -> dict[str, Any]:
        """The rows, of all columns, and the number of steps.

        Raises:
            UnsupportedError: The processes that hold the other columns are gone.
        """
        rows, held = self.rows, self.held
        if rows is not None and held is not None:
            self._check(held if held.up_to_date else None)
            rows = torch.stack([held.all_gather(row).cpu() for row in rows])
        return {"rows": rows, "steps": self.steps}

    def set_extra_state(self, state: Any) -> None:
        """Goes on with saved rows."""
        rows, self.steps = state["rows"], state["steps"]
        self.rows, self.held = None if rows is None else rows.clone(), None

    def _check(self, held: Held | None) -> None:
        if self.held != held:
            raise UnsupportedError(
                "A memory of gradients should be used by the processes among which it is shared: "
                f"expected {self.held} here. Got {held}. Take the state_dict in all of them before "
                "the process group changes, and load it after that."
            )
