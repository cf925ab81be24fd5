"""State of methods that remember gradients."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mtl.errors import UnsupportedError


class GradientMemory(nn.Module):
    """Rows of numbers by task, as many as there are columns at the first use; saved with the state.

    Args:
        num_tasks: Number of rows.
    """

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.rows: Tensor | None = None
        self.steps = 0

    def like(self, jacobian: Tensor) -> Tensor:
        """The rows, `[num_tasks, n]`, on the Jacobian's device; zeros at the first use.

        Raises:
            UnsupportedError: There were other columns in an earlier step.
        """
        columns = jacobian.shape[1]
        if self.rows is None:
            self.rows = jacobian.new_zeros(self.num_tasks, columns)
        if self.rows.shape[1] != columns:
            raise UnsupportedError(
                f"A memory of gradients should have {self.rows.shape[1]} columns in every step. "
                f'Got {columns}. Use level="parameters".'
            )
        self.rows = self.rows.to(jacobian)
        return self.rows

    def get_extra_state(self) -> dict[str, Any]:
        """The rows and the number of steps."""
        return {"rows": self.rows, "steps": self.steps}

    def set_extra_state(self, state: Any) -> None:
        """Goes on with saved rows."""
        self.rows, self.steps = state["rows"], state["steps"]
